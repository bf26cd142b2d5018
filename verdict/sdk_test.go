package verdict_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/verdict"
)

// The errors below have the fields and methods of those of public SDKs.

// openaiError is the one of openai-go.
type openaiError struct {
	Code, Message, Param, Type string
	StatusCode                 int
	Request                    *http.Request
	Response                   *http.Response
	raw                        string
}

func (e *openaiError) Error() string   { return "OpenAI API error" }
func (e *openaiError) RawJSON() string { return e.raw }

// openaiStreamError is the one of openai-go within a stream: no status.
type openaiStreamError struct {
	Message string
	Event   struct {
		Type string
		Data []byte
	}
}

func (e *openaiStreamError) Error() string { return e.Message }

// anthropicError is the one of anthropic-sdk-go: its type is that of a method, and in the JSON.
type anthropicError struct {
	StatusCode int
	Response   *http.Response
	raw        string
}

type anthropicType string

func (e *anthropicError) Error() string       { return "POST ... 529" }
func (e *anthropicError) RawJSON() string     { return e.raw }
func (e *anthropicError) Type() anthropicType { return "" }

// goOpenAIError is the one of go-openai.
type goOpenAIError struct {
	Code           any     `json:"code"`
	Message        string  `json:"message"`
	Param          *string `json:"param"`
	Type           string  `json:"type"`
	HTTPStatus     string  `json:"-"`
	HTTPStatusCode int     `json:"-"`
}

func (e *goOpenAIError) Error() string { return "error" }

// goOpenAIRequestError is the other one of go-openai.
type goOpenAIRequestError struct {
	HTTPStatus     string
	HTTPStatusCode int
	Err            error
	Body           []byte
}

func (e *goOpenAIRequestError) Error() string { return "error" }
func (e *goOpenAIRequestError) Unwrap() error { return e.Err }

// ollamaError is that of ollama: a value.
type ollamaError struct {
	StatusCode   int
	Status       string
	ErrorMessage string
}

func (e ollamaError) Error() string { return e.ErrorMessage }

// genaiError is that of genai: a value.
type genaiError struct {
	Code    int
	Message string
	Status  string
	Details []map[string]any
}

func (e genaiError) Error() string { return e.Message }

// slackRateError and slackStatusError are those of slack-go.
type slackRateError struct{ RetryAfter time.Duration }

func (e *slackRateError) Error() string { return "slack rate limit exceeded" }

type slackStatusError struct {
	Code   int
	Status string
}

func (e slackStatusError) Error() string { return e.Status }

type slackResponseError struct{ Err string }

func (e slackResponseError) Error() string { return e.Err }

// discordRateError and discordError are those of discordgo.
type discordRateError struct{ *discordRate }

type discordRate struct {
	*discordTooMany

	URL string
}

type discordTooMany struct{ RetryAfter time.Duration }

func (discordRateError) Error() string { return "rate limit" }

type discordError struct{ Response *http.Response }

func (e discordError) Error() string { return "HTTP" }

// awsResponseError wraps awsError, as those of aws-sdk-go-v2 do.
type awsResponseError struct {
	status int
	err    error
}

func (e *awsResponseError) Error() string       { return "https response error" }
func (e *awsResponseError) HTTPStatusCode() int { return e.status }
func (e *awsResponseError) Unwrap() error       { return e.err }

type awsError struct{ code string }

func (e *awsError) Error() string     { return "api error" }
func (e *awsError) ErrorCode() string { return e.code }

// azureError is that of azcore.
type azureError struct {
	ErrorCode   string
	StatusCode  int
	RawResponse *http.Response
}

func (e *azureError) Error() string { return "RESPONSE" }

// RateLimitError is one of its name: that of go-github, and that of discordgo without a delay.
type RateLimitError struct{ Response *http.Response }

func (*RateLimitError) Error() string { return "limit" }

// AbuseRateLimitError is that of go-github, whose delay is optional.
type AbuseRateLimitError struct {
	Response   *http.Response
	RetryAfter *time.Duration
}

