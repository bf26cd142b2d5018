package registryotel

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/request"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/verdict"
)

// The attributes of spans; the comment of the package says what they have.
const (
	keyHandler  = attribute.Key("registry.handler")
	keyCaller   = attribute.Key("registry.caller")
	keyAttempts = attribute.Key("registry.call.attempts")
	keyFailover = attribute.Key("registry.call.failover")
	keySkipped  = attribute.Key("registry.skipped")
	keyWhy      = attribute.Key("registry.attempt.reason")
	keyDelay    = attribute.Key("registry.attempt.delay")
	keyTrial    = attribute.Key("registry.attempt.trial")
	keyMock     = attribute.Key("registry.attempt.mock")
	keyClass    = attribute.Key("registry.class")
)

const (
	maxErrorText = 300
	maxSkipped   = 16
	// maxTraceState bounds the state of a trace in bytes, as in registryhttp.
	maxTraceState = 512
)

// WithTrace returns a context in which the registry knows the place in the trace that the span of ctx has, recorded or
// not: its log has trace_id and span_id then, and registryhttp and contrib/grpc send the place on where they propagate. An
// [Observer] does it for the calls that it traces. It is for the others: use it where a request comes in. Without a span
// it returns ctx. It does not block.
func WithTrace(ctx context.Context) context.Context {
	place := trace.SpanContextFromContext(ctx)
	if !place.IsValid() {
		return ctx
	}
	m := request.Of(ctx)
	m.TraceParent = parentOf(place)
	if m.TraceState = place.TraceState().String(); len(m.TraceState) > maxTraceState {
		m.TraceState = ""
	}
	return request.With(ctx, m)
}

// parentOf returns the place as W3C Trace Context writes it: version, trace, span, flags.
func parentOf(place trace.SpanContext) string {
	text := []byte("00-00000000000000000000000000000000-0000000000000000-00")
	id, span, flags := place.TraceID(), place.SpanID(), place.TraceFlags()
	hex.Encode(text[3:], id[:])
	hex.Encode(text[36:], span[:])
	hex.Encode(text[53:], []byte{byte(flags)})
	return string(text)
}

// traces makes the spans of calls and attempts.
type traces struct {
	tracer trace.Tracer
	roots  float64 // the part of the calls that may begin a trace
}

func (t *traces) hooks() registry.Hooks {
	return registry.Hooks{
		Skip: t.skip, BeforeCall: t.beforeCall, BeforeAttempt: t.beforeAttempt,
		AfterAttempt: t.afterAttempt, AfterCall: t.afterCall,
	}
}

// skip reports whether a call leaves no trace: below a span that leaves none, and without a span by chance.
func (t *traces) skip(ctx context.Context) bool {
	span := trace.SpanFromContext(ctx)
	place := span.SpanContext()
	if !place.IsValid() {
		return t.roots < 1 && rand.Float64() >= t.roots //nolint:gosec // no secret
	}
	return !place.IsSampled() && !span.IsRecording()
}

// tracedCall is a call in progress.
type tracedCall struct {
	span trace.Span

	// mu guards the fields below; nothing is called while it is held.
	mu      sync.Mutex
	first   string       // the provider that was asked first
	running []trace.Span // of its attempts
}

// callKey and attemptKey are the keys of what an observer keeps in contexts.
type (
	callKey    struct{ of *traces }
	attemptKey struct{ of *traces }
)

func (t *traces) beforeCall(ctx context.Context, r registry.CallReport) context.Context {
	ctx, span := t.tracer.Start(ctx, "call "+r.Service, trace.WithAttributes(keyService.String(r.Service)))
	if !span.IsRecording() {
		return WithTrace(ctx)
	}
	span.SetAttributes(filled(keyHandler.String(r.Handler), keyCaller.String(r.Caller))...)
	return WithTrace(context.WithValue(ctx, callKey{t}, &tracedCall{span: span}))
}

func (t *traces) callOf(ctx context.Context) *tracedCall {
	call, _ := ctx.Value(callKey{t}).(*tracedCall)
	return call
}

func (t *traces) beforeAttempt(ctx context.Context, r registry.CallReport, a registry.Attempt) context.Context {
	call := t.callOf(ctx)
	if call == nil {
		return ctx
	}
	attributes := []attribute.KeyValue{
		keyService.String(r.Service), keyProvider.String(a.Provider), keyWhy.String(string(a.Why)),
	}
	if a.Delay > 0 {
		attributes = append(attributes, keyDelay.Float64(a.Delay.Seconds()))
	}
	if a.Trial {
		attributes = append(attributes, keyTrial.Bool(true))
	}
	if a.Mock {
		attributes = append(attributes, keyMock.Bool(true))
	}
	options := []trace.SpanStartOption{trace.WithAttributes(attributes...)}
	if a.Why == reason.Hedge {
		options = append(options, trace.WithLinks(call.links()...))
	}
	ctx, span := t.tracer.Start(ctx, "attempt "+a.Provider, options...) //nolint:spancheck // by afterAttempt
	call.add(a.Provider, span)
	return WithTrace(context.WithValue(ctx, attemptKey{t}, span)) //nolint:spancheck // see above
}

