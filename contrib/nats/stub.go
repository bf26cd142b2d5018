package registrynats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/verdict"
)

// NewStub returns a function that calls the method of the provider of an entry, for the function of a [federation.Dial].
// It is safe for concurrent use, and starts no goroutine but that of a timer.
//
// It blocks until the answer is there or ctx ends, and ctx should have a deadline; an attempt of a registry has one. Its errors are an
// [Error] that the process has answered with; one of class "not sent" where no process listens, or the connection is
// down; a [PermissionError]; that of ctx; or one of the connection. An answer that is no JSON of A is malformed.
func NewStub[Q, A any](nc *nats.Conn, e federation.Entry, method string) func(ctx context.Context, request Q) (A, error) {
	target := newTarget(nc, e, method)
	return func(ctx context.Context, request Q) (answer A, err error) {
		message, err := target.request(ctx, request)
		if err != nil {
			return answer, err
		}
		reply, err := target.exchange(ctx, message)
		if err != nil {
			return answer, err
		}
		if err := errorIn(reply, target.provider); err != nil {
			return answer, err
		}
		if err := json.Unmarshal(reply.Data, &answer); err != nil {
			return answer, verdict.As(fmt.Errorf("registrynats: provider %q: the answer: %w", target.provider, err), verdict.Verdict{Class: verdict.ClassMalformed})
		}
		return answer, nil
	}
}

// target is a method of a provider: what all of its requests have in common.
type target struct {
	nc       *nats.Conn
	provider string
	quoted   string // its name, for the header
	what     string // for errors
	subject  string
	unusable error // the reason why no request can be sent
	refusals lookout
}

func newTarget(nc *nats.Conn, e federation.Entry, method string) *target {
	provider := e.Definition.Name
	t := &target{
		nc: nc, provider: provider, quoted: strconv.QuoteToASCII(provider), what: "call " + strconv.Quote(provider),
		subject: e.Address + "." + method, refusals: lookout{nc: nc, first: firstLook},
	}
	if nc == nil || !isMethod(method) || !strings.HasPrefix(e.Address, callPrefix) || strings.ContainsAny(e.Address, " \t\r\n*>") {
		t.unusable = verdict.Cannot(fmt.Errorf("registrynats: provider %q: %q is no address of a server", provider, oneLine(e.Address)))
	}
	return t
}

// request returns the message of a request, if it can be sent.
func (t *target) request(ctx context.Context, request any) (*nats.Msg, error) {
	if t.unusable != nil {
		return nil, t.unusable
	}
	data, err := json.Marshal(request)
	if err != nil {
		return nil, verdict.Permanent(fmt.Errorf("registrynats: the request: %w", err))
	}
	if !t.nc.IsConnected() {
		return nil, verdict.NotSent(fmt.Errorf("registrynats: provider %q: %w", t.provider, nats.ErrDisconnected))
	}
	return &nats.Msg{Subject: t.subject, Header: headersOf(ctx, t.quoted), Data: data}, nil
}

// exchange sends a request, and returns its reply.
func (t *target) exchange(ctx context.Context, message *nats.Msg) (*nats.Msg, error) {
	within, trying := t.refusals.try(ctx, t.what, t.uses)
	defer trying.stop()
	reply, err := t.nc.RequestMsgWithContext(within, message)
	if err == nil {
		return reply, nil
	}
	if refused := trying.refused(); refused != nil {
		return nil, refused
	}
	return nil, asError(ctx, t.provider, err)
}

// uses returns whether a request has to do with a subject.
func (t *target) uses(subject string) bool { return subject == t.subject }

// asError returns the error of a request that has no reply.
func asError(ctx context.Context, provider string, err error) error {
	wrapped := fmt.Errorf("registrynats: provider %q: %w", provider, err)
	switch {
	case ctx.Err() != nil:
		return wrapped
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, nats.ErrReconnectBufExceeded):
		return verdict.NotSent(wrapped)
	case errors.Is(err, nats.ErrMaxPayload):
		return verdict.As(wrapped, verdict.Verdict{Class: verdict.ClassTooLong})
	default:
		return verdict.As(wrapped, verdict.Verdict{Class: verdict.ClassTransport})
	}
}

// errorIn returns the error that a reply is, or nil.
func errorIn(reply *nats.Msg, provider string) error {
	code := reply.Header.Get(micro.ErrorCodeHeader)
	if code == "" && reply.Header.Get(HeaderClass) == "" {
		return nil
	}
	e := &Error{Provider: provider, Text: oneLine(reply.Header.Get(micro.ErrorHeader))}
	var class verdict.Class
	if err := class.UnmarshalText([]byte(reply.Header.Get(HeaderClass))); err == nil {
		e.Class = remote(class)
	}
	e.After = milliseconds(reply.Header.Get(HeaderAfter), longestAfter)
	return e
}
