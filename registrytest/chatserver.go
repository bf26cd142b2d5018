package registrytest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/capreg/registry/verdict"
)

// ChatServer speaks the chat completions API of OpenAI, plain and as server-sent events, for
// tests of providers that are built on an SDK or on HTTP. Each request plays the next step of
// its [Script]:
//
//   - [OK] answers, word by word if the request asks for a stream;
//   - [HTTPStatus], [RateLimit] and [Fail] answer with the status code of the class, with
//     Retry-After and an error in JSON; an error of the transport closes the connection without
//     an answer, a malformed answer is a page of HTML with 200, and an unclassified error is a
//     500;
//   - [Hang] does not answer until the client leaves;
//   - [Cut] ends a stream after so many words without its end mark, as if it were complete.
//     [CutWith] ends it with an error inside the stream, or by closing the connection when that
//     is an error of the transport or of no class. An answer that is no stream is cut in its
//     middle;
//   - [Stall] is a stream that stops after so many words, and hangs;
//   - [Panic] and [Exit] close the connection without an answer.
//
// A GET of the models lists one model, and plays no step. Its methods are safe for concurrent
// use.
type ChatServer struct {
	tb     testing.TB
	url    string
	server *http.Server
	served chan struct{} // closed when no more connections are accepted
	client *http.Client
	close  sync.Once

	// mu guards the fields below; it is not held while a step is played.
	mu       sync.Mutex
	script   *Script
	answer   func(ChatRequest) string
	requests []ChatRequest
	check    *retryCheck // nil but in AssertNoRetries
	closed   bool

	connected sync.WaitGroup // connections, with the requests on them
}

// ChatRequest is a request as parsed by the server.
type ChatRequest struct {
	// Model is the requested model.
	Model string
	// Messages are the conversation, Prompt the text of the last one.
	Messages []ChatMessage
	Prompt   string
	// Stream reports that the answer was requested as a stream.
	Stream bool
	// Header and Body are those of the request.
	Header http.Header
	Body   []byte

	usage bool // it asks for the usage of a stream
}

// ChatMessage is one message of a conversation, without the content that is no text.
type ChatMessage struct{ Role, Text string }

// NewChatServer starts a server on a free port of this machine, which is closed with the test.
// Without a script it answers every request. In a bubble of [testing/synctest] use
// [NewPipeServer].
func NewChatServer(tb testing.TB, script *Script) *ChatServer {
	tb.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("registrytest: chat server: %v", err)
	}
	return newChatServer(tb, script, listener, "http://"+listener.Addr().String(), nil)
}

// NewPipeServer is [NewChatServer] without a socket: connections are pipes in
// memory, which only [ChatServer.Client] can make. It works in a bubble of
// [testing/synctest], where it must be made, and on real time.
func NewPipeServer(tb testing.TB, script *Script) *ChatServer {
	tb.Helper()
	pipes := &pipeListener{accepted: make(chan net.Conn), closed: make(chan struct{})}
	return newChatServer(tb, script, pipes, "http://chat.test", pipes.dial)
}

type dialer = func(ctx context.Context, network, address string) (net.Conn, error)

func newChatServer(tb testing.TB, script *Script, listener net.Listener, url string, dial dialer) *ChatServer {
	tb.Helper()
	if script == nil {
		script = NewScript()
	}
	s := &ChatServer{
		tb: tb, url: url + "/v1/", served: make(chan struct{}), script: script,
		client: &http.Client{Transport: &http.Transport{DialContext: dial}},
		answer: func(r ChatRequest) string { return "You said: " + r.Prompt },
	}
	s.server = &http.Server{
		Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0),
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				s.connected.Add(1) // before Serve returns
			case http.StateClosed:
				s.connected.Done()
			default:
			}
		},
	}
	go func() {
		defer close(s.served)
		_ = s.server.Serve(listener) // it returns when the server is closed
	}()
	tb.Cleanup(s.Close)
	return s
}

// URL returns the base URL for SDKs, with "/v1/" at its end.
func (s *ChatServer) URL() string { return s.url }

// Client returns a client that reaches the server. It is the only one that reaches a server
// made by [NewPipeServer].
func (s *ChatServer) Client() *http.Client { return s.client }

// Script returns the script.
func (s *ChatServer) Script() *Script { return s.script }

// Answer replaces the default answers, which quote the prompt. The function is called by
// several requests at the same time.
func (s *ChatServer) Answer(answer func(ChatRequest) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// Requests returns the requests that reached the script, in order.
func (s *ChatServer) Requests() []ChatRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Hits returns the number of requests that reached the script.
func (s *ChatServer) Hits() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

// Close ends the server: requests in progress are cut, later ones are refused. It may be called
// any number of times; the end of the test calls it.
func (s *ChatServer) Close() {
	s.tb.Helper()
	s.close.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		_ = s.server.Close()
		s.client.CloseIdleConnections()
		<-s.served
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.connected.Wait() // net/http keeps connections open after requests that were too long or no HTTP
	}()
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case <-ended:
	case <-late.C:
		s.tb.Errorf("registrytest: chat server: a request still plays a step that does not heed its context")
	}
}

