package verdict

import "net/http"

// words has the error codes and types of the APIs of language models, and of messengers, that say more than the
// status. They win over it.
//
//nolint:gochecknoglobals // immutable data
var words = map[string]Class{
	// The key or the account is dead, until an operator mends it.
	"insufficient_quota":            ClassFatal,
	"invalid_api_key":               ClassFatal,
	"account_deactivated":           ClassFatal,
	"organization_deactivated":      ClassFatal,
	"billing_error":                 ClassFatal,
	"billing_not_active":            ClassFatal,
	"billing_hard_limit_reached":    ClassFatal,
	"insufficient_balance":          ClassFatal,
	"exceeded_current_quota_error":  ClassFatal,
	"API_KEY_INVALID":               ClassFatal,
	"API_KEY_SERVICE_BLOCKED":       ClassFatal,
	"BILLING_DISABLED":              ClassFatal,
	"CONSUMER_SUSPENDED":            ClassFatal,
	"invalid_auth":                  ClassFatal,
	"account_inactive":              ClassFatal,
	"token_revoked":                 ClassFatal,
	"token_expired":                 ClassFatal,
	"keyInvalid":                    ClassFatal,
	"keyExpired":                    ClassFatal,
	"quotaExceeded":                 ClassFatal,
	"dailyLimitExceeded":            ClassFatal,
	"UnrecognizedClientException":   ClassFatal,
	"InvalidClientTokenId":          ClassFatal,
	"InvalidAccessKeyId":            ClassFatal,
	"ServiceQuotaExceededException": ClassFatal,

	"rate_limit_exceeded":   ClassRateLimited,
	"rate_limit_error":      ClassRateLimited,
	"RESOURCE_EXHAUSTED":    ClassRateLimited,
	"RATE_LIMIT_EXCEEDED":   ClassRateLimited,
	"rateLimitExceeded":     ClassRateLimited,
	"userRateLimitExceeded": ClassRateLimited,
	"ratelimited":           ClassRateLimited,
	"rate_limited":          ClassRateLimited,
	// AWS has several, some of them with status 400.
	"ThrottlingException":                    ClassRateLimited,
	"Throttling":                             ClassRateLimited,
	"ThrottledException":                     ClassRateLimited,
	"RequestThrottled":                       ClassRateLimited,
	"RequestThrottledException":              ClassRateLimited,
	"RequestLimitExceeded":                   ClassRateLimited,
	"TooManyRequestsException":               ClassRateLimited,
	"ProvisionedThroughputExceededException": ClassRateLimited,

	"overloaded_error":            ClassOverloaded,
	"engine_overloaded_error":     ClassOverloaded,
	"slow_down":                   ClassOverloaded,
	"UNAVAILABLE":                 ClassOverloaded,
	"ModelNotReadyException":      ClassOverloaded,
	"ServiceUnavailableException": ClassOverloaded,
	"SlowDown":                    ClassOverloaded,

	// The model is not there; see [readModel].
	"model_not_found":       ClassNotFound,
	"model_decommissioned":  ClassNotFound,
	"model_deprecated":      ClassNotFound,
	"model_not_supported":   ClassNotFound,
	"unknown_model":         ClassNotFound,
	"invalid_model":         ClassNotFound,
	"DeploymentNotFound":    ClassNotFound,
	"DeploymentUnavailable": ClassNotFound,
	// Something is not there, a model or what the caller has named.
	"not_found_error": ClassNotForMe,
	"NOT_FOUND":       ClassNotForMe,

	"context_length_exceeded":   ClassTooLong,
	"string_above_max_length":   ClassTooLong,
	"exceed_context_size_error": ClassTooLong,
	"request_too_large":         ClassTooLong,

	"content_policy":               ClassRefused,
	"content_policy_violation":     ClassRefused,
	"content_filter":               ClassRefused,
	"moderation_blocked":           ClassRefused,
	"ResponsibleAIPolicyViolation": ClassRefused,
	"data_inspection_failed":       ClassRefused,

	"unsupported_parameter":                ClassUnsupported,
	"unsupported_value":                    ClassUnsupported,
	"unsupported_model":                    ClassUnsupported,
	"unsupported_country_region_territory": ClassNotAllowed,
}

// perModel has the words of limits that hold for one model, rather than for all behind the key.
//
//nolint:gochecknoglobals // immutable data
var perModel = map[string]bool{
	"rate_limit_exceeded": true, "rate_limit_error": true, "RESOURCE_EXHAUSTED": true, "ThrottlingException": true,
}

