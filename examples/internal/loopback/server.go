// Package loopback runs LLM servers on this machine that speak the wire formats
// of OpenAI and Anthropic and can be made to fail in the ways real ones do.
package loopback

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Dialect is the wire format of a server.
type Dialect int

// The dialects.
const (
	OpenAI Dialect = iota
	Anthropic
)

// Behaviour decides the answers to the next requests.
type Behaviour struct {
	// Status is the HTTP status to answer with; zero answers the question.
	Status int
	// RetryAfter is sent along with an error status, in whole seconds.
	RetryAfter time.Duration
	// Code is the vendor's code of the error, such as "insufficient_quota".
	Code string
	// Hang accepts requests and never answers, until the client gives up.
	Hang bool
	// CutStreams ends streams halfway, as if they were complete but for the end
	// mark.
	CutStreams bool
	// Delay is the time an answer takes.
	Delay time.Duration
}

// Server is one loopback server. Its methods are safe for concurrent use.
type Server struct {
	name    string
	dialect Dialect
	address string
	hits    atomic.Int64

	// mu guards the fields below; it is not held while a request is served.
	mu        sync.Mutex
	behaviour Behaviour
	changed   chan struct{} // closed when the behaviour changes
	server    *http.Server  // nil while connections are refused
	done      chan struct{} // closed when server has stopped serving
}

// Start returns a server that answers on a free port of 127.0.0.1.
func Start(name string, dialect Dialect) (*Server, error) {
	s := &Server{name: name, dialect: dialect, address: "127.0.0.1:0", changed: make(chan struct{})}
	if err := s.Listen(); err != nil {
		return nil, err
	}
	return s, nil
}

// URL returns the base URL, without a path. It stays the same for the server's life.
func (s *Server) URL() string { return "http://" + s.address }

// Hits returns the number of requests that have arrived.
func (s *Server) Hits() int64 { return s.hits.Load() }

// Behave changes how requests are treated. Requests that hang are let go with
// an error.
func (s *Server) Behave(b Behaviour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behaviour = b
	close(s.changed)
	s.changed = make(chan struct{})
}

// Listen accepts connections, on the same port as before; it does nothing when
// the server listens already.
func (s *Server) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != nil {
		return nil
	}
	listener, err := listenAgain(s.address)
	if err != nil {
		return fmt.Errorf("loopback server %s: %w", s.name, err)
	}
	s.address = listener.Addr().String()
	server := &http.Server{Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	s.server, s.done = server, done
	go func() {
		defer close(done)
		_ = server.Serve(listener) // it returns when the server is closed
	}()
	return nil
}

