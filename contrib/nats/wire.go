package registrynats

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nats-io/nats.go"

	"github.com/capreg/registry"
	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/verdict"
)

// The headers of requests and replies.
const (
	// HeaderProvider has the name of the provider that is called.
	HeaderProvider = "Registry-Provider"
	// HeaderTimeout has the time that is left for the request, in milliseconds.
	HeaderTimeout = "Registry-Timeout-Ms"
	// HeaderCaller has the party that a request is from, as its process says. A server heeds it if it is told to.
	HeaderCaller = "Registry-Caller"
	// HeaderIdempotencyKey has the key that is the same in all attempts of a call.
	HeaderIdempotencyKey = "Idempotency-Key"
	// HeaderClass and HeaderAfter have the class of an error and the delay that goes with it, in milliseconds.
	HeaderClass = "Registry-Class"
	HeaderAfter = "Registry-After-Ms"
)

const (
	longestAfter = time.Hour
	longestWord  = 256
	longestText  = 300
	mostHeaders  = 8 // of a request
)

// Error is the error of a call that a process has answered.
type Error struct {
	// Provider is the name of the provider in the process that has answered.
	Provider string
	// Text says what went wrong there, in one line of at most 300 bytes.
	Text string
	// Class is the class of the outcome there, and After the time for which the provider asks to be left alone.
	Class verdict.Class
	After time.Duration
}

// Error returns the provider and the text.
func (e *Error) Error() string { return "registrynats: provider \"" + e.Provider + "\": " + e.Text }

// Verdict returns class and delay, so that the outcome means here what it means there.
func (e *Error) Verdict() verdict.Verdict { return verdict.Verdict{Class: e.Class, After: e.After} }

// remote says what a class is to another process, where that is not the class itself: what the other process has done to
// the attempt is no matter of the caller's own.
func remote(class verdict.Class) verdict.Class {
	switch class {
	case verdict.ClassSuccess, verdict.ClassSlow, verdict.ClassCancelled, verdict.ClassCallerDeadline, verdict.ClassPanic,
		verdict.ClassExit, verdict.ClassHedgeLoser, verdict.ClassForgotten, verdict.ClassRemoved, verdict.ClassCut, verdict.ClassAttemptTimeout:
		return verdict.ClassServerError
	case verdict.ClassCannot:
		return verdict.ClassNotSent
	default:
		return class
	}
}

// verdictOf returns what an error of a call means to another process.
func verdictOf(err error) (verdict.Class, time.Duration) {
	var call *registry.CallError
	var unavailable *registry.UnavailableError
	switch {
	case errors.As(err, &call):
		v := call.Verdict()
		return remote(v.Class), max(v.After, call.RetryIn)
	case errors.As(err, &unavailable):
		return classOfUnavailable(unavailable), unavailable.RetryIn
	}
	v := verdict.Of(err)
	return remote(v.Class), v.After
}

// classOfUnavailable returns the class for a provider that was not entered.
func classOfUnavailable(err *registry.UnavailableError) verdict.Class {
	switch {
	case errors.Is(err, registry.ErrCredentials):
		return verdict.ClassFatal
	case errors.Is(err, registry.ErrDenied):
		return verdict.ClassNotAllowed
	case errors.Is(err, registry.ErrCoolingDown):
		return verdict.ClassRateLimited
	case errors.Is(err, registry.ErrAtCapacity):
		return verdict.ClassOverloaded
	default:
		return verdict.ClassNotSent
	}
}

// headersOf returns the headers of a request to a provider, whose name is quoted.
func headersOf(ctx context.Context, quoted string) nats.Header {
	h := make(nats.Header, mostHeaders)
	values := make([]string, 0, mostHeaders) // of all in one piece
	set := func(name, value string) {
		if value != "" && isWord(value) {
			values = append(values, value)
			h[name] = values[len(values)-1 : len(values) : len(values)]
		}
	}
	m := registryhttp.MetadataOf(ctx)
	set(registryhttp.HeaderCorrelation, m.Correlation)
	set(registryhttp.HeaderTraceParent, m.TraceParent)
	set(registryhttp.HeaderTraceState, m.TraceState)
	set(HeaderCaller, m.Caller)
	key := registry.IdempotencyKey(ctx)
	if key == "" {
		key = IdempotencyKey(ctx)
	}
	set(HeaderIdempotencyKey, key)
	if deadline, ok := ctx.Deadline(); ok {
		set(HeaderTimeout, strconv.FormatInt(max(time.Until(deadline).Milliseconds(), 1), 10))
	}
	h[HeaderProvider] = []string{quoted}
	return h
}

// isWord reports whether text is printable, valid UTF-8 and of one line.
func isWord(text string) bool {
	return len(text) <= 2*longestWord && utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
}

// oneLine returns text as valid UTF-8 in one line of at most [longestText] bytes.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) <= longestText {
		return text
	}
	cut := longestText
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut]
}

// milliseconds reads a header with a number of milliseconds, at most the longest.
func milliseconds(text string, longest time.Duration) time.Duration {
	ms, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0
	}
	return min(time.Duration(min(ms, 1<<40))*time.Millisecond, longest) // it cannot overflow
}

// idempotencyKey is the key of the context's value.
type idempotencyKey struct{}

// IdempotencyKey returns the key that came with the request that a [Server] answers: it is the same in each attempt of
// the caller's call. Any other context has none. The function of a [Serve] that works once for each key makes a
// call that is sent twice happen once.
func IdempotencyKey(ctx context.Context) string {
	key, _ := ctx.Value(idempotencyKey{}).(string)
	return key
}