// kinds has the types of error that say no more than a status does. They count where there is none, as within a
// stream.
//
//nolint:gochecknoglobals // immutable data
var kinds = map[string]Class{
	"invalid_request_error":   ClassBadRequest,
	"INVALID_ARGUMENT":        ClassBadRequest,
	"authentication_error":    ClassUnauthenticated,
	"UNAUTHENTICATED":         ClassUnauthenticated,
	"permission_error":        ClassNotAllowed,
	"PERMISSION_DENIED":       ClassNotAllowed,
	"api_error":               ClassServerError,
	"server_error":            ClassServerError,
	"internal_server_error":   ClassServerError,
	"internal_error":          ClassServerError,
	"timeout_error":           ClassServerError,
	"INTERNAL":                ClassServerError,
	"DEADLINE_EXCEEDED":       ClassServerError,
	"InternalServerError":     ClassServerError,
	"InternalServerException": ClassServerError,
	// Those of a messenger, which answers most requests with status 200.
	"fatal_error":            ClassServerError,
	"service_unavailable":    ClassServerError,
	"request_timeout":        ClassServerError,
	"unknown_method":         ClassElsewhere,
	"not_authed":             ClassUnauthenticated,
	"missing_scope":          ClassNotAllowed,
	"access_denied":          ClassNotAllowed,
	"no_permission":          ClassNotAllowed,
	"not_allowed_token_type": ClassNotAllowed,
	"restricted_action":      ClassNotAllowed,
	"channel_not_found":      ClassResource,
	"user_not_found":         ClassResource,
	"message_not_found":      ClassResource,
	"not_in_channel":         ClassResource,
	"is_archived":            ClassResource,
	"invalid_arguments":      ClassBadRequest,
	"invalid_blocks":         ClassBadRequest,
	"msg_too_long":           ClassBadRequest,
	"no_text":                ClassBadRequest,
}

// HTTP is a [Classifier] that reads the status of an error as RFC 9110 defines it, whatever code comes with it: for
// APIs whose codes look like those of language models and are not. It passes an error without a status on.
func HTTP(err error) Verdict {
	f := factsOf(err)
	return f.ofStatus()
}

// LLM is a [Classifier] for the APIs of language models. It reads codes and types of error as [Of] does, and where
// there is none the status as those APIs mean it: a 404 or 410 is a model that another provider may have, a 409 may
// be tried again, a 413 is too long. It passes an error without either on.
func LLM(err error) Verdict {
	f := factsOf(err)
	if v, known := f.ofWords(); known {
		return v
	}
	if class, differs := llmStatuses[f.status]; differs {
		return Verdict{Class: class}
	}
	return f.ofStatus()
}

// verdict reads the facts by the words in them, else by the status.
func (f *facts) verdict() Verdict {
	if v, known := f.ofWords(); known {
		return v
	}
	if f.named == ClassRateLimited && f.status < http.StatusBadRequest {
		return f.with(ClassRateLimited)
	}
	return f.ofStatus()
}

// ofStatus returns what the status means, and with it the limit that is the reason for some.
func (f *facts) ofStatus() Verdict {
	class := OfHTTPStatus(f.status, f.wait(ClassOverloaded)).Class
	if f.status == http.StatusForbidden && (f.drained || f.named == ClassRateLimited) {
		class = ClassRateLimited
	}
	return f.with(class)
}

// with returns the verdict with the delay that the server asks for.
func (f *facts) with(class Class) Verdict {
	return Verdict{Class: class, After: delayOf(class, f.wait(class))}
}

// ofWords returns what the code or the type means.
func (f *facts) ofWords() (v Verdict, known bool) {
	for _, word := range f.words {
		class, ok := words[word]
		if !ok {
			continue
		}
		if class == ClassNotFound {
			class = readModel(f.status)
		}
		v = f.with(class)
		if perModel[word] {
			v.Scope = ScopeProvider
		}
		return v, true
	}
	if f.status >= http.StatusBadRequest {
		return Verdict{}, false
	}
	for _, word := range f.words {
		if class, ok := kinds[word]; ok {
			return f.with(class), true
		}
	}
	return Verdict{}, false
}

// readModel returns what a model that is not there means, by the status: it has gone, or the request has named one
// that is not for this provider or this key.
func readModel(status int) Class {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return ClassNotAllowed
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return ClassUnsupported
	}
	return ClassNotFound
}
