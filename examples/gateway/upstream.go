package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/capreg/registry"
	"github.com/capreg/registry/stream"
	"github.com/capreg/registry/verdict"
)

// mostBytes bounds the bytes that are read of one answer, and of one request.
const mostBytes = 32 << 20

// target is a destination of a route: an upstream, under the name that it knows the
// model by.
type target struct {
	upstream string
	url      string
	key      string
	model    string // empty: the name that the client used
	anyModel bool   // the route is for other models, too
	client   *http.Client
}

// newClient returns a client with connections of its own, so that an upstream
// that hangs does not delay others. It follows no redirects: the key is meant for
// one host.
func newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 16, IdleConnTimeout: 30 * time.Second,
			ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// ask sends the request and returns the response, with status 200.
func (t *target) ask(ctx context.Context, asked request) (*http.Response, error) {
	body, err := asked.body(cmp.Or(t.model, asked.model))
	if err != nil {
		return nil, verdict.Permanent(err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(t.url, "/")+"/chat/completions", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	if t.key != "" {
		r.Header.Set("Authorization", "Bearer "+t.key)
	}
	if key := registry.IdempotencyKey(ctx); key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	response, err := t.client.Do(r)
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusOK {
		response.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(response.Body, mostBytes+1), response.Body}
		return response, nil
	}
	defer func() { _ = response.Body.Close() }()
	refusal := &upstreamError{status: response.StatusCode, cause: verdict.FromResponse(response), anyModel: t.anyModel}
	const mostOfAnError = 64 << 10
	text, _ := io.ReadAll(io.LimitReader(response.Body, mostOfAnError)) // the status is enough
	refusal.said = refusalIn(text)
	return nil, refusal
}

// answer is a complete answer.
type answer struct {
	upstream string
	model    string
	body     []byte
}

// chat requests a complete answer.
func (t *target) chat(ctx context.Context, asked request) (answer, error) {
	response, err := t.ask(ctx, asked)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{}, err
	}
	content, err := parse(body)
	if err != nil {
		return answer{}, err
	}
	if len(content.Choices) == 0 {
		return answer{}, malformed("an answer without choices")
	}
	return answer{upstream: t.upstream, model: content.Model, body: body}, nil
}

// part is one or more events of a stream.
type part struct {
	data  []byte // complete events, as they are sent on
	model string
	last  bool // the end mark, which is sent on at the end of everything
}

const endOfStream = "[DONE]"

// stream requests an answer piece by piece. What comes before the first token,
// such as the role, comes together with it, so that it is not taken for one.
func (t *target) stream(ctx context.Context, asked request) (iter.Seq2[part, error], error) {
	response, err := t.ask(ctx, asked) //nolint:bodyclose // the iterator closes it
	if err != nil {
		return nil, err
	}
	return func(yield func(part, error) bool) {
		var r partReader
		for event, err := range stream.SSE(response.Body, stream.MaxEventBytes(mostBytes)) {
			p, wanted, err := r.read(event, err)
			if wanted && !yield(p, err) || r.over {
				return
			}
		}
		if p, wanted := r.end(); wanted {
			yield(p, nil)
		}
	}, nil
}

// partReader makes parts of the events of one answer.
type partReader struct {
	before   []byte // events that come together with the first token
	begun    bool   // there was a token
	finished bool   // the answer has ended, whether an end mark follows or not
	marked   bool   // the end mark was there
	over     bool   // there is nothing more to read
}

// read returns what an event, or an error in place of one, adds to the answer.
func (r *partReader) read(event stream.Event, err error) (p part, wanted bool, _ error) {
	data := bytes.TrimSpace(event.Data)
	switch {
	case err != nil:
		r.over = true
		if p, wanted = r.end(); wanted || r.marked { // what comes behind the answer does not spoil it
			return p, wanted, nil
		}
		return part{}, true, err
	case len(data) == 0:
		return part{}, false, nil
	case string(data) == endOfStream:
		return r.mark()
	}
	content, err := r.parse(event, data)
	if err != nil {
		r.over = true
		return part{}, true, err
	}
	r.begun = r.begun || content.carries()
	r.finished = r.finished || content.finishes()
	r.before = append(r.before, sse(data)...)
	if !r.begun {
		return part{}, false, nil
	}
	p = part{data: r.before, model: content.Model}
	r.before = nil
	return p, true, nil
}

// mark ends the answer with its end mark. One that comes before a token ends no answer.
func (r *partReader) mark() (p part, wanted bool, _ error) {
	switch {
	case r.marked:
		return part{}, false, nil
	case !r.begun:
		r.over = true
		return part{}, true, malformed("no answer before its end mark")
	}
	r.marked = true
	return part{last: true}, true, nil
}

// end returns what the end of the events adds: some servers leave out the end mark.
func (r *partReader) end() (p part, wanted bool) {
	wanted = r.finished && !r.marked
	r.marked = r.marked || wanted
	return part{last: wanted}, wanted
}

// parse reads an event that carries something.
func (r *partReader) parse(event stream.Event, data []byte) (content, error) {
	switch {
	case event.Name == "error":
		said, ok := errorIn(data)
		if !ok {
			_ = json.Unmarshal(data, &said) // the event itself; what fits
		}
		return content{}, &upstreamError{status: said.status(), said: said}
	case event.Partial && !json.Valid(data):
		return content{}, io.ErrUnexpectedEOF
	}
	return parse(data)
}

