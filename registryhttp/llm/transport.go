package llm

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/capreg/registry/internal/request"
	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/stream"
	"github.com/capreg/registry/verdict"
)

const (
	defaultMaxAnswer = 32 << 20
	defaultMaxEvent  = 8 << 20
	// tail is the time in which a complete stream may still send something, such as its usage.
	tail = time.Second
	// longUpload is the length from which the time of an upload is not the server's.
	longUpload = 1 << 20
	// batch is the length from which events that are there are handed over.
	batch = 16 << 10
)

// Transport is the [http.RoundTripper] of one upstream, such as for [registryhttp.UpstreamOptions.Transport]: it returns
// an answer when it has begun, and an error for what is none. Its fields must not change after the first use. It is safe
// for concurrent use, and starts no goroutine.
type Transport struct {
	// Name is the name of the server in the [Report] of a [Proxy]. Default: none.
	Name string
	// Base sends the requests. Default: [http.DefaultTransport].
	Base http.RoundTripper
	// Models has the names by which the server knows models, by those that requests use. Default: the same names.
	Models map[string]string
	// FirstTimeout bounds the time until the first token of a stream, StallTimeout that until each further one, without
	// the reader's own time between two, and AnswerTimeout that until a plain answer is there. What a server sends to keep
	// the connection alive does not count. Default: no bound but that of the request.
	FirstTimeout, StallTimeout, AnswerTimeout time.Duration
	// Whole returns a stream when it is there as a whole, so that another provider can replace one that is cut.
	Whole bool
	// MaxAnswer bounds the bytes of an answer that is held: plain ones, and those that are Whole. Default: 32 MiB.
	MaxAnswer int64
	// MaxEvent bounds the bytes of an event of a stream. Default: 8 MiB.
	MaxEvent int
	// Memory bounds what all answers hold together. Default: no bound.
	Memory *Memory
	// Tokens bounds what the server is asked for. A request beyond it is not sent, and its error, which matches [ErrTokens],
	// is that of a rate limit, so that another provider is asked. Default: no bound.
	Tokens *Tokens
}

// RoundTrip sends the request. A refusal, and an answer that is neither JSON nor a stream of events, is returned as it is.
// The error has a verdict where it is about the answer, and matches [registryhttp.ErrFirstByte] or [registryhttp.ErrStalled]
// where a bound was reached. Errors of the body are the same.
func (t *Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	a := &answer{transport: t, choices: 1, held: held{memory: t.Memory, most: cmp.Or(t.MaxAnswer, defaultMaxAnswer)}}
	out, err := a.prepare(request)
	if err != nil {
		closeBody(request)
		return nil, err
	}
	if after, ok := a.tokens.Take(a.taken); !ok {
		a.taken = 0
		a.release()
		closeBody(out)
		return nil, outOfTokens(after)
	}
	returned := false
	defer func() {
		if !returned { // an error, or a panic of what stands below
			_ = a.Close()
		}
	}()
	if a.report != nil {
		a.report.Attempts++
		a.report.Name = t.Name
	}
	base := t.Base
	if base == nil {
		base = http.DefaultTransport
	}
	response, err := base.RoundTrip(out)
	a.clock.answered()
	if err != nil {
		return nil, a.caused(err)
	}
	if err := a.judge(response); err != nil {
		return nil, err
	}
	returned = true
	return response, nil
}

func closeBody(request *http.Request) {
	if request.Body != nil {
		_ = request.Body.Close()
	}
}

// prepare returns the request to send, with the clock running.
func (a *answer) prepare(sent *http.Request) (*http.Request, error) {
	asked, report, known, err := requestOf(sent)
	if err != nil {
		return nil, err
	}
	a.report = report
	a.path = methodOf(sent.URL.Path)
	limit, name := a.transport.AnswerTimeout, ""
	if known {
		a.asked, a.streamed, a.choices = true, asked.Stream, max(asked.choices, 1)
		a.tokens, a.taken = a.transport.Tokens, estimate(len(asked.body))
		if a.streamed {
			limit = a.transport.FirstTimeout
		}
		if name = cmp.Or(a.transport.Models[asked.Model], asked.Model); a.report != nil {
			a.report.Model = name
		}
	}
	a.limit(sent.Context(), limit, asked)
	if a.cancel == nil && name == asked.Model {
		return sent, nil
	}
	out := sent.WithContext(a.ctx) //nolint:contextcheck // it is the request's, or made of that
	if name != asked.Model {
		rename(out, asked, name)
	}
	if a.cancel != nil && out.ContentLength >= longUpload && out.Body != nil {
		out.Body = &upload{out.Body, a, limit}
	}
	return out, nil
}

