package verdict

import (
	"encoding/json"
	"time"
)

// bodyLimit bounds the body of an answer that is read for its codes.
const bodyLimit = 64 << 10

// apiError has the fields of the JSON errors of APIs, which are within an object or bare.
type apiError struct {
	Code       any             `json:"code"`
	Type       any             `json:"type"`
	Status     any             `json:"status"`
	Param      any             `json:"param"`
	RetryAfter any             `json:"retry_after"` // seconds
	Error      json.RawMessage `json:"error"`
	Details    []struct {
		Reason     string `json:"reason"`
		RetryDelay string `json:"retryDelay"`
	} `json:"details"`
	Errors []struct {
		Reason string `json:"reason"`
	} `json:"errors"`
}

// readBody reads the codes in the JSON of an error. A body that is none has none.
func (f *facts) readBody(body []byte) {
	said, ok := parseBody(body)
	if !ok {
		return
	}
	f.words = append(f.words, said.words()...)
	f.setBodyDelay(said.delay())
}

// readReasons reads the reasons in the JSON of an error of Google's APIs: its other words say no more than the status.
func (f *facts) readReasons(body []byte) {
	said, ok := parseBody(body)
	if !ok {
		return
	}
	f.words = append(f.words, said.reasons()...)
	f.setBodyDelay(said.delay())
}

// words returns the codes of the error, the most particular first.
func (e apiError) words() (words []string) {
	words = e.reasons()
	for _, word := range []any{e.Code, e.Type, e.Status} {
		words = appendWord(words, text(word))
	}
	return words
}

// reasons returns what the error says beyond its code.
func (e apiError) reasons() (words []string) {
	for _, detail := range e.Details {
		words = appendWord(words, detail.Reason)
	}
	for _, each := range e.Errors {
		words = appendWord(words, each.Reason)
	}
	return words
}

// delay returns the time that the error asks to wait.
func (e apiError) delay() time.Duration {
	for _, detail := range e.Details {
		if after := resetOf(detail.RetryDelay); after > 0 {
			return after
		}
	}
	seconds, _ := e.RetryAfter.(float64)
	return ofSeconds(seconds)
}

// parseBody returns the error in a body, the inner one where there are two.
func parseBody(body []byte) (said apiError, ok bool) {
	if len(body) == 0 || body[0] != '{' {
		return said, false
	}
	// A field of another type than expected is left out; the rest is read.
	_ = json.Unmarshal(body, &said)
	if len(said.Error) > 0 && said.Error[0] == '{' {
		var inner apiError
		_ = json.Unmarshal(said.Error, &inner)
		return inner, true
	}
	return said, true
}
