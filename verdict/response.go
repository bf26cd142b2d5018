package verdict

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/capreg/registry/internal/oneline"
)

// ResponseError is an HTTP response that is a refusal or a failure, as [FromResponse] returns it.
type ResponseError struct {
	// StatusCode is the status, 400 or more.
	StatusCode int
	// Code, Type and Param are what the API says of the error in JSON; empty where it does not.
	Code, Type, Param string
	// After is the delay that the server asks for: in the header Retry-After or its relatives, in the body, or with a
	// rate limit as the time at which that begins again. Zero without one.
	After time.Duration

	words   []string // all that the API says
	drained bool     // a limit is the reason, though the status is 403
}

// Error returns the status and the code in one line. What the server says beyond that may
// repeat the request, and is left out.
func (e *ResponseError) Error() string {
	text := strings.TrimSpace(fmt.Sprintf("HTTP %d %s", e.StatusCode, http.StatusText(e.StatusCode)))
	if e.Code != "" {
		text += " (" + e.Code + ")"
	} else if e.Type != "" {
		text += " (" + e.Type + ")"
	}
	return oneline.Cut(oneline.Of(text), 200)
}

// HTTPStatusCode returns the status.
func (e *ResponseError) HTTPStatusCode() int { return e.StatusCode }

// RetryAfter returns the delay.
func (e *ResponseError) RetryAfter() time.Duration { return e.After }

func (e *ResponseError) facts() facts {
	f := facts{status: e.StatusCode, words: slices.Clone(e.words), after: max(e.After, 0), drained: e.drained}
	f.addWord(e.Code)
	f.addWord(e.Type)
	return f
}

var errNoResponse = errors.New("no response")

// FromResponse returns nil for a response below 400, and otherwise a [ResponseError], whose class [Of] knows:
//
//	response, err := client.Do(request)
//	if err == nil {
//		err = verdict.FromResponse(response)
//	}
//
// Of a body in JSON it reads the first 64 KiB for the code of the error, for which it may wait. The body can still
// be read from its start, and is still to be closed. A nil response is [ClassMalformed].
func FromResponse(response *http.Response) error {
	switch {
	case response == nil:
		return As(errNoResponse, Verdict{Class: ClassMalformed})
	case response.StatusCode < http.StatusBadRequest:
		return nil
	}
	e := &ResponseError{StatusCode: response.StatusCode}
	var f facts
	f.readResponse(response.StatusCode, response.Header)
	if said, ok := parseBody(peekJSON(response)); ok {
		e.Code, e.Type, e.Param = text(said.Code), text(said.Type), text(said.Param)
		e.words = said.words()
		f.words = e.words
		f.setBodyDelay(said.delay())
	}
	e.After, e.drained = f.wait(f.verdict().Class), f.drained
	return e
}

// text returns a value that is a short text, else nothing.
func text(value any) string {
	if word, ok := value.(string); ok && len(word) <= wordLimit {
		return word
	}
	return ""
}

// peekJSON reads the start of a body in JSON, and puts it back.
func peekJSON(response *http.Response) []byte {
	kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if response.Body == nil || kind != "application/json" && !strings.HasSuffix(kind, "+json") {
		return nil
	}
	var start bytes.Buffer
	_, err := io.Copy(&start, io.LimitReader(response.Body, bodyLimit))
	rest := response.Body
	again := []io.Reader{bytes.NewReader(start.Bytes()), rest}
	if err != nil {
		again = append(again[:1], failing{err})
	}
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(again...), rest}
	return bytes.TrimLeft(start.Bytes(), " \t\r\n")
}

// failing is the rest of a body that could not be read.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
