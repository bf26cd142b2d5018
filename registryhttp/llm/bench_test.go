package llm_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/capreg/registry/registryhttp/llm"
)

// BenchmarkProxy measures what a proxy and its transport do for an answer that is there at once.
func BenchmarkProxy(b *testing.B) {
	event := `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}` + "\n\n"
	events := strings.Repeat(event, 100) + `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\ndata: [DONE]\n\n"
	whole := `{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"` +
		strings.Repeat("an answer ", 35) + `"},"finish_reason":"stop"}],"usage":{"prompt_tokens":20,"completion_tokens":60,"total_tokens":80}}`
	for name, answer := range map[string]struct{ question, kind, body string }{
		"plain": {plain, "application/json", whole}, "stream": {streamed, "text/event-stream", events},
	} {
		b.Run(name, func(b *testing.B) {
			transport := &llm.Transport{
				FirstTimeout: time.Minute, StallTimeout: time.Minute, AnswerTimeout: time.Minute,
				Base: roundTrip(func(r *http.Request) (*http.Response, error) {
					body := io.Reader(strings.NewReader(answer.body))
					if answer.kind != "application/json" {
						body = &eventwise{rest: answer.body}
					}
					return &http.Response{
						StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {answer.kind}},
						Body: io.NopCloser(body), ContentLength: -1, Request: r,
					}, nil
				}),
			}
			proxy := &llm.Proxy{Route: func(*http.Request, llm.Request) (llm.Way, error) { return llm.Way{Transport: transport}, nil }}
			b.ReportAllocs()
			for b.Loop() {
				r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://x/v1/chat/completions", strings.NewReader(answer.question))
				if err != nil {
					b.Fatal(err)
				}
				w := httptest.NewRecorder()
				proxy.ServeHTTP(w, r)
				if w.Code != http.StatusOK || w.Body.Len() < len(whole) {
					b.Fatal(w.Code, w.Body)
				}
			}
		})
	}
}

// eventwise gives an event at a time, as a network does.
type eventwise struct{ rest string }

func (e *eventwise) Read(p []byte) (int, error) {
	at := strings.Index(e.rest, "\n\n")
	if at < 0 {
		return 0, io.EOF
	}
	n := copy(p, e.rest[:at+2])
	e.rest = e.rest[n:]
	return n, nil
}