// limit limits the wait for the answer.
func (a *answer) limit(ctx context.Context, limit time.Duration, asked Request) {
	a.ctx = ctx
	if !a.asked || a.streamed || limit > 0 && !a.limitsAttempt(ctx, limit, asked) {
		a.ctx, a.cancel = context.WithCancelCause(ctx)
		a.clock.epoch = time.Now()
		a.clock.start(a.clock.now(), limit, registryhttp.ErrFirstByte, a.cancel)
	}
}

// limitsAttempt leaves the limit to the [registryhttp.Transport] above, and reports whether it could. A plain answer is read
// within the wait of that: a clock and a context of its own would cost a tenth of what such a request does. It needs them where
// others on the way may go on without the answer, and where the time of the upload is not the server's.
func (a *answer) limitsAttempt(ctx context.Context, limit time.Duration, asked Request) bool {
	sender, _ := ctx.Value(request.SenderKey{}).(http.RoundTripper)
	return sender == http.RoundTripper(a.transport) && len(asked.body) < longUpload && registryhttp.LimitFirst(ctx, limit)
}

// rename gives the request the name by which its server knows the model.
func rename(out *http.Request, asked Request, name string) {
	body, length := asked.Body(name)
	closeBody(out)
	out.Body, out.ContentLength = io.NopCloser(body), length
	out.GetBody = func() (io.ReadCloser, error) {
		body, _ := asked.Body(name)
		return io.NopCloser(body), nil
	}
}

// requestOf returns what the request asks for, and where its way is reported; nil: nowhere. It is not known where the request
// is of another kind, or is none that the server will accept.
func requestOf(request *http.Request) (asked Request, report *Report, known bool, err error) {
	if on, ok := request.Context().Value(wayKey{}).(*onItsWay); ok {
		return *on.asked, on.report, true, nil
	}
	if request.Body == nil || request.GetBody == nil || request.Method != http.MethodPost {
		return Request{}, nil, false, nil
	}
	copied, err := request.GetBody()
	if err != nil {
		return Request{}, nil, false, err
	}
	defer func() { _ = copied.Close() }()
	text, err := io.ReadAll(copied)
	if err != nil {
		return Request{}, nil, false, err
	}
	asked, refused := ParseRequest(text)
	return asked, nil, refused == nil, nil // what is wrong with it, the server will say
}

// upload is a long body of a request, while which the clock stands.
type upload struct {
	io.ReadCloser

	answer *answer
	limit  time.Duration
}

func (u *upload) Read(p []byte) (int, error) {
	u.answer.clock.again(u.limit)
	return u.ReadCloser.Read(p)
}

// judge makes the response what a client can rely on.
func (a *answer) judge(response *http.Response) error {
	a.body, a.reading = response.Body, heldReader{response.Body, &a.held}
	response.Body = a
	kind := response.Header.Get("Content-Type")
	if kind != "application/json" && kind != "text/event-stream" {
		kind, _, _ = mime.ParseMediaType(kind)
	}
	encoded := response.Header.Get("Content-Encoding")
	events := kind == "text/event-stream" || a.streamed && kind != "application/json"
	switch {
	case a.path != "" && response.StatusCode != http.StatusOK && response.StatusCode < http.StatusBadRequest:
		return malformed(fmt.Sprintf("status %d", response.StatusCode))
	case response.StatusCode != http.StatusOK, encoded != "" && encoded != "identity":
	case events && a.asked && !a.streamed:
		return malformed("a stream for a plain request")
	case events:
		a.events = stream.NewEventReader(&a.reading, stream.ReuseData(), stream.MaxEventBytes(cmp.Or(a.transport.MaxEvent, defaultMaxEvent)))
		response.Header.Set("Content-Type", "text/event-stream")
		response.Header.Del("Content-Length")
		response.ContentLength = -1
		return a.open()
	case kind == "application/json", a.path != "":
		return a.readPlain(response)
	}
	a.passing = true
	a.clock.stop()
	return nil
}

