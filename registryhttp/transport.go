package registryhttp

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/verdict"
)

var (
	// ErrFirstByte is the cause of an answer whose first byte did not arrive in time.
	ErrFirstByte = errors.New("no answer in time")
	// ErrStalled is the cause of a body whose next bytes did not arrive in time.
	ErrStalled = errors.New("answer stalled")
	// ErrBodySpent reports a request that could not go to another provider, as its body cannot be sent again.
	ErrBodySpent = errors.New("the request's body cannot be sent again: it has no GetBody and is longer than Options.MaxBody")
	// ErrRedirect reports a redirect that leads away from the providers. It is not followed.
	ErrRedirect = errors.New("redirect to elsewhere is not followed")
)

// Transport is an [http.RoundTripper] that sends each request to a provider of a service, and to the next one when that
// fails. Use [NewTransport] to create one. It is safe for concurrent use. It needs no closing: a goroutine of it exists
// only for a moment, where something is late.
type Transport struct {
	resolver *registry.Resolver[*Upstream]
	options  Options
	explicit bool // the FirstTimeout was chosen
	base     http.RoundTripper
	repeat   []registry.CallOption
	once     []registry.CallOption // the same, and once only
	timers   *schedule.Scheduler   // the times of exchanges are by its clock
}

// NewTransport returns a transport over the providers that the resolver gives. The error is a
// [registry.FieldError] that matches [registry.ErrInvalid].
func NewTransport(resolver *registry.Resolver[*Upstream], options Options) (*Transport, error) {
	if resolver == nil {
		return nil, refuse("resolver", "nil", "a resolver made by Bind")
	}
	t := &Transport{resolver: resolver, explicit: options.FirstTimeout > 0, timers: schedule.New()}
	var err error
	if t.options, err = options.withDefaults(); err != nil {
		return nil, err
	}
	if t.base = options.Transport; t.base == nil {
		t.base = defaultTransport()
	}
	t.repeat = append([]registry.CallOption{registry.AttemptTimeout(t.options.Timeout)}, t.options.Call...)
	t.once = slices.Concat(t.repeat, []registry.CallOption{registry.OnceOnly()})
	return t, nil
}

// CloseIdleConnections closes the idle connections of the transport below, as [http.Client.CloseIdleConnections]
// does; the transports of upstreams are their owners'.
func (t *Transport) CloseIdleConnections() {
	if closer, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		closer.CloseIdleConnections()
	}
}

// RoundTrip sends the request to the best provider, and to the next one as long as the attempt fails and the request
// can be sent again. It blocks, within the context of the request, until the first byte of an answer has
// arrived; see [Options.CommitHeader]. The context also ends the body.
//
// The answer has the request as it was given, so that it shows no provider's URL and keys. A refusal of the last
// provider is an answer and no error, unless it is one of this client's credentials. The error is a
// [registry.CallError] or a [registry.UnavailableError], or matches [registry.ErrInvalid], [ErrRedirect]
// or [ErrBodySpent].
func (t *Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	if err := t.check(request); err != nil {
		closeBody(request)
		return nil, err
	}
	r := &round{transport: t, request: request, repeatable: t.options.Repeatable(request)}
	r.body.init(request, t.options.MaxBody)
	defer r.body.release()
	return r.run()
}

func closeBody(request *http.Request) {
	if request != nil && request.Body != nil {
		_ = request.Body.Close()
	}
}

// check returns what keeps a request from being sent to any provider.
func (t *Transport) check(request *http.Request) error {
	if t == nil || t.resolver == nil {
		return refuse("Transport", "nil", "one made by NewTransport")
	}
	if request == nil || request.URL == nil {
		return refuse("Request.URL", "nil", "a URL")
	}
	asked := request.URL
	if asked.Host == "" || asked.Opaque != "" || asked.Scheme != "http" && asked.Scheme != "https" {
		return refuse("Request.URL", fmt.Sprintf("%q", printable(asked)), "an absolute URL with http or https")
	}
	if redirect := request.Response; redirect != nil && redirect.Request != nil && !sameOrigin(asked, redirect.Request.URL) {
		return fmt.Errorf("registryhttp: %w: %s", ErrRedirect, printable(asked))
	}
	if base := t.options.Base; base != "" {
		_, within := behind(asked.Path, base)
		if _, escaped := behind(asked.EscapedPath(), base); !within || !escaped {
			return refuse("Request.URL", fmt.Sprintf("%q", printable(asked)), fmt.Sprintf("a path within Options.Base, %q", base))
		}
	}
	return nil
}

// round is one request in progress.
type round struct {
	transport  *Transport
	request    *http.Request
	body       requestBody
	repeatable bool
	first      exchange
}

// acquire leases the first provider for the request.
func (r *round) acquire() (*registry.Lease[*Upstream], error) {
	options := r.transport.once
	if r.repeatable {
		options = r.transport.repeat
	}
	ctx := r.request.Context()
	if caller := MetadataOf(ctx).Caller; caller != "" {
		var room [4]registry.CallOption // most need no more, and it stays on the stack
		options = append(append(room[:0], options...), registry.Caller(caller))
	}
	return r.transport.resolver.Acquire(ctx, options...)
}

// run makes attempts until one is the answer.
func (r *round) run() (*http.Response, error) {
	lease, err := r.acquire()
	x := &r.first
	for tries := 1; err == nil; tries++ {
		response, failure := x.begin(r, lease)
		if failure == nil {
			return response, nil
		}
		last := tries >= r.transport.options.MaxAttempts
		if last || !r.body.repeatable() {
			return r.end(x, response, failure, last)
		}
		x.detach() // else the answer would end with the lease
		if lease, err = lease.MoveOn(failure); lease != nil {
			x.discard()
			x = &exchange{}
			continue
		}
		return x.conclude(response, err)
	}
	return nil, err
}

// end ends the call with the failure, although another provider could perhaps be asked.
func (r *round) end(x *exchange, response *http.Response, failure error, last bool) (*http.Response, error) {
	x.detach()
	movesOn := x.lease.Done(failure).Rule().Next != verdict.NextNo
	err := cmp.Or(x.lease.Steps().Failure(), failure) // a classifier may count it as an answer
	if !last && movesOn {
		err = fmt.Errorf("registryhttp: %w: %w", ErrBodySpent, err)
	}
	return x.conclude(response, err)
}

// conclude returns what the call ends with: the refusal of the last provider where there is one, else the error.
func (x *exchange) conclude(response *http.Response, err error) (*http.Response, error) {
	if response != nil && !errors.Is(err, registry.ErrCredentials) {
		x.round.body.commit()
		return response, nil
	}
	x.discard()
	return nil, err
}
