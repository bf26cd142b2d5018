package llm

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/request"
	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/verdict"
)

const (
	defaultTimeout      = 15 * time.Minute
	defaultReadTimeout  = time.Minute
	defaultWriteTimeout = 30 * time.Second
	defaultMaxBody      = 32 << 20
	mostOfAnError       = 64 << 10
	shortBody           = 64 << 10 // for which memory is taken at once
	smallCopy           = 1 << 10  // for which many streams at once have an event
	largeCopy           = 8 << 10
)

//nolint:gochecknoglobals // of buffers
var (
	smallCopies = sync.Pool{New: func() any { return new([smallCopy]byte) }}
	largeCopies = sync.Pool{New: func() any { return new([largeCopy]byte) }}
)

// Proxy is an [http.Handler] that passes a request for a model on to the providers of a service, and their answer to the
// client as it arrives. Its fields must not change after the first use. It is safe for concurrent use, and starts no
// goroutine.
//
// Errors are in OpenAI's form, as [ErrorOf] makes them. A stream has comments while there is nothing else, and one that
// fails when it has begun ends with an error as its last event, without an end mark. Of the client's headers, Accept,
// Content-Type, Idempotency-Key, Traceparent, Tracestate, User-Agent, X-Client-Request-Id and those that begin with Openai- and
// X-Stainless- go to the server, with the correlation of the context ([registryhttp.MetadataOf]); never its credentials. Of the
// server's, those about its rate limits and those that begin with Openai- come back. X-Served-By is the name of the last [Transport];
// X-Served-Model is the name of the model there, where it is another than the client's, and X-Attempts how often the request was sent,
// where that is more than once. An answer with an error has none of these three.
type Proxy struct {
	// Route returns the way of a request. An [Error] is answered as it is, with its status. It is called again where no provider
	// was available, as its answer may have changed since: an error then is that of the request.
	Route func(r *http.Request, asked Request) (Way, error)
	// Done, when set, is called with the report of each request. Default: none.
	Done func(r *http.Request, report *Report)
	// ReadTimeout bounds the time until the client has sent its request. Default: 1 min.
	ReadTimeout time.Duration
	// WriteTimeout bounds the time until the client has taken a piece of the answer. Default: 30 s.
	WriteTimeout time.Duration
	// MaxBody bounds the bytes of a request. Default: 32 MiB.
	MaxBody int64
	// Memory bounds the bytes of all requests that are held at once. Default: no bound.
	Memory *Memory
}

// Way is the way of a request.
type Way struct {
	// Transport sends it, such as a [registryhttp.Transport]. Transports of this package below it fill in the report.
	Transport http.RoundTripper
	// Timeout bounds everything, from the beginning of the request on. Default: 15 min.
	Timeout time.Duration
	// CommentEvery is that of [registryhttp.EventOptions]. Default: 15 s.
	CommentEvery time.Duration
	// Tokens bounds what the client uses. A request beyond it is answered with 429, and each answer tells what is left, in
	// place of what the server tells. Default: no bound.
	Tokens *Tokens
}

// Report describes a request and its answer.
type Report struct {
	// Asked is the request.
	Asked Request
	// Status is the HTTP status of the answer, and Bytes the length of its body.
	Status int
	Bytes  int64
	// Attempts counts the times that it was sent. Name is the name of the last [Transport], and Model that of the model as
	// the server knows it.
	Attempts    int
	Name, Model string
	// ID is the identifier of an answer that can be continued.
	ID string
	// InputTokens and OutputTokens are what the server says to have used. See [Report.Tokens].
	InputTokens, OutputTokens int
	// Duration is the time until the end of the answer.
	Duration time.Duration
	// Err keeps the client from a complete answer; nil: it has one.
	Err error

	events int // of the stream, but for its end mark
}