// methodOf returns the method of the API that a path is for; empty: another one.
func methodOf(path string) string {
	for _, known := range []string{"/chat/completions", "/completions", "/responses", "/embeddings", "/messages"} {
		if strings.HasSuffix(path, known) {
			return known
		}
	}
	return ""
}

// readPlain reads an answer that is JSON.
func (a *answer) readPlain(response *http.Response) error {
	text, err := readAll(&a.reading, response.ContentLength, longUpload)
	if err != nil {
		return a.caused(err)
	}
	a.clock.stop()
	if err := a.readObject(text); err != nil {
		return err
	}
	if a.streamed {
		return malformed("a plain answer for a stream")
	}
	a.used.CompareAndSwap(0, int64(a.taken+estimate(len(text))))
	a.out, a.err = text, io.EOF
	response.ContentLength = int64(len(text))
	return nil
}

// readAll reads all, into space of the length that is announced, unless that is unknown or beyond the limit: then it grows as
// bytes arrive.
func readAll(from io.Reader, length, limit int64) (text []byte, err error) {
	size := int64(bytes.MinRead)
	if length > 0 && length <= limit {
		size = length + 1 // in which its end is found
	}
	text = make([]byte, 0, size)
	for err == nil {
		if len(text) == cap(text) {
			text = slices.Grow(text, len(text))
		}
		var n int
		n, err = from.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return text, err
}

// open reads the events up to the first token, or all of them.
func (a *answer) open() error {
	for a.err == nil && (!a.begun || a.transport.Whole) {
		a.next()
	}
	a.clock.pause() // until more is read
	a.left = a.clock.now()
	switch {
	case a.err != nil && !errors.Is(a.err, io.EOF):
		return a.err
	case !a.begun:
		return malformed("no answer before its end")
	}
	return nil
}

// keptBytes are not given back to the memory between two events: most are shorter, and then cost no step of an account that
// all answers share.
const keptBytes = 4 << 10

// held counts the bytes that an answer holds. It is for one reader, but for end.
type held struct {
	memory *Memory
	most   int64
	bytes  int64 // in use
	kept   int64 // of taken, which is at least that until the end

	mu    sync.Mutex // guards the fields below, as an answer may be closed while it is read
	taken int64      // of the memory
	over  bool       // nothing is held any more
}

func (h *held) take(n int) error {
	if h.bytes+int64(n) > h.most {
		return malformed(fmt.Sprintf("more than %d bytes", h.most))
	}
	if h.bytes+int64(n) > h.kept {
		if err := h.keep(h.bytes + int64(n)); err != nil {
			return err
		}
	}
	h.bytes += int64(n)
	return nil
}

// free says that what was taken is not in use any more.
func (h *held) free() {
	if h.bytes = 0; h.kept > keptBytes {
		_ = h.keep(keptBytes) // it is over, or gives back
	}
}

// keep makes so many bytes those that are taken of the memory.
func (h *held) keep(n int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		return http.ErrBodyReadAfterClose
	}
	if n < h.taken {
		h.memory.Free(h.taken - n)
	} else if err := h.memory.Take(n - h.taken); err != nil {
		return err
	}
	h.taken, h.kept = n, n
	return nil
}

// end gives everything back. It may be called from any goroutine, and again.
func (h *held) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	h.memory.Free(h.taken)
	h.taken = 0
}

// heldReader counts what is read through it.
type heldReader struct {
	io.Reader

	held *held
}

func (r *heldReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if full := r.held.take(n); full != nil {
		return 0, full
	}
	return n, err
}

// caused returns the error with the bound that was its reason, where there was one.
func (a *answer) caused(err error) error {
	cause := context.Cause(a.ctx)
	if !errors.Is(cause, registryhttp.ErrFirstByte) && !errors.Is(cause, registryhttp.ErrStalled) {
		return err
	}
	return verdict.As(fmt.Errorf("%w: %w", cause, err), verdict.Verdict{Class: verdict.ClassStalled})
}