func (*AbuseRateLimitError) Error() string { return "limit" }

// DeserializationError is that of smithy.
type DeserializationError struct{ Err error }

func (*DeserializationError) Error() string   { return "deserialization failed" }
func (e *DeserializationError) Unwrap() error { return e.Err }

// googleError is that of google.golang.org/api: its body is a text.
type googleError struct {
	Code   int
	Body   string
	Header http.Header
}

func (e *googleError) Error() string { return "googleapi" }

// smithyResponse wraps the response, as that of smithy does.
type smithyResponse struct{ *http.Response }

type smithyError struct{ Response *smithyResponse }

func (e *smithyError) Error() string { return "https response error" }

func answer(status int, header ...string) *http.Response {
	r := &http.Response{StatusCode: status, Header: make(http.Header)}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

//nolint:bodyclose // no server has sent them
func TestOf_KnowsErrorsOfSDKsByFieldsAndMethods(t *testing.T) {
	t.Parallel()
	class := func(c verdict.Class) verdict.Verdict { return verdict.Verdict{Class: c} }
	perModel := verdict.Verdict{Class: verdict.ClassRateLimited, Scope: verdict.ScopeProvider}
	half := 500 * time.Millisecond
	inStream := func(data string) error {
		e := &openaiStreamError{}
		e.Event.Data = []byte(data)
		return e
	}
	for name, row := range map[string]struct {
		err  error
		want verdict.Verdict
	}{
		"openai, quota":           {&openaiError{StatusCode: 429, Code: "insufficient_quota", Type: "insufficient_quota"}, class(verdict.ClassFatal)},
		"openai, key":             {&openaiError{StatusCode: 401, Code: "invalid_api_key", Type: "invalid_request_error"}, class(verdict.ClassFatal)},
		"openai, 401 without":     {&openaiError{StatusCode: 401}, class(verdict.ClassUnauthenticated)},
		"openai, model":           {&openaiError{StatusCode: 404, Code: "model_not_found"}, class(verdict.ClassNotFound)},
		"openai, model forbidden": {&openaiError{StatusCode: 403, Code: "model_not_found"}, class(verdict.ClassNotAllowed)},
		"openai, model 400":       {&openaiError{StatusCode: 400, Code: "model_not_found"}, class(verdict.ClassUnsupported)},
		"openai, context":         {&openaiError{StatusCode: 400, Code: "context_length_exceeded"}, class(verdict.ClassTooLong)},
		"openai, policy":          {&openaiError{StatusCode: 400, Code: "content_policy_violation"}, class(verdict.ClassRefused)},
		"openai, parameter":       {&openaiError{StatusCode: 400, Code: "unsupported_parameter", Param: "temperature"}, class(verdict.ClassUnsupported)},
		"openai, bad":             {&openaiError{StatusCode: 400, Type: "invalid_request_error"}, class(verdict.ClassBadRequest)},
		"openai, 404 otherwise":   {&openaiError{StatusCode: 404, Type: "invalid_request_error"}, class(verdict.ClassResource)},
		"openai, rate": {
			&openaiError{StatusCode: 429, Code: "rate_limit_exceeded", Type: "tokens", Response: answer(429, "Retry-After", "7")},
			verdict.Verdict{Class: verdict.ClassRateLimited, After: 7 * time.Second, Scope: verdict.ScopeProvider},
		},
		"openai, milliseconds": {
			&openaiError{StatusCode: 429, Response: answer(429, "Retry-After-Ms", "1500", "Retry-After", "2")},
			verdict.Verdict{Class: verdict.ClassRateLimited, After: 1500 * time.Millisecond},
		},
		"openai, stream":   {inStream(`{"error":{"type":"server_error","code":null}}`), class(verdict.ClassServerError)},
		"openai, stream 2": {inStream(`{"error":{"type":"requests","code":"rate_limit_exceeded"}}`), perModel},
		"anthropic, overloaded": {
			&anthropicError{StatusCode: 529, raw: `{"type":"error","error":{"type":"overloaded_error","message":"x"}}`},
			class(verdict.ClassOverloaded),
		},
		"anthropic, stream":  {&anthropicError{StatusCode: 200, raw: `{"type":"error","error":{"type":"overloaded_error"}}`}, class(verdict.ClassOverloaded)},
		"anthropic, stream2": {&anthropicError{StatusCode: 200, raw: `{"type":"error","error":{"type":"api_error"}}`}, class(verdict.ClassServerError)},
		"anthropic, model":   {&anthropicError{StatusCode: 404, raw: `{"type":"error","error":{"type":"not_found_error"}}`}, class(verdict.ClassNotForMe)},
		"anthropic, billing": {&anthropicError{StatusCode: 402, raw: `{"error":{"type":"billing_error"}}`}, class(verdict.ClassFatal)},
		"anthropic, key":     {&anthropicError{StatusCode: 401, raw: `{"error":{"type":"authentication_error"}}`}, class(verdict.ClassUnauthenticated)},
		"anthropic, long":    {&anthropicError{StatusCode: 413, raw: `{"error":{"type":"request_too_large"}}`}, class(verdict.ClassTooLong)},
		"anthropic, HTML":    {&anthropicError{StatusCode: 502, raw: "<html>"}, class(verdict.ClassServerError)},
		"anthropic, strange": {&anthropicError{StatusCode: 500, raw: `{"error":{"type":7,"code":["overloaded_error"]}}`}, class(verdict.ClassServerError)},
		"anthropic, endless": {
			&anthropicError{StatusCode: 500, raw: `{"error":{"type":"overloaded_error","message":"` + strings.Repeat("x", 1<<20) + `"}}`},
			class(verdict.ClassServerError),
		},
		"go-openai":         {&goOpenAIError{HTTPStatusCode: 429, Code: "insufficient_quota"}, class(verdict.ClassFatal)},
		"go-openai, number": {&goOpenAIError{HTTPStatusCode: 503, Code: 503.0}, class(verdict.ClassServerError)},
		"go-openai, stream": {&goOpenAIError{Type: "server_error"}, class(verdict.ClassServerError)},
		"go-openai, body":   {&goOpenAIRequestError{HTTPStatusCode: 400, Body: []byte(`{"error":{"code":"context_length_exceeded"}}`)}, class(verdict.ClassTooLong)},
		"go-openai, wraps":  {&goOpenAIRequestError{HTTPStatusCode: 429, Err: &goOpenAIError{Code: "rate_limit_exceeded"}}, perModel},
		"ollama":            {ollamaError{StatusCode: 503}, class(verdict.ClassServerError)},
		"ollama, model":     {ollamaError{StatusCode: 404, Status: "404 Not Found"}, class(verdict.ClassResource)},
		"genai":             {genaiError{Code: 429, Status: "RESOURCE_EXHAUSTED"}, perModel},
		"genai, overloaded": {genaiError{Code: 503, Status: "UNAVAILABLE"}, class(verdict.ClassOverloaded)},
		"genai, bad":        {genaiError{Code: 400, Status: "INVALID_ARGUMENT"}, class(verdict.ClassBadRequest)},
		"slack, rate":       {&slackRateError{30 * time.Second}, verdict.Verdict{Class: verdict.ClassRateLimited, After: 30 * time.Second}},
		"slack, status":     {slackStatusError{Code: 500, Status: "500 Internal Server Error"}, class(verdict.ClassServerError)},
		"slack, token":      {slackResponseError{"token_revoked"}, class(verdict.ClassFatal)},
		"slack, 200":        {slackResponseError{"ratelimited"}, class(verdict.ClassRateLimited)},
		"discord, rate":     {discordRateError{&discordRate{discordTooMany: &discordTooMany{time.Second}}}, verdict.Verdict{Class: verdict.ClassRateLimited, After: time.Second}},
		"discord, no rate":  {discordRateError{&discordRate{}}, verdict.Verdict{}},
		"discord":           {discordError{answer(403)}, class(verdict.ClassNotAllowed)},
		"discord, none":     {discordError{}, verdict.Verdict{}},
		"aws, throttled":    {&awsResponseError{400, &awsError{"ThrottlingException"}}, perModel},
		"aws, otherwise":    {&awsResponseError{400, &awsError{"ValidationException"}}, class(verdict.ClassBadRequest)},
		"azure":             {&azureError{ErrorCode: "DeploymentNotFound", StatusCode: 404}, class(verdict.ClassNotFound)},
		"azure, header":     {&azureError{StatusCode: 503, RawResponse: answer(503, "Retry-After", "1")}, verdict.Verdict{Class: verdict.ClassOverloaded, After: time.Second}},
		"github, limit":     {&RateLimitError{answer(403)}, class(verdict.ClassRateLimited)},
		"github, gateway":   {&RateLimitError{answer(502)}, class(verdict.ClassServerError)},
		"github, second":    {&AbuseRateLimitError{answer(403), &half}, verdict.Verdict{Class: verdict.ClassRateLimited, After: half}},
		"github, second 2":  {&AbuseRateLimitError{Response: answer(403)}, class(verdict.ClassRateLimited)},
		"discord, no time":  {&RateLimitError{}, class(verdict.ClassRateLimited)},
		"aws, malformed":    {&DeserializationError{errCause}, class(verdict.ClassMalformed)},
		"aws, cut":          {&DeserializationError{io.ErrUnexpectedEOF}, class(verdict.ClassTransport)},
		"aws, 500":          {&awsResponseError{500, &DeserializationError{errCause}}, class(verdict.ClassServerError)},
		"aws, header":       {&smithyError{&smithyResponse{answer(503, "Retry-After", "1")}}, verdict.Verdict{Class: verdict.ClassOverloaded, After: time.Second}},
		"aws, no response":  {&smithyError{}, verdict.Verdict{}},
		"aws, none in it":   {&smithyError{&smithyResponse{}}, verdict.Verdict{}},
		"google, reason":    {&googleError{Code: 403, Body: `{"error":{"code":403,"errors":[{"reason":"userRateLimitExceeded"}]}}`}, class(verdict.ClassRateLimited)},
		"google, status":    {&googleError{Code: 404, Body: `{"error":{"code":404,"status":"NOT_FOUND"}}`}, class(verdict.ClassResource)},
		"google, text":      {&googleError{Code: 404, Body: "API_KEY_INVALID"}, class(verdict.ClassResource)},
		"google, delay": {
			&googleError{Code: 429, Body: `{"error":{"details":[{"@type":"x","retryDelay":"7s"}]}}`},
			verdict.Verdict{Class: verdict.ClassRateLimited, After: 7 * time.Second},
		},
		"genai, delay": {
			genaiError{Code: 429, Status: "RESOURCE_EXHAUSTED", Details: []map[string]any{{"retryDelay": "7s"}, {"reason": 7, "retryDelay": 7}}},
			verdict.Verdict{Class: verdict.ClassRateLimited, After: 7 * time.Second, Scope: verdict.ScopeProvider},
		},
		"genai, key":     {genaiError{Code: 400, Status: "INVALID_ARGUMENT", Details: []map[string]any{{"reason": "API_KEY_INVALID"}}}, class(verdict.ClassFatal)},
		"slack, channel": {slackResponseError{"channel_not_found"}, class(verdict.ClassResource)},
		"a mail server":  {&textproto.Error{Code: 450}, verdict.Verdict{}},
		"text alone":     {errors.New("429 insufficient_quota"), verdict.Verdict{}},
		"JSON":           {&json.SyntaxError{}, class(verdict.ClassMalformed)},
		"nil":            {(*openaiError)(nil), verdict.Verdict{}},
		"nil within":     {fmt.Errorf("x: %w", error((*anthropicError)(nil))), verdict.Verdict{}},
	} {
		require.Equal(t, row.want, verdict.Of(row.err), name)
		require.Equal(t, row.want, verdict.Of(fmt.Errorf("model: %w", row.err)), name)
	}
}

// Of two errors that are joined, neither adds to the other.
func TestOf_DoesNotMixJoinedErrors(t *testing.T) {
	t.Parallel()
	conflict, quota := &azureError{StatusCode: 409}, &openaiError{Code: "insufficient_quota"}
	require.Equal(t, verdict.ClassResource, verdict.Of(errors.Join(conflict, quota)).Class)
	require.Equal(t, verdict.ClassFatal, verdict.Of(errors.Join(quota, conflict)).Class)
}

// What a code means in one profile is passed by in the other.
//
//nolint:bodyclose // no server has sent them
func TestHTTP_IgnoresCodesAndLLMReadsThem(t *testing.T) {
	t.Parallel()
	err := fmt.Errorf("shop: %w", &openaiError{StatusCode: 404, Code: "model_not_found", Response: answer(404)})
	require.Equal(t, verdict.ClassNotFound, verdict.Of(err).Class)
	require.Equal(t, verdict.ClassNotFound, verdict.LLM(err).Class)
	require.Equal(t, verdict.ClassResource, verdict.HTTP(err).Class)
	require.Zero(t, verdict.HTTP(errCause))
	require.Zero(t, verdict.LLM(errCause))
	require.Zero(t, verdict.LLM(nil))
	require.Zero(t, verdict.HTTP(nil))
}

type itself struct{}

func (*itself) Error() string   { return "itself" }
func (e *itself) Unwrap() error { return e }

// twice wraps itself in two ways: a tree without end.
type twice struct{}

func (twice) Error() string     { return "twice" }
func (e twice) Unwrap() []error { return []error{e, e} }

type panics struct{}

func (panics) Error() string       { panic("Error") }
func (panics) HTTPStatusCode() int { panic("HTTPStatusCode") }
func (panics) Is(error) bool       { panic("Is") }

type nilGRPCError struct{}

func (nilGRPCError) Error() string                          { return "x" }
func (nilGRPCError) GRPCStatus() interface{ Code() uint32 } { return nil }

type incomparable []int

func (incomparable) Error() string { return "incomparable" }

// Variants: an error that wraps itself, one that does twice, methods that panic, a nil status, a nil pointer,
// an error that cannot be compared.
func TestOf_SurvivesHostileErrors(t *testing.T) {
	t.Parallel()
	classify := verdict.Map(map[error]verdict.Class{errCause: verdict.ClassResource})
	for _, err := range []error{&itself{}, twice{}, panics{}, nilGRPCError{}, (*itself)(nil), incomparable{}, errors.Join(&itself{}, incomparable{})} {
		require.Zero(t, verdict.Of(err), "%T", err)
		require.Zero(t, verdict.HTTP(err), "%T", err)
		require.Zero(t, verdict.LLM(err), "%T", err)
		_, stated := verdict.Stated(err)
		require.False(t, stated, "%T", err)
		if _, bad := err.(panics); !bad { //nolint:errorlint // it is that one
			require.Zero(t, classify(err), "%T", err)
		}
	}
}

func TestMap_OutermostMatchDecides(t *testing.T) {
	t.Parallel()
	inner, outer := errors.New("inner"), errors.New("outer")
	classes := map[error]verdict.Class{inner: verdict.ClassRateLimited, outer: verdict.ClassResource, nil: verdict.ClassFatal}
	classify := verdict.Map(classes)
	delete(classes, inner)
	require.Equal(t, verdict.ClassRateLimited, classify(fmt.Errorf("x: %w", inner)).Class)
	require.Equal(t, verdict.ClassResource, classify(fmt.Errorf("%w: %w", outer, inner)).Class)
	require.Equal(t, verdict.ClassRateLimited, classify(fmt.Errorf("%w: %w", inner, outer)).Class)
	require.Zero(t, classify(nil))
	require.Zero(t, classify(errCause))
	require.Zero(t, verdict.Map(nil)(inner))
}
