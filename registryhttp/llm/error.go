package llm

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/capreg/registry/verdict"
)

// Error is an error that a server has sent, with the fields that OpenAI's API gives one.
type Error struct {
	// Message is the text for a person. It may repeat the request.
	Message string `json:"message"`
	// Type is the kind of the error.
	Type string `json:"type"`
	// Param is the field of the request that it is about: a text, or nil.
	Param any `json:"param"`
	// Code is the error in one word: a text, a number, or nil.
	Code any `json:"code"`
	// Status is the HTTP status, or the one that the error names for itself; 0: none.
	Status int `json:"-"`

	after time.Duration // until it is worth to ask again
}

// noWords is the message of a refusal that has none.
const noWords = "the server gave no reason"

// longestPlain bounds a refusal in plain text that is taken for a message.
const longestPlain = 500

// ParseError reads the body of a refusal with the given status, whatever form it has: a field error, the error itself, a
// text. A page says nothing.
func ParseError(status int, body []byte) *Error {
	e, ok := errorIn(body)
	if !ok {
		e = &Error{}
		var other struct {
			Error

			Detail json.RawMessage `json:"detail"`
		}
		_ = json.Unmarshal(body, &other) // what fits
		*e = other.Error
		if e.Message == "" && json.Unmarshal(other.Detail, &e.Message) != nil {
			e.Message = string(other.Detail)
		}
	}
	if text := bytes.TrimSpace(body); e.Message == "" && len(text) <= longestPlain && utf8.Valid(text) &&
		!bytes.HasPrefix(text, []byte("<")) && !bytes.HasPrefix(text, []byte("{")) {
		e.Message = strings.Join(strings.Fields(string(text)), " ")
	}
	e.Message, e.Status = cmp.Or(e.Message, noWords), status
	return e
}

// errorIn returns the error that an answer is: in a field of its own, as OpenAI sends it, as the answer itself, as vLLM
// does, or in the response that an event is about.
func errorIn(text []byte) (e *Error, ok bool) {
	var body struct {
		Error    json.RawMessage `json:"error"`
		Object   json.RawMessage `json:"object"`
		Type     json.RawMessage `json:"type"`
		Response struct {
			Error json.RawMessage `json:"error"`
		} `json:"response"`
	}
	e = &Error{}
	_ = json.Unmarshal(text, &body) // what fits
	switch {
	case !json.Valid(text):
		return nil, false
	case isThere(body.Error):
		e.read(body.Error)
	case isThere(body.Response.Error):
		e.read(body.Response.Error)
	case string(body.Object) == `"error"`, string(body.Type) == `"error"`:
		e.read(text)
	default:
		return nil, false
	}
	return e, true
}

func isThere(value json.RawMessage) bool { return len(value) > 0 && string(value) != "null" }

// read reads what fits; some servers send a plain text.
func (e *Error) read(text []byte) {
	if json.Unmarshal(text, e) != nil && json.Unmarshal(text, &e.Message) != nil {
		e.Message = noWords
	}
	code := fmt.Sprint(e.Code)
	if number, ok := e.Code.(float64); ok {
		code = strconv.Itoa(int(number))
	}
	if status, err := strconv.Atoi(code); err == nil && status >= http.StatusBadRequest && status < 600 {
		e.Status = status
	}
}

// Error returns the status, the type and the code in one line. The message may repeat the request, and is left out.
func (e *Error) Error() string {
	words := []string{"error of the server"}
	if e.Status != 0 {
		words = append(words, fmt.Sprintf("HTTP %d %s", e.Status, http.StatusText(e.Status)))
	}
	for _, word := range []string{e.Type, e.code()} {
		if isWord(word) {
			words = append(words, word)
		}
	}
	return strings.Join(words, ", ")
}

// isWord reports whether a text is an identifier, and so no part of a request.
func isWord(text string) bool {
	return text != "" && len(text) <= 64 && strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == ""
}

func (e *Error) code() string { text, _ := e.Code.(string); return text }

// HTTPStatusCode returns the status.
func (e *Error) HTTPStatusCode() int { return e.Status }

// Verdict returns what the error means, as [verdict.LLM] reads it.
func (e *Error) Verdict() verdict.Verdict {
	param, _ := e.Param.(string)
	return verdict.LLM(&verdict.ResponseError{StatusCode: e.Status, Code: e.code(), Type: e.Type, Param: param})
}

func malformed(what string) error {
	return verdict.As(fmt.Errorf("llm: the server sent %s", what), verdict.Verdict{Class: verdict.ClassMalformed})
}