// sse returns data as an event; data that holds line breaks needs a field each.
func sse(data []byte) []byte {
	return []byte("data: " + strings.ReplaceAll(string(data), "\n", "\ndata: ") + "\n\n")
}

// content is the part of an answer, or of an event of a stream, that the gateway reads.
type content struct {
	Model   string          `json:"model"`
	Error   json.RawMessage `json:"error"`
	Choices []struct {
		Delta        map[string]json.RawMessage `json:"delta"`
		FinishReason *string                    `json:"finish_reason"`
	} `json:"choices"`
}

// parse reads an answer or an event. An error in place of one, under a status
// that promised better, is an error.
func parse(data []byte) (content, error) {
	if len(data) > mostBytes {
		return content{}, malformed(fmt.Sprintf("more than %d bytes", mostBytes))
	}
	var c content
	if err := json.Unmarshal(data, &c); err != nil || bytes.TrimSpace(data)[0] != '{' {
		return content{}, malformed("no JSON object")
	}
	if said, ok := errorIn(data); ok {
		return content{}, &upstreamError{status: said.status(), said: said}
	}
	return c, nil
}

func malformed(what string) error {
	return verdict.As(errors.New("the upstream sent "+what), verdict.Verdict{Class: verdict.ClassMalformed})
}

// carries reports whether the event holds more than the role.
func (c content) carries() bool {
	if len(c.Choices) == 0 {
		return false
	}
	for field, value := range c.Choices[0].Delta {
		if text := string(value); field != "role" && text != "null" && text != `""` && text != "[]" {
			return true
		}
	}
	return c.finishes()
}

func (c content) finishes() bool {
	return len(c.Choices) > 0 && c.Choices[0].FinishReason != nil && *c.Choices[0].FinishReason != ""
}

// errorObject is an error in the format of OpenAI's API.
type errorObject struct {
	Message string `json:"message"`
	Type    string `json:"type"`
	Param   any    `json:"param"`
	Code    any    `json:"code"`
}

// errorIn returns the error that an answer holds: in a field of its own, as OpenAI sends it, or as the answer itself, as vLLM does.
func errorIn(text []byte) (said errorObject, ok bool) {
	var body struct {
		Error  json.RawMessage `json:"error"`
		Object string          `json:"object"`
	}
	switch {
	case json.Unmarshal(text, &body) != nil:
		return said, false
	case len(body.Error) > 0 && string(body.Error) != "null":
		if json.Unmarshal(body.Error, &said) != nil {
			_ = json.Unmarshal(body.Error, &said.Message) // some servers send a plain string
		}
		return said, true
	case body.Object == "error":
		_ = json.Unmarshal(text, &said) // what fits
		return said, true
	}
	return said, false
}

// refusalIn returns the words of a refusal, whatever form they have.
func refusalIn(text []byte) errorObject {
	said, ok := errorIn(text)
	if !ok {
		var other struct {
			errorObject

			Detail json.RawMessage `json:"detail"`
		}
		_ = json.Unmarshal(text, &other) // what fits
		said = other.errorObject
		if said.Message == "" && json.Unmarshal(other.Detail, &said.Message) != nil {
			said.Message = string(other.Detail)
		}
	}
	const longest = 500
	if said.Message == "" && len(text) <= longest && utf8.Valid(text) && !bytes.HasPrefix(bytes.TrimSpace(text), []byte("<")) {
		said.Message = strings.Join(strings.Fields(string(text)), " ")
	}
	said.Message = cmp.Or(said.Message, "the upstream gave no reason")
	return said
}

// status is the HTTP status that the error would have had. Within a stream it
// comes after the status.
func (e errorObject) status() int {
	code, _ := e.Code.(string)
	number, _ := e.Code.(float64)
	status := int(number)
	if status == 0 {
		status, _ = strconv.Atoi(code)
	}
	if status >= http.StatusBadRequest && status < 600 {
		return status
	}
	for _, known := range []struct {
		word   string
		status int
	}{
		{"insufficient_quota", http.StatusPaymentRequired},
		{"overloaded", 529},
		{"rate_limit", http.StatusTooManyRequests},
		{"invalid_api_key", http.StatusUnauthorized},
		{"authentication_error", http.StatusUnauthorized},
		{"invalid_request_error", http.StatusBadRequest},
	} {
		if strings.HasPrefix(code, known.word) || strings.HasPrefix(e.Type, known.word) {
			return known.status
		}
	}
	return http.StatusInternalServerError
}

// upstreamError is a refusal of an upstream.
type upstreamError struct {
	status   int
	said     errorObject
	cause    error // of the response; nil for an error within a stream
	anyModel bool
}

// Error returns the status and the code; the message may echo the request.
func (e *upstreamError) Error() string {
	text := fmt.Sprintf("HTTP %d %s", e.status, http.StatusText(e.status))
	if code, ok := e.said.Code.(string); ok && code != "" {
		text += " (" + code + ")"
	}
	return text
}

// Verdict returns what the error means for the API of a language model.
func (e *upstreamError) Verdict() verdict.Verdict {
	if e.status == http.StatusNotFound && e.anyModel {
		// The upstream has no such model, which says nothing about the other ones
		// of the route: another upstream may have it, and none cools down.
		return verdict.Verdict{Class: verdict.ClassRefused}
	}
	if e.cause != nil {
		return verdict.LLM(e.cause)
	}
	code, _ := e.said.Code.(string)
	return verdict.LLM(&verdict.ResponseError{StatusCode: e.status, Code: code, Type: e.said.Type})
}