// MarshalLogObject writes the report to a log line, as zap.Inline has it: model, stream where it is one, status, upstream, served_model
// where it is another one, attempts where there were several or none, input_tokens, output_tokens, bytes, time, and error where there
// was one.
func (r *Report) MarshalLogObject(line zapcore.ObjectEncoder) error {
	line.AddString("model", r.Asked.Model)
	if r.Asked.Stream {
		line.AddBool("stream", true)
	}
	line.AddInt("status", r.Status)
	line.AddString("upstream", r.Name)
	if r.hasOtherModel() {
		line.AddString("served_model", r.Model)
	}
	if r.Attempts != 1 {
		line.AddInt("attempts", r.Attempts)
	}
	line.AddInt("input_tokens", r.InputTokens)
	line.AddInt("output_tokens", r.OutputTokens)
	line.AddInt64("bytes", r.Bytes)
	line.AddDuration("time", r.Duration)
	zap.Error(r.Err).AddTo(line)
	return nil
}

// hasOtherModel reports whether the server knows the model by another name than the client.
func (r *Report) hasOtherModel() bool { return r.Model != "" && r.Model != r.Asked.Model }

// passage is one request on its way.
type passage struct {
	*Proxy

	w      http.ResponseWriter
	r      *http.Request
	begun  time.Time
	way    Way
	sent   http.Request // to the providers
	url    url.URL      // of that
	body   bytes.Reader // of that
	held   held
	asking heldReader    // of the client's body
	slow   patientWriter // of a plain answer
	taken  int           // of the tokens of the way
	report Report
	on     onItsWay
	// limited bounds everything. Transports of package registryhttp keep its deadline by a clock of their own.
	limited request.Limited
}

// ServeHTTP answers the request.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := &passage{Proxy: p, w: w, r: r, begun: time.Now()}
	defer func() {
		q.held.end()
		q.way.Tokens.Spend(q.report.Tokens() - q.taken)
		if q.report.Duration = time.Since(q.begun); p.Done != nil {
			p.Done(r, &q.report)
		}
	}()
	q.serve() //nolint:contextcheck // it is that of the request
}

func (q *passage) serve() {
	if err := q.receive(); err != nil {
		q.fail(nil, err)
		return
	}
	q.on = onItsWay{&q.report.Asked, &q.report}
	q.limited.Init(context.WithValue(q.r.Context(), wayKey{}, &q.on), q.begun.Add(cmp.Or(q.way.Timeout, defaultTimeout)))
	defer q.limited.End()
	var events *registryhttp.EventWriter
	if q.report.Asked.Stream {
		events = registryhttp.NewEventWriter(q.w, registryhttp.EventOptions{CommentEvery: q.way.CommentEvery, WriteTimeout: q.WriteTimeout})
		defer func() { _ = events.Close() }()
	}
	response, err := q.send()
	if err != nil {
		q.fail(events, err)
		return
	}
	defer func() { _ = response.Body.Close() }()
	q.pass(events, response)
	if events != nil {
		_ = events.Close() // no comment follows the end, however long the body takes to close
	}
}

// receive reads the request and finds its way. It is not a part of serve, whose frame is on the stack of a stream to its end:
// with more there the stack would be twice as large.
func (q *passage) receive() error {
	body, err := q.read()
	if err != nil {
		return err
	}
	if q.report.Asked, err = ParseRequest(body); err != nil {
		return &Error{Message: err.Error(), Code: "invalid_request", Status: http.StatusBadRequest}
	}
	if q.way, err = q.Route(q.r, q.report.Asked); err != nil {
		return err
	}
	return q.take(estimate(len(body)))
}

// send sends the request.
func (q *passage) send() (*http.Response, error) {
	response, err := q.way.Transport.RoundTrip(q.request(q.report.Asked.body))
	if errors.Is(err, registry.ErrUnavailable) {
		if _, gone := q.Route(q.r, q.report.Asked); gone != nil {
			err = gone
		}
	}
	return response, err
}