func (t *traces) afterAttempt(ctx context.Context, _ registry.CallReport, a registry.Attempt) {
	call := t.callOf(ctx)
	span, begun := ctx.Value(attemptKey{t}).(trace.Span)
	if call == nil || !begun {
		return
	}
	call.remove(span)
	conclude(span, a.Class, a.Err)
	span.End()
}

func (t *traces) afterCall(ctx context.Context, r registry.CallReport) {
	call := t.callOf(ctx)
	if call == nil {
		return
	}
	first, left := call.soFar()
	for _, span := range left { // of an attempt that a hook has kept from beginning
		span.End()
	}
	attributes := []attribute.KeyValue{keyAttempts.Int(len(r.Attempts))}
	for _, a := range r.Attempts {
		if isAnswer(a.Class) {
			attributes = append(attributes, keyProvider.String(a.Provider), keyFailover.Bool(a.Provider != first))
			break
		}
	}
	if r.Err != nil {
		attributes = append(attributes, skipped(r)...)
	}
	call.span.SetAttributes(attributes...)
	conclude(call.span, classOf(ctx, r), r.Err)
	call.span.End()
}

// classOf returns the class of a call, as its measurements have it.
func classOf(ctx context.Context, r registry.CallReport) verdict.Class {
	last := len(r.Attempts) - 1
	switch {
	case r.Err == nil && (last < 0 || slices.ContainsFunc(r.Attempts, func(a registry.Attempt) bool { return isAnswer(a.Class) })):
		return verdict.ClassSuccess
	case r.Err == nil: // its goroutine has ended
		return r.Attempts[last].Class
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return verdict.ClassCallerDeadline
	case ctx.Err() != nil:
		return verdict.ClassCancelled
	case last >= 0:
		return r.Attempts[last].Class
	}
	return verdict.ClassCannot
}

// skipped says of a call that has failed why other providers were not tried.
func skipped(r registry.CallReport) []attribute.KeyValue {
	var texts []string
	for _, candidate := range r.Skipped() {
		if len(texts) == maxSkipped {
			break
		}
		texts = append(texts, candidate.Provider+": "+string(candidate.Code))
	}
	if texts == nil {
		return nil
	}
	return []attribute.KeyValue{keySkipped.StringSlice(texts)}
}

// conclude says how a call or an attempt has ended.
func conclude(span trace.Span, class verdict.Class, err error) {
	span.SetAttributes(keyClass.String(class.String()))
	if errorType := errorTypeOf(class); errorType.Valid() {
		span.SetAttributes(errorType)
		span.SetStatus(codes.Error, textOf(err))
	}
}

// isAnswer reports whether the class is one of an answer.
func isAnswer(class verdict.Class) bool {
	return class == verdict.ClassSuccess || class == verdict.ClassSlow
}

// errorTypeOf returns what tells failures apart; for an answer, and for an attempt that a faster one has made needless, it
// is not valid.
func errorTypeOf(class verdict.Class) (none attribute.KeyValue) {
	if isAnswer(class) || class == verdict.ClassHedgeLoser {
		return none
	}
	return keyErrorType.String(class.String())
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return oneline.Of(oneline.Cut(fault.Text(err), maxErrorText))
}

// filled returns those attributes whose text is not empty.
func filled(all ...attribute.KeyValue) []attribute.KeyValue {
	return slices.DeleteFunc(all, func(a attribute.KeyValue) bool { return a.Value.AsString() == "" })
}

func (c *tracedCall) add(provider string, span trace.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.first = cmp.Or(c.first, provider)
	c.running = append(c.running, span)
}

func (c *tracedCall) remove(span trace.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := slices.Index(c.running, span); at >= 0 {
		c.running = slices.Delete(c.running, at, at+1)
	}
}

// soFar returns the provider that was asked first, and the spans of attempts that have not ended.
func (c *tracedCall) soFar() (first string, running []trace.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.first, slices.Clone(c.running)
}

// links returns links to the attempts in progress.
func (c *tracedCall) links() []trace.Link {
	var links []trace.Link
	_, running := c.soFar()
	for _, span := range running {
		links = append(links, trace.Link{SpanContext: span.SpanContext()})
	}
	return links
}
