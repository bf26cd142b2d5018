package sdktest

import (
	"context"
	"net/http"

	"google.golang.org/api/option"
	translate "google.golang.org/api/translate/v2"
	"google.golang.org/genai"
)

func googleClients() []Client {
	gemini := web{
		says: geminiSays, ask: askGenAI, part: `{"candidates":[{"content":{"parts":[{"te`,
		streamKind: "text/event-stream",
		stream: `data: {"candidates":[{"content":{"parts":[{"text":"Well"}],"role":"model"}}]}` + "\n\n" +
			`data: {"error":{"code":503,"message":"busy","status":"UNAVAILABLE"}}` + "\n\n",
	}
	first := Client{Name: "genai", Module: "google.golang.org/genai", Retries: "it has none unless `RetryOptions` is given", LLM: true, try: gemini.try}
	return []Client{
		first, through(first, gemini),
		{Name: "googleapi", Module: "google.golang.org/api", Retries: "it has none for such calls", try: web{
			says: googleSays, ask: askGoogle, part: `{"data":{"translations":[{"trans`,
		}.try},
	}
}

// googleStatuses has the names that Google's APIs give to statuses.
//
//nolint:gochecknoglobals // immutable data
var googleStatuses = map[int]string{
	http.StatusBadRequest: "INVALID_ARGUMENT", http.StatusUnauthorized: "UNAUTHENTICATED",
	http.StatusForbidden: "PERMISSION_DENIED", http.StatusNotFound: "NOT_FOUND", http.StatusConflict: "ABORTED",
	http.StatusTooManyRequests: "RESOURCE_EXHAUSTED", http.StatusInternalServerError: "INTERNAL",
	http.StatusNotImplemented: "UNIMPLEMENTED", http.StatusServiceUnavailable: "UNAVAILABLE",
	http.StatusGatewayTimeout: "DEADLINE_EXCEEDED", overloaded: "UNAVAILABLE",
}

func googleError(status int, details ...any) object {
	inner := object{"code": status, "message": "text of the server", "status": googleStatuses[status]}
	if len(details) > 0 {
		inner["details"] = details
	}
	return inner
}

func errorInfo(reason string) object {
	return object{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}
}

func retryInfo() object {
	return object{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "30s"}
}

// geminiSays is the shape of the errors of Gemini.
func geminiSays(fault Fault) (status int, body any, ok bool) {
	switch fault.Problem {
	case Plain, TooLong, Large, Limit, Busy:
		if fault.Problem == Busy {
			status = http.StatusServiceUnavailable // it has no other
			break
		}
		return 0, object{"error": googleError(fault.Status)}, true
	case NoModel:
		return 0, object{"error": googleError(fault.Status)}, true
	case DeadKey:
		return http.StatusBadRequest, object{"error": googleError(http.StatusBadRequest, errorInfo("API_KEY_INVALID"))}, true
	case LimitDelay:
		return 0, object{"error": googleError(fault.Status, retryInfo())}, true
	case Spent:
		violation := object{
			"@type":      "type.googleapis.com/google.rpc.QuotaFailure",
			"violations": []any{object{"quotaId": "GenerateRequestsPerDayPerProjectPerModel", "quotaMetric": "requests"}},
		}
		return 0, object{"error": googleError(fault.Status, violation)}, true
	default:
		return 0, nil, false
	}
	return status, object{"error": googleError(status)}, true
}

// googleSays is the shape of the errors of Google's other APIs: reasons beside the status, and limits with status 403.
func googleSays(fault Fault) (status int, body any, ok bool) {
	reason := ""
	inner := googleError(fault.Status)
	switch fault.Problem {
	case Plain, Large:
	case DeadKey:
		status = http.StatusBadRequest
		inner, reason = googleError(status, errorInfo("API_KEY_INVALID")), "badRequest"
	case Limit:
		reason = "rateLimitExceeded"
	case LimitDelay:
		inner, reason = googleError(fault.Status, errorInfo("RATE_LIMIT_EXCEEDED"), retryInfo()), "rateLimitExceeded"
	case Drained:
		reason = "userRateLimitExceeded"
	case Spent:
		status, reason = http.StatusForbidden, "dailyLimitExceeded"
		inner = googleError(status)
	default:
		return 0, nil, false
	}
	if reason != "" {
		inner["errors"] = []any{object{"message": "text of the server", "domain": "usageLimits", "reason": reason}}
	}
	return status, object{"error": inner}, true
}

func askGenAI(ctx context.Context, p place, stream bool) error {
	client, err := genai.NewClient(ctx, &genai.ClientConfig{
		APIKey: "key", Backend: genai.BackendGeminiAPI, HTTPClient: p.client, HTTPOptions: genai.HTTPOptions{BaseURL: p.url},
	})
	if err != nil {
		return err
	}
	if !stream {
		_, err = client.Models.GenerateContent(ctx, "model", genai.Text("?"), nil)
		return err
	}
	for _, err := range client.Models.GenerateContentStream(ctx, "model", genai.Text("?"), nil) {
		if err != nil {
			return err
		}
	}
	return nil
}

func askGoogle(ctx context.Context, p place, _ bool) error {
	service, err := translate.NewService(ctx, option.WithHTTPClient(p.client), option.WithEndpoint(p.url))
	if err != nil {
		return err
	}
	_, err = service.Translations.List([]string{"?"}, "de").Context(ctx).Do()
	return err
}