// turn is the handling of one request.
type turn struct {
	number int
	step   Step
	answer func(ChatRequest) string
}

// enter records the request and returns its handling; false when the server is being closed.
func (s *ChatServer) enter(w http.ResponseWriter, request ChatRequest) (t turn, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return t, false
	}
	s.requests = append(s.requests, request)
	t.number, t.answer = len(s.requests), s.answer
	if s.check == nil {
		t.step = s.script.next()
		return t, true
	}
	if s.check.hits++; s.check.hits > 1 {
		s.check.again()
	}
	w.Header().Set("Connection", "close") // net/http retries on a connection that was used before
	s.script.skip()
	t.step = s.check.step
	return t, true
}

func (s *ChatServer) serve(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodGet && r.URL.Path == "/v1/models":
		write(w, http.StatusOK, map[string]any{"object": "list", "data": []any{
			map[string]any{"id": "scripted", "object": "model", "created": time.Now().Unix(), "owned_by": "registrytest"},
		}})
		return
	case r.Method != http.MethodPost || r.URL.Path != "/v1/chat/completions":
		refuse(w, &statusError{http.StatusNotFound, 0, "unknown_url"})
		return
	}
	request, err := readChat(r)
	if err != nil {
		refuse(w, &statusError{http.StatusBadRequest, 0, "invalid_request_error"})
		return
	}
	t, ok := s.enter(w, request)
	if !ok {
		panic(http.ErrAbortHandler)
	}
	defer s.script.done()
	step := t.step
	if step.wait(r.Context()) != nil {
		return // the client has left
	}
	switch step.kind {
	case kindError:
		refuse(w, step.err)
		return
	case kindHang:
		<-r.Context().Done()
		return
	case kindPanic, kindExit:
		panic(http.ErrAbortHandler)
	case kindOK, kindCut, kindStall:
	}
	reply := &chatReply{w: w, id: "chatcmpl-" + strconv.Itoa(t.number), request: request, text: t.answer(request)}
	switch {
	case request.Stream:
		reply.stream(r.Context(), step)
	case step.kind == kindCut:
		reply.cut()
	case step.kind == kindStall:
		<-r.Context().Done()
	default:
		write(w, http.StatusOK, reply.whole())
	}
}

func readChat(r *http.Request) (request ChatRequest, err error) {
	const longest = 16 << 20
	if request.Body, err = io.ReadAll(http.MaxBytesReader(nil, r.Body, longest)); err != nil {
		return request, err
	}
	var sent struct {
		Model    string `json:"model"`
		Stream   bool   `json:"stream"`
		Messages []struct {
			Role    string          `json:"role"`
			Content json.RawMessage `json:"content"`
		} `json:"messages"`
		StreamOptions struct {
			IncludeUsage bool `json:"include_usage"`
		} `json:"stream_options"`
	}
	if err := json.Unmarshal(request.Body, &sent); err != nil {
		return request, err
	}
	if len(sent.Messages) == 0 {
		return request, errors.New("no messages")
	}
	request.Model, request.Stream, request.Header = sent.Model, sent.Stream, r.Header.Clone()
	request.usage = sent.StreamOptions.IncludeUsage
	for _, message := range sent.Messages {
		request.Messages = append(request.Messages, ChatMessage{message.Role, textOf(message.Content)})
	}
	request.Prompt = request.Messages[len(request.Messages)-1].Text
	return request, nil
}

// textOf reads content that is a string, or a list of parts of which some are texts.
func textOf(content json.RawMessage) string {
	var plain string
	if json.Unmarshal(content, &plain) == nil {
		return plain
	}
	var parts []struct {
		Text string `json:"text"`
	}
	_ = json.Unmarshal(content, &parts) // other content has no text
	var all strings.Builder
	for _, part := range parts {
		all.WriteString(part.Text)
	}
	return all.String()
}

// chatReply is an answer in the making.
type chatReply struct {
	w       http.ResponseWriter
	id      string
	request ChatRequest
	text    string
}

