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
// It is safe for concurrent use and keeps nothing.
//
// It blocks until the answer is there or ctx ends, and ctx should have a deadline; an attempt of a registry has one. Its errors are an
// [Error] that the process has answered with; one of class "not sent" where no process listens, or the connection is
// down; a [PermissionError]; that of ctx; or one of the connection. An answer that is no JSON of A is malformed.
func NewStub[Q, A any](nc *nats.Conn, e federation.Entry, method string) func(ctx context.Context, request Q) (A, error) {
	provider := e.Definition.Name
	return func(ctx context.Context, request Q) (answer A, err error) {
		message, err := requestOf(ctx, nc, e, method, request)
		if err != nil {
			return answer, err
		}
		reply, err := exchange(ctx, nc, message, provider)
		if err != nil {
			return answer, err
		}
		if err := errorIn(reply, provider); err != nil {
			return answer, err
		}
		if err := json.Unmarshal(reply.Data, &answer); err != nil {
			return answer, verdict.As(fmt.Errorf("registrynats: provider %q: the answer: %w", provider, err), verdict.Verdict{Class: verdict.ClassMalformed})
		}
		return answer, nil
	}
}

// requestOf returns the message of a request, if it can be sent.
func requestOf(ctx context.Context, nc *nats.Conn, e federation.Entry, method string, request any) (*nats.Msg, error) {
	if nc == nil || !isMethod(method) || !strings.HasPrefix(e.Address, callPrefix) || strings.ContainsAny(e.Address, " \t\r\n*>") {
		return nil, verdict.Cannot(fmt.Errorf("registrynats: provider %q: %q is no address of a server", e.Definition.Name, oneLine(e.Address)))
	}
	data, err := json.Marshal(request)
	if err != nil {
		return nil, verdict.Permanent(fmt.Errorf("registrynats: the request: %w", err))
	}
	if !nc.IsConnected() {
		return nil, verdict.NotSent(fmt.Errorf("registrynats: provider %q: %w", e.Definition.Name, nats.ErrDisconnected))
	}
	message := nats.NewMsg(e.Address + "." + method)
	message.Header, message.Data = headersOf(ctx, e.Definition.Name), data
	return message, nil
}

// exchange sends a request, and returns its reply.
func exchange(ctx context.Context, nc *nats.Conn, message *nats.Msg, provider string) (*nats.Msg, error) {
	trying := try(nc, "call "+strconv.Quote(provider), func(subject string) bool { return subject == message.Subject })
	within, stop := trying.within(ctx)
	defer stop()
	reply, err := nc.RequestMsgWithContext(within, message)
	if err == nil {
		return reply, nil
	}
	if refused := trying.refused(); refused != nil {
		return nil, refused
	}
	return nil, asError(ctx, provider, err)
}

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