// listenAgain takes the port back. Nothing else on this machine is likely to
// have taken it in between, but a connection of ours may still be closing.
func listenAgain(address string) (net.Listener, error) {
	const tries = 50
	var err error
	for range tries {
		var listener net.Listener
		if listener, err = net.Listen("tcp", address); err == nil { //nolint:noctx // it does not block
			return listener, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil, err
}

// Refuse cuts all connections and refuses new ones until Listen.
func (s *Server) Refuse() {
	s.mu.Lock()
	server, done := s.server, s.done
	s.server, s.done = nil, nil
	s.mu.Unlock()
	if server != nil {
		_ = server.Close()
		<-done
	}
}

// Close ends the server for good: requests that hang are let go, and those in
// progress are cut.
func (s *Server) Close() {
	s.Behave(Behaviour{})
	s.Refuse()
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.hits.Add(1)
	prompt, model, streamed, err := s.question(r)
	if err != nil {
		s.fail(w, Behaviour{Status: http.StatusBadRequest, Code: "invalid_request_error"})
		return
	}
	s.mu.Lock()
	behaviour, changed := s.behaviour, s.changed
	s.mu.Unlock()
	switch {
	case behaviour.Hang:
		select {
		case <-r.Context().Done():
		case <-changed:
			s.fail(w, Behaviour{Status: http.StatusGatewayTimeout})
		}
		return
	case behaviour.Status != 0:
		s.fail(w, behaviour)
		return
	}
	if behaviour.Delay > 0 {
		select {
		case <-time.After(behaviour.Delay):
		case <-r.Context().Done():
			return
		}
	}
	reply := fmt.Sprintf("%s: %q has %d words.", s.name, prompt, len(strings.Fields(prompt)))
	if streamed {
		s.stream(w, model, reply, behaviour.CutStreams)
		return
	}
	s.answer(w, model, reply)
}

var errUnknownPath = errors.New("no such path")

// question reads a request in the server's dialect.
func (s *Server) question(r *http.Request) (prompt, model string, streamed bool, err error) {
	path := "/v1/chat/completions"
	if s.dialect == Anthropic {
		path = "/v1/messages"
	}
	if r.Method != http.MethodPost || r.URL.Path != path {
		return "", "", false, errUnknownPath
	}
	var request struct {
		Model    string `json:"model"`
		Stream   bool   `json:"stream"`
		Messages []struct {
			Role    string          `json:"role"`
			Content json.RawMessage `json:"content"`
		} `json:"messages"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 1<<20)).Decode(&request); err != nil {
		return "", "", false, err
	}
	if len(request.Messages) == 0 {
		return "", "", false, errors.New("no messages")
	}
	return text(request.Messages[len(request.Messages)-1].Content), request.Model, request.Stream, nil
}

// text reads content that is a string or a list of blocks with text.
func text(content json.RawMessage) string {
	var plain string
	if json.Unmarshal(content, &plain) == nil {
		return plain
	}
	var blocks []struct {
		Text string `json:"text"`
	}
	_ = json.Unmarshal(content, &blocks)
	var all strings.Builder
	for _, block := range blocks {
		all.WriteString(block.Text)
	}
	return all.String()
}

func (s *Server) answer(w http.ResponseWriter, model, reply string) {
	if s.dialect == Anthropic {
		write(w, http.StatusOK, map[string]any{
			"id": "msg_loopback", "type": "message", "role": "assistant", "model": model,
			"content":     []any{map[string]any{"type": "text", "text": reply}},
			"stop_reason": "end_turn", "stop_sequence": nil,
			"usage": map[string]any{"input_tokens": 8, "output_tokens": len(strings.Fields(reply))},
		})
		return
	}
	write(w, http.StatusOK, map[string]any{
		"id": "chatcmpl-loopback", "object": "chat.completion", "created": time.Now().Unix(), "model": model,
		"choices": []any{map[string]any{
			"index": 0, "finish_reason": "stop", "logprobs": nil,
			"message": map[string]any{"role": "assistant", "content": reply, "refusal": nil},
		}},
		"usage": map[string]any{"prompt_tokens": 8, "completion_tokens": len(strings.Fields(reply)), "total_tokens": 8 + len(strings.Fields(reply))},
	})
}

// stream answers word by word, as server-sent events.
func (s *Server) stream(w http.ResponseWriter, model, reply string, halfway bool) {
	w.Header().Set("Content-Type", "text/event-stream")
	send := func(kind string, data any) {
		if kind != "" {
			_, _ = fmt.Fprintf(w, "event: %s\n", kind)
		}
		encoded, err := json.Marshal(data)
		if text, ok := data.(string); ok {
			encoded, err = []byte(text), nil
		}
		if err == nil {
			_, _ = fmt.Fprintf(w, "data: %s\n\n", encoded) // the client may be gone
		}
		_ = http.NewResponseController(w).Flush()
	}
	words := strings.SplitAfter(reply, " ")
	if halfway {
		words = words[:len(words)/2]
	}
	if s.dialect == Anthropic {
		s.streamAnthropic(send, model, words, halfway)
		return
	}
	chunk := func(delta map[string]any, finish any) map[string]any {
		return map[string]any{
			"id": "chatcmpl-loopback", "object": "chat.completion.chunk", "created": time.Now().Unix(), "model": model,
			"choices": []any{map[string]any{"index": 0, "delta": delta, "finish_reason": finish}},
		}
	}
	for _, word := range words {
		send("", chunk(map[string]any{"role": "assistant", "content": word}, nil))
	}
	if !halfway {
		send("", chunk(map[string]any{}, "stop"))
		send("", "[DONE]")
	}
}

func (s *Server) streamAnthropic(send func(kind string, data any), model string, words []string, halfway bool) {
	usage := map[string]any{"input_tokens": 8, "output_tokens": len(words)}
	send("message_start", map[string]any{"type": "message_start", "message": map[string]any{
		"id": "msg_loopback", "type": "message", "role": "assistant", "model": model, "content": []any{},
		"stop_reason": nil, "stop_sequence": nil, "usage": usage,
	}})
	send("content_block_start", map[string]any{
		"type": "content_block_start", "index": 0, "content_block": map[string]any{"type": "text", "text": ""},
	})
	for _, word := range words {
		send("content_block_delta", map[string]any{
			"type": "content_block_delta", "index": 0, "delta": map[string]any{"type": "text_delta", "text": word},
		})
	}
	if halfway {
		return
	}
	send("content_block_stop", map[string]any{"type": "content_block_stop", "index": 0})
	send("message_delta", map[string]any{
		"type": "message_delta", "delta": map[string]any{"stop_reason": "end_turn", "stop_sequence": nil}, "usage": usage,
	})
	send("message_stop", map[string]any{"type": "message_stop"})
}

// fail answers in the shape of the vendor's errors.
func (s *Server) fail(w http.ResponseWriter, b Behaviour) {
	if b.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(b.RetryAfter.Seconds())))
	}
	code := b.Code
	if s.dialect == Anthropic {
		if code == "" {
			code = map[int]string{
				http.StatusTooManyRequests: "rate_limit_error", http.StatusUnauthorized: "authentication_error",
				529: "overloaded_error", http.StatusBadRequest: "invalid_request_error",
			}[b.Status]
		}
		if code == "" {
			code = "api_error"
		}
		write(w, b.Status, map[string]any{"type": "error", "error": map[string]any{"type": code, "message": http.StatusText(b.Status)}})
		return
	}
	write(w, b.Status, map[string]any{"error": map[string]any{
		"message": http.StatusText(b.Status), "type": "loopback_error", "code": code, "param": nil,
	}})
}

func write(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may be gone
}
