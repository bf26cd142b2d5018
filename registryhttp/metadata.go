package registryhttp

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/capreg/registry/internal/request"
)

// The headers by which [Middleware] and [UpstreamOptions.Propagate] pass on what belongs to a request.
const (
	// HeaderTimeout has the time that is left for the request, in milliseconds, as Envoy sends it.
	HeaderTimeout = "X-Envoy-Expected-Rq-Timeout-Ms"
	// HeaderCorrelation has the identifier that the log lines of one request share.
	HeaderCorrelation = "X-Request-Id"
	// HeaderTraceParent and HeaderTraceState have the place in a trace, as W3C Trace Context defines them.
	HeaderTraceParent = "Traceparent"
	HeaderTraceState  = "Tracestate"
)

// Metadata holds what belongs to a request on its way through several servers, beside its deadline.
type Metadata struct {
	// Correlation identifies the request in logs; at most 256 printable bytes without spaces.
	Correlation string
	// TraceParent and TraceState are the place in a trace, as the headers of these names have it. A TraceParent of
	// another form is left out, and the TraceState with it.
	TraceParent, TraceState string
	// Caller names the party that is answerable: a [Transport] gives it to [registry.Caller]. It is not sent.
	Caller string
}

// WithMetadata returns a context with the metadata, which replace those that ctx has. What is not of the form that
// [Metadata] defines is left out.
func WithMetadata(ctx context.Context, m Metadata) context.Context {
	if !isIdentifier(m.Correlation) {
		m.Correlation = ""
	}
	if !isTraceParent(m.TraceParent) {
		m.TraceParent = ""
	}
	if m.TraceParent == "" || len(m.TraceState) > 512 || !isPlain(m.TraceState) {
		m.TraceState = ""
	}
	return request.With(ctx, request.Metadata(m))
}

// MetadataOf returns the metadata of the context; the zero value without any.
func MetadataOf(ctx context.Context) Metadata {
	return Metadata(request.Of(ctx))
}

// isIdentifier reports whether a text may be an identifier in a log line.
func isIdentifier(text string) bool {
	if text == "" || len(text) > 256 {
		return false
	}
	for _, c := range []byte(text) {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

// isTraceParent reports whether a text is a traceparent that names a trace and a span.
func isTraceParent(text string) bool {
	if text == "" {
		return false
	}
	parts := strings.Split(text, "-")
	if len(parts) < 4 || len(parts) > 4 && parts[0] == "00" || len(text) > 256 {
		return false
	}
	for i, length := range []int{2, 32, 16, 2} {
		if len(parts[i]) != length || strings.Trim(parts[i], "0123456789abcdef") != "" {
			return false
		}
	}
	return parts[0] != "ff" && strings.Trim(parts[1], "0") != "" && strings.Trim(parts[2], "0") != "" && isPlain(text)
}

// propagate adds the metadata of an attempt, and the time that is left, to headers of a request that lack them. A place in
// a trace that a hook has given the attempt replaces that of the request.
func propagate(ctx, request context.Context, header http.Header) {
	set := func(name, value string) {
		if _, has := header[name]; !has && value != "" {
			header[name] = []string{value}
		}
	}
	m := MetadataOf(ctx)
	set(HeaderCorrelation, m.Correlation)
	if m.TraceParent != MetadataOf(request).TraceParent {
		delete(header, HeaderTraceParent)
		delete(header, HeaderTraceState)
	}
	if _, has := header[HeaderTraceParent]; !has {
		set(HeaderTraceParent, m.TraceParent)
		set(HeaderTraceState, m.TraceState)
	}
	if deadline, ok := ctx.Deadline(); ok {
		set(HeaderTimeout, strconv.FormatInt(max(time.Until(deadline).Milliseconds(), 1), 10))
	}
}

// MiddlewareOptions configure [Middleware]. The zero value of each field is its default.
type MiddlewareOptions struct {
	// Caller names the party that a request is from, by what it has proven, such as its certificate or its key.
	// Default: none.
	Caller func(request *http.Request) string
	// Correlate gives a request without a correlation a new one, and tells it in the header of the answer. Default: it
	// keeps none.
	Correlate bool
	// MaxTimeout bounds the time of each request, whatever its header says. Default: the header alone does.
	MaxTimeout time.Duration
}

// Middleware returns a function that wraps a handler: the context of its requests has the deadline, the correlation
// and the trace of their headers, and the caller. Headers of another form than [Metadata] and [HeaderTimeout] define are ignored.
func Middleware(options MiddlewareOptions) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			m := Metadata{
				Correlation: first(r.Header, HeaderCorrelation),
				TraceParent: first(r.Header, HeaderTraceParent), TraceState: strings.Join(r.Header[HeaderTraceState], ","),
			}
			if options.Correlate {
				if !isIdentifier(m.Correlation) {
					m.Correlation = request.NewID()
				}
				w.Header()[HeaderCorrelation] = []string{m.Correlation}
			}
			if options.Caller != nil {
				m.Caller = options.Caller(r)
			}
			ctx := WithMetadata(r.Context(), m)
			if limit := timeoutIn(r.Header, options.MaxTimeout); limit > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, limit)
				defer cancel()
			}
			next.ServeHTTP(w, r.WithContext(ctx))
		})
	}
}

// first returns the first value of a header, whose name is in its canonical form; empty: none.
func first(header http.Header, name string) string {
	if values := header[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// timeoutIn returns the time that a request has; zero: no limit.
func timeoutIn(header http.Header, most time.Duration) time.Duration {
	text := first(header, HeaderTimeout)
	if text == "" { // for most requests: an error of strconv has its text copied
		return max(most, 0)
	}
	ms, err := strconv.ParseUint(text, 10, 64)
	if err != nil || ms == 0 {
		return max(most, 0)
	}
	const longest = 10 * 365 * 24 * time.Hour
	limit := time.Duration(min(ms, uint64(longest/time.Millisecond))) * time.Millisecond
	if most > 0 {
		limit = min(limit, most)
	}
	return limit
}