// take takes tokens for the request.
func (q *passage) take(n int) error {
	after, ok := q.way.Tokens.Take(n)
	if !ok {
		q.way.Tokens.Head(q.w.Header())
		return q.way.Tokens.refusal(after)
	}
	if q.way.Tokens != nil {
		q.taken = n
	}
	return nil
}

// read reads the body within the limits of time and memory.
func (q *passage) read() ([]byte, error) {
	control := http.NewResponseController(q.w)
	_ = control.SetReadDeadline(q.begun.Add(cmp.Or(q.ReadTimeout, defaultReadTimeout))) // not every server has one
	q.held.memory, q.held.most = q.Memory, cmp.Or(q.MaxBody, defaultMaxBody)
	q.asking = heldReader{q.r.Body, &q.held}
	if n := q.r.ContentLength; n < 0 || n > q.held.most { // else the server ends it there
		q.asking.Reader = http.MaxBytesReader(q.w, q.r.Body, q.held.most)
	}
	body, err := readAll(&q.asking, q.r.ContentLength, shortBody) // a client may say more than it sends
	_ = control.SetReadDeadline(time.Time{})
	if err == nil || errors.Is(err, ErrMemory) {
		return body, err
	}
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, &Error{Message: "the body is too large", Code: "request_too_large", Status: http.StatusRequestEntityTooLarge}
	}
	return nil, &Error{Message: "the body did not arrive", Code: "invalid_request", Status: http.StatusRequestTimeout}
}

// request returns the request to send.
func (q *passage) request(body []byte) *http.Request {
	q.url = url.URL{Scheme: "http", Host: "proxy", Path: q.r.URL.Path, RawPath: q.r.URL.RawPath}
	q.body.Reset(body)
	q.sent = *(&http.Request{
		Method: q.r.Method, URL: &q.url, Host: q.url.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header, 8), ContentLength: int64(len(body)), Body: io.NopCloser(&q.body), // which net/http knows to be there
		GetBody: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil },
	}).WithContext(&q.limited)
	out := &q.sent
	for name, values := range q.r.Header {
		if isForwarded(name) {
			out.Header[name] = values
		}
	}
	if _, has := out.Header["User-Agent"]; !has {
		out.Header["User-Agent"] = nil // else net/http sends its own, which is not the client's
	}
	ids := []string{registryhttp.MetadataOf(q.r.Context()).Correlation, ""}
	if ids[0] != "" {
		out.Header[registryhttp.HeaderCorrelation] = ids[:1:1]
	}
	if len(out.Header["Idempotency-Key"]) == 0 {
		ids[1] = request.NewID()
		out.Header["Idempotency-Key"] = ids[1:] // it also lets net/http send it again over a connection that was cut
	}
	return out
}

// isForwarded reports whether a header of a client goes to the server.
func isForwarded(name string) bool {
	switch name {
	case "Accept", "Content-Type", "Idempotency-Key", "Traceparent", "Tracestate", "User-Agent", "X-Client-Request-Id":
		return true
	}
	return strings.HasPrefix(name, "Openai-") || strings.HasPrefix(name, "X-Stainless-")
}

// head sets the headers of an answer.
func (q *passage) head(to http.Header, response *http.Response) {
	for name, values := range response.Header {
		if name == "Content-Type" || name == "Content-Encoding" || strings.HasPrefix(name, "Openai-") || isLimit(name) {
			to[name] = values
		}
	}
	q.way.Tokens.Head(to)
	if id := response.Header[registryhttp.HeaderCorrelation]; len(id) > 0 {
		to["X-Upstream-Request-Id"] = id
	}
	values := []string{q.report.Name, q.report.Model, strconv.Itoa(q.report.Attempts), strconv.FormatInt(response.ContentLength, 10)}
	for i, said := range [...]struct {
		name string
		news bool
	}{
		{"X-Served-By", q.report.Name != ""},
		{"X-Served-Model", q.report.hasOtherModel()},
		{"X-Attempts", q.report.Attempts > 1},
		{"Content-Length", response.ContentLength > 0}, // else a long answer would be sent in chunks
	} {
		if said.news {
			to[said.name] = values[i : i+1 : i+1]
		}
	}
}

