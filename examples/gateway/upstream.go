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

	"github.com/openai/openai-go/v3/packages/ssestream"

	"github.com/capreg/registry"
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
	const mostOfAnError = 64 << 10
	text, _ := io.ReadAll(io.LimitReader(response.Body, mostOfAnError)) // the status is enough
	refusal := &upstreamError{
		status: response.StatusCode, after: verdict.RetryAfter(response.Header.Get("Retry-After")), anyModel: t.anyModel,
	}
	refusal.said, _ = errorIn(text)
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
	last  bool
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
		events := ssestream.NewDecoder(response)
		defer func() { _ = events.Close() }()
		yieldParts(events, yield)
	}, nil
}

// yieldParts reads the events until they end or fail, or no more parts are wanted.
func yieldParts(events ssestream.Decoder, yield func(part, error) bool) {
	var before []byte
	begun, finished := false, false
	for events.Next() {
		data := bytes.TrimSpace(events.Event().Data)
		if len(data) == 0 {
			continue // a comment, or an event that carries nothing
		}
		if string(data) == endOfStream {
			yield(part{data: append(before, "data: [DONE]\n\n"...), last: true}, nil)
			return
		}
		content, err := parse(data)
		if err != nil {
			yield(part{}, err)
			return
		}
		begun = begun || content.carries()
		finished = finished || content.finishes()
		before = append(before, sse(data)...)
		if !begun {
			continue
		}
		if !yield(part{data: before, model: content.Model}, nil) {
			return
		}
		before = nil
	}
	switch err := events.Err(); {
	case err != nil:
		yield(part{}, err)
	case finished: // some servers leave out the end mark
		yield(part{data: append(before, "data: [DONE]\n\n"...), last: true}, nil)
	}
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

// errorIn returns the error that an answer holds.
func errorIn(text []byte) (said errorObject, ok bool) {
	var body struct {
		Error json.RawMessage `json:"error"`
	}
	if json.Unmarshal(text, &body) != nil || len(body.Error) == 0 || string(body.Error) == "null" {
		return said, false
	}
	if json.Unmarshal(body.Error, &said) != nil {
		_ = json.Unmarshal(body.Error, &said.Message) // some servers send a plain string
	}
	return said, true
}

// status is the HTTP status that the error would have had. Within a stream it
// comes after the status.
func (e errorObject) status() int {
	switch code := e.Code.(type) {
	case float64:
		return int(code)
	case string:
		if status, err := strconv.Atoi(code); err == nil {
			return status
		}
	}
	for word, status := range map[string]int{
		"overloaded_error": 529, "rate_limit": http.StatusTooManyRequests, "insufficient_quota": http.StatusPaymentRequired,
		"authentication_error": http.StatusUnauthorized, "invalid_request_error": http.StatusBadRequest,
	} {
		if strings.HasPrefix(e.Type, word) {
			return status
		}
	}
	return http.StatusInternalServerError
}

// upstreamError is a refusal of an upstream.
type upstreamError struct {
	status   int
	after    time.Duration
	said     errorObject
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
	code, _ := e.said.Code.(string)
	return verdict.LLM(&verdict.ResponseError{StatusCode: e.status, Code: code, Type: e.said.Type, After: e.after})
}