func (r *chatReply) usage() map[string]any {
	asked, answered := len(strings.Fields(r.request.Prompt)), len(strings.Fields(r.text))
	return map[string]any{"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}
}

func (r *chatReply) whole() map[string]any {
	return map[string]any{
		"id": r.id, "object": "chat.completion", "created": time.Now().Unix(), "model": r.request.Model,
		"choices": []any{map[string]any{
			"index": 0, "finish_reason": "stop", "logprobs": nil,
			"message": map[string]any{"role": "assistant", "content": r.text, "refusal": nil},
		}},
		"usage": r.usage(),
	}
}

// cut sends half of an answer.
func (r *chatReply) cut() {
	encoded, _ := json.Marshal(r.whole()) // maps of texts and numbers
	r.w.Header().Set("Content-Type", "application/json")
	r.w.Header().Set("Content-Length", strconv.Itoa(len(encoded)))
	_, _ = r.w.Write(encoded[:len(encoded)/2])
	flush(r.w)
	panic(http.ErrAbortHandler)
}

// stream sends an answer word by word, as far as the step allows.
func (r *chatReply) stream(ctx context.Context, step Step) {
	r.w.Header().Set("Content-Type", "text/event-stream")
	flush(r.w) // the headers come before the first word, however long that takes
	words := strings.SplitAfter(r.text, " ")
	if step.kind != kindOK {
		words = words[:min(step.items, len(words))]
	}
	for i, word := range words {
		delta := map[string]any{"content": word}
		if i == 0 {
			delta["role"] = "assistant"
		}
		r.send(r.chunk(delta, nil))
	}
	switch step.kind {
	case kindStall:
		<-ctx.Done()
	case kindCut:
		r.breakOff(step.err)
	default:
		r.send(r.chunk(map[string]any{}, "stop"))
		if r.request.usage {
			last := r.chunk(nil, nil)
			last["choices"], last["usage"] = []any{}, r.usage()
			r.send(last)
		}
		_, _ = io.WriteString(r.w, "data: [DONE]\n\n")
	}
}

// breakOff ends a stream before its end.
func (r *chatReply) breakOff(err error) {
	if err == nil {
		return
	}
	if class := verdict.Of(err).Class; class == verdict.ClassUnknown || class == verdict.ClassTransport {
		panic(http.ErrAbortHandler)
	}
	r.send(errorBody(statusOf(err)))
}

func (r *chatReply) chunk(delta, finish any) map[string]any {
	return map[string]any{
		"id": r.id, "object": "chat.completion.chunk", "created": time.Now().Unix(), "model": r.request.Model,
		"choices": []any{map[string]any{"index": 0, "delta": delta, "finish_reason": finish}},
	}
}

func (r *chatReply) send(data map[string]any) {
	encoded, _ := json.Marshal(data)                 // maps of texts and numbers
	_, _ = fmt.Fprintf(r.w, "data: %s\n\n", encoded) // the client may be gone
	flush(r.w)
}

func flush(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }

func write(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may be gone
}

// refuse answers with an error.
func refuse(w http.ResponseWriter, err error) {
	switch verdict.Of(err).Class {
	case verdict.ClassTransport, verdict.ClassNotSent:
		panic(http.ErrAbortHandler)
	case verdict.ClassMalformed:
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html><body>It works!</body></html>")
		return
	default:
	}
	status := statusOf(err)
	if status.after > 0 {
		seconds := (status.after + time.Second - 1) / time.Second
		w.Header().Set("Retry-After", strconv.Itoa(int(seconds)))
	}
	write(w, status.code, errorBody(status))
}

func errorBody(status *statusError) map[string]any {
	return map[string]any{"error": map[string]any{
		"message": status.Error(), "type": "scripted_error", "code": status.what, "param": nil,
	}}
}

const statusOverloaded = 529 // of no standard; vendors use it

// statusOf returns the status code, the delay and the vendor's word for an error.
func statusOf(err error) *statusError {
	var stated *statusError
	if errors.As(err, &stated) {
		return stated
	}
	v := verdict.Of(err)
	status, ok := statuses[v.Class]
	if !ok {
		status = statusError{code: http.StatusInternalServerError}
	}
	status.after = v.After
	if v.Class == verdict.ClassOverloaded && v.After == 0 {
		status.code = statusOverloaded
	}
	return &status
}

//nolint:gochecknoglobals // immutable
var statuses = map[verdict.Class]statusError{
	verdict.ClassOverloaded:      {code: http.StatusServiceUnavailable},
	verdict.ClassRateLimited:     {code: http.StatusTooManyRequests, what: "rate_limit_exceeded"},
	verdict.ClassFatal:           {code: http.StatusUnauthorized, what: "invalid_api_key"},
	verdict.ClassUnauthenticated: {code: http.StatusUnauthorized},
	verdict.ClassNotAllowed:      {code: http.StatusForbidden},
	verdict.ClassNotFound:        {code: http.StatusNotFound, what: "model_not_found"},
	verdict.ClassResource:        {code: http.StatusConflict},
	verdict.ClassElsewhere:       {code: http.StatusMisdirectedRequest},
	verdict.ClassUnsupported:     {code: http.StatusBadRequest, what: "unsupported_parameter"},
	verdict.ClassTooLong:         {code: http.StatusBadRequest, what: "context_length_exceeded"},
	verdict.ClassRefused:         {code: http.StatusBadRequest, what: "content_policy_violation"},
	verdict.ClassBadRequest:      {code: http.StatusBadRequest, what: "invalid_request_error"},
	verdict.ClassAttemptTimeout:  {code: http.StatusGatewayTimeout},
}

// pipeListener accepts the other ends of pipes.
type pipeListener struct {
	accepted chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accepted:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.accepted <- server:
		return client, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "dial", Net: "pipe", Addr: pipeAddr{}, Err: errRefused}
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Net: "pipe", Addr: pipeAddr{}, Err: ctx.Err()}
	}
}

var errRefused = errors.New("connection refused")

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "chat.test:80" }