// limits sets the headers about limits of rate: those of the server, and of the client's own.
func (q *passage) limits(to http.Header, response *http.Response) {
	for name, values := range response.Header {
		if isLimit(name) {
			to[name] = values
		}
	}
	q.way.Tokens.Head(to)
}

func isLimit(name string) bool { return strings.HasPrefix(name, "X-Ratelimit-") }

// pass passes an answer on: as events, as it is, or the words of a refusal.
func (q *passage) pass(events *registryhttp.EventWriter, response *http.Response) {
	q.slow = patientWriter{w: q.w, limit: cmp.Or(q.WriteTimeout, defaultWriteTimeout)}
	var out io.Writer = &q.slow
	switch {
	case response.StatusCode >= http.StatusBadRequest:
		text, _ := io.ReadAll(io.LimitReader(response.Body, mostOfAnError)) // the status is enough
		refusal := ParseError(response.StatusCode, text)
		refusal.after = verdictDelay(response)
		if class := refusal.Verdict().Class; class == verdict.ClassFatal || class == verdict.ClassUnauthenticated {
			refusal = refusedCredentials()
		}
		if events == nil {
			q.limits(q.w.Header(), response)
		} else {
			events.Header(func(header http.Header) { q.limits(header, response) })
		}
		q.fail(events, refusal)
		return
	case events != nil:
		out = events
		events.Header(func(header http.Header) { q.head(header, response) })
	default:
		q.head(q.w.Header(), response)
		q.w.WriteHeader(response.StatusCode)
	}
	q.report.Status = response.StatusCode
	q.copy(out, response.Body)
}

// copy copies the body. What ends it early is an event of a stream, and cuts any other answer.
func (q *passage) copy(out io.Writer, body io.Reader) {
	small, _ := smallCopies.Get().(*[smallCopy]byte)
	var large *[largeCopy]byte
	var err error
	for buffer := small[:]; err == nil && q.report.Err == nil; {
		var n int
		if n, err = body.Read(buffer); n > 0 {
			q.report.Bytes += int64(n)
			_, q.report.Err = out.Write(buffer[:n])
		}
		if n == smallCopy && large == nil {
			large, _ = largeCopies.Get().(*[largeCopy]byte)
			buffer = large[:]
		}
	}
	smallCopies.Put(small)
	if large != nil {
		largeCopies.Put(large)
	}
	switch {
	case q.report.Err != nil, errors.Is(err, io.EOF):
	case q.report.Asked.Stream:
		q.report.Err = err
		_, _ = out.Write(registryhttp.AppendEvent(nil, "", interrupted(err).encoded())) // the client may be gone
	default:
		q.report.Err = err
		panic(http.ErrAbortHandler)
	}
}

// fail answers with an error, as an event where the status was sent already.
func (q *passage) fail(events *registryhttp.EventWriter, err error) {
	q.report.Err = err
	e := ErrorOf(err)
	q.report.Status = e.Status
	if events == nil {
		e.ServeHTTP(q.w, q.r)
	} else if !events.Answer(func(w http.ResponseWriter) { e.ServeHTTP(w, q.r) }) {
		_, _ = events.Write(registryhttp.AppendEvent(nil, "", e.encoded())) // the client may be gone
	}
}

// patientWriter gives a client that reads slowly its time for each piece.
type patientWriter struct {
	w        http.ResponseWriter
	limit    time.Duration
	deadline time.Time
}

func (p *patientWriter) Write(text []byte) (int, error) {
	if now := time.Now(); p.deadline.Sub(now) < p.limit/2 { // not for each piece
		p.deadline = now.Add(p.limit)
		_ = http.NewResponseController(p.w).SetWriteDeadline(p.deadline) // not every server has one
	}
	return p.w.Write(text)
}
