package registrynats

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/capreg/registry/verdict"
)

const (
	// A refusal comes apart from any reply, so it is looked for while a reply is awaited.
	firstLook   = 5 * time.Millisecond
	longestLook = 200 * time.Millisecond
	// confirmed bounds the wait for the server to have seen a subscription.
	confirmed = 5 * time.Second
)

// refusals has the form in which a server of NATS says what it refuses.
var refusals = regexp.MustCompile(`for (Publish|Subscription) to "(\S+)"`)

// PermissionError reports that the server of NATS does not let the user of the connection do what was tried. It
// matches [nats.ErrPermissionViolation].
type PermissionError struct {
	// Tried says what was tried, such as "put lease.a".
	Tried string
	// Operation is "publish" or "subscribe", and Subject the subject that it is not permitted for.
	Operation string
	Subject   string
}

// Error names the user's missing permission.
func (e *PermissionError) Error() string {
	return fmt.Sprintf("registrynats: %s: the user of the connection has no permission to %s %q", oneLine(e.Tried), e.Operation, oneLine(e.Subject))
}

// Unwrap returns [nats.ErrPermissionViolation].
func (*PermissionError) Unwrap() error { return nats.ErrPermissionViolation }

// Verdict says that a request whose subject is refused was not sent. Where only the reply is refused, it may have been.
func (e *PermissionError) Verdict() verdict.Verdict {
	if e.Operation == "publish" {
		return verdict.Verdict{Class: verdict.ClassNotSent}
	}
	return verdict.Verdict{Class: verdict.ClassTransport}
}

// trying is something that is tried over a connection, and may be refused.
type trying struct {
	nc     *nats.Conn
	what   string
	ours   func(subject string) bool // whether a subject is one of those that it uses
	before error                     // the connection's last error when it began
}

func try(nc *nats.Conn, what string, ours func(subject string) bool) *trying {
	return &trying{nc, what, ours, nc.LastError()}
}

// refused returns the refusal that has come since it began, or nil. One of the inbox of the connection may be older, as
// that is subscribed to once.
func (t *trying) refused() error {
	last := t.nc.LastError()
	if !errors.Is(last, nats.ErrPermissionViolation) {
		return nil
	}
	found := refusals.FindStringSubmatch(last.Error())
	switch {
	case found == nil:
	case found[1] == "Publish" && last != t.before && t.ours(found[2]): //nolint:errorlint // that very error
		return &PermissionError{Tried: t.what, Operation: "publish", Subject: found[2]}
	case found[1] == "Subscription" && (t.ours(found[2]) || strings.HasPrefix(found[2], inboxOf(t.nc)+".")):
		return &PermissionError{Tried: t.what, Operation: "subscribe", Subject: found[2]}
	}
	return nil
}

// watch calls refused, in a goroutine of its own, when something is refused, until end is called.
func (t *trying) watch(refused func(error)) (end func()) {
	var ended atomic.Bool
	var look func(pause time.Duration)
	look = func(pause time.Duration) {
		if ended.Load() {
			return
		}
		if err := t.refused(); err != nil {
			refused(err)
			return
		}
		pause = min(2*pause, longestLook)
		time.AfterFunc(pause, func() { look(pause) })
	}
	first := time.AfterFunc(firstLook, func() { look(firstLook) })
	return func() {
		ended.Store(true)
		first.Stop()
	}
}

// within returns a context that ends early when something is refused, with that as its cause.
func (t *trying) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	end := t.watch(cancel)
	return ctx, func() {
		end()
		cancel(nil)
	}
}

// explained returns the refusal in place of an error that it has caused.
func (t *trying) explained(err error) error {
	if err == nil {
		return nil
	}
	if refused := t.refused(); refused != nil {
		return refused
	}
	return err
}

func inboxOf(nc *nats.Conn) string {
	if nc.Opts.InboxPrefix != "" {
		return nc.Opts.InboxPrefix
	}
	return strings.TrimSuffix(nats.InboxPrefix, ".")
}

// subscribed waits until the server has seen a subscription, and returns its refusal. A connection that is down is not waited
// for.
func subscribed(nc *nats.Conn, what, subject string) error {
	trying := try(nc, what, func(of string) bool { return of == subject })
	if !nc.IsConnected() {
		return nil
	}
	_ = nc.FlushTimeout(confirmed) // what is not known in time is no refusal
	return trying.refused()
}
