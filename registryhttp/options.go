package registryhttp

import (
	"cmp"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/capreg/registry"
)

const (
	defaultFirstTimeout = 2 * time.Minute
	defaultStallTimeout = time.Minute
	defaultTimeout      = time.Hour
	defaultMaxBody      = 1 << 20
	defaultMostAttempts = 16
)

// Options configure a [Transport]. The zero value of each field is its default.
type Options struct {
	// Base is the path of the base URL that the client was made with, such as "/v1" for an SDK that asks for
	// "https://api.openai.com/v1/models". The URL of the provider replaces it. A request for another path is an
	// error. Default: none, so that the whole path is joined to the URL of the provider.
	Base string
	// Repeatable reports whether a request may be sent again although it may have been processed: it should return
	// true for APIs whose requests change nothing, such as those of language models. It must be safe for
	// concurrent use. Default: by RFC 9110, the methods GET, HEAD, OPTIONS, TRACE, PUT and DELETE, and requests
	// with the header Idempotency-Key or X-Idempotency-Key.
	Repeatable func(request *http.Request) bool
	// Inspect is given an answer below 400 and the first bytes of its body, at most 4 KiB, before it is committed.
	// Its error makes the attempt a failure, of the class that package verdict finds. It must neither keep nor
	// change the bytes. It is not asked for a request that is committed with its header. Default: none.
	Inspect func(response *http.Response, first []byte) error
	// MaxBody bounds the bytes that are kept of a body without [http.Request.GetBody], as it is sent, to send it again. A
	// longer one is sent once: it can only move on while none of it was read. Default: 1 MiB; negative: none.
	MaxBody int64
	// MaxAttempts bounds the attempts of a request. Default: 16.
	MaxAttempts int
	// FirstTimeout bounds the time until the first byte of the body, without the time in which the client
	// produces the body of the request. Default: 2 min, or less where the deadline of the request has to leave time for
	// another provider, as for an attempt of [registry.Call].
	FirstTimeout time.Duration
	// StallTimeout bounds the time of a read of the body. The reader's own time between two reads is not
	// counted. Default: 1 min.
	StallTimeout time.Duration
	// Timeout bounds a whole answer, instead of the provider's attempt timeout. Default: 1 h.
	Timeout time.Duration
	// CommitHeader commits an answer with its header, so that it is returned before there is a body: for servers that
	// send a header and are silent for long. Default: the first byte commits, but for requests that are sent once.
	CommitHeader bool
	// Transport sends the requests. Default: one as [http.DefaultTransport], with 64 idle connections
	// per host and at most 1 MiB of response headers, which [Transport.CloseIdleConnections] closes.
	Transport http.RoundTripper
	// Call are options of each call, such as [registry.WaitForCooldown]. [registry.ReportTo] is refused, as
	// requests run at once. Default: none.
	Call []registry.CallOption
}

func (o Options) withDefaults() (Options, error) {
	o.Base = strings.TrimSuffix(o.Base, "/")
	switch {
	case o.Base != "" && (o.Base[0] != '/' || strings.ContainsAny(o.Base, "%?#")):
		return o, refuse("Options.Base", fmt.Sprintf("%q", o.Base), `a path that begins with "/", without "%", "?" and "#"`)
	case o.MaxAttempts < 0:
		return o, refuse("Options.MaxAttempts", o.MaxAttempts, fmt.Sprintf("0 (default %d) or more", defaultMostAttempts))
	}
	for _, field := range []struct {
		name  string
		value *time.Duration
		usual time.Duration
	}{
		{"Options.FirstTimeout", &o.FirstTimeout, defaultFirstTimeout},
		{"Options.StallTimeout", &o.StallTimeout, defaultStallTimeout},
		{"Options.Timeout", &o.Timeout, defaultTimeout},
	} {
		if *field.value < 0 {
			return o, refuse(field.name, *field.value, fmt.Sprintf("0 (default %v) or more", field.usual))
		}
		*field.value = cmp.Or(*field.value, field.usual)
	}
	for i, option := range o.Call {
		if option.IsReportTo() {
			return o, refuse(fmt.Sprintf("Options.Call[%d]", i), option, "options that make sense for requests at once")
		}
	}
	o.MaxBody = max(cmp.Or(o.MaxBody, defaultMaxBody), 0)
	o.MaxAttempts = cmp.Or(o.MaxAttempts, defaultMostAttempts)
	if o.Repeatable == nil {
		o.Repeatable = isRepeatable
	}
	return o, nil
}

// isRepeatable reports whether a request is idempotent, or has a key by which the server knows it again.
func isRepeatable(request *http.Request) bool {
	switch request.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return len(request.Header["Idempotency-Key"]) > 0 || len(request.Header["X-Idempotency-Key"]) > 0
}

func defaultTransport() http.RoundTripper {
	usual, ok := http.DefaultTransport.(*http.Transport)
	if !ok { // the program has replaced it
		return http.DefaultTransport
	}
	own := usual.Clone()
	own.MaxIdleConnsPerHost, own.MaxResponseHeaderBytes = 64, 1<<20
	return own
}
