package registrynats

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/capreg/registry/verdict"
)

const (
	// A refusal comes apart from any reply, so it is looked for while a reply is awaited: soon for a call, and not before longestLook for an
	// operation of a store, which has its answer by then and needs no timer that wakes the process.
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

	by     *lookout
	cancel context.CancelCauseFunc // of its context; nil without a lookout
}

func try(nc *nats.Conn, what string, ours func(subject string) bool) *trying {
	return &trying{nc: nc, what: what, ours: ours, before: nc.LastError()}
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

// watched ends the look for refusals.
func (t *trying) watched() {
	t.by.mu.Lock()
	defer t.by.mu.Unlock()
	delete(t.by.tried, t)
	if l := t.by; len(l.tried) == 0 && l.first > firstLook { // a timer that is near is left, as the next request needs it again
		l.pause = 0
		l.timer.Stop()
	}
}

// stop ends the look for refusals, and its context.
func (t *trying) stop() {
	t.watched()
	t.cancel(nil)
}

// lookout looks for refusals of what is tried over a connection, by one timer for all: one for each request would cost more than the rest of
// the request does beside its messages.
type lookout struct {
	nc    *nats.Conn
	first time.Duration // from the begin of a try to the first look

	mu    sync.Mutex // guards what follows; neither the connection nor a context is called with it
	tried map[*trying]struct{}
	timer *time.Timer   // nil before the first try
	pause time.Duration // that it was set to; 0 while it is not set
}

// try begins something. Its context ends early when something is refused, with that as its cause.
func (l *lookout) try(ctx context.Context, what string, ours func(subject string) bool) (context.Context, *trying) {
	t := try(l.nc, what, ours)
	t.by = l
	ctx, t.cancel = context.WithCancelCause(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer == nil {
		l.tried = map[*trying]struct{}{}
		l.timer = time.AfterFunc(l.first, l.look)
		l.pause = l.first
	}
	l.tried[t] = struct{}{}
	if l.pause != l.first {
		l.pause = l.first
		l.timer.Reset(l.first)
	}
	return ctx, t
}

// look ends what was refused, and looks again while something is tried.
func (l *lookout) look() {
	refusal := errors.Is(l.nc.LastError(), nats.ErrPermissionViolation)
	l.mu.Lock()
	var tried []*trying
	if refusal {
		tried = slices.Collect(maps.Keys(l.tried))
	}
	if len(l.tried) == 0 {
		l.pause = 0
	} else {
		l.pause = min(2*l.pause, longestLook)
		l.timer.Reset(l.pause)
	}
	l.mu.Unlock()
	for _, t := range tried {
		if err := t.refused(); err != nil {
			t.cancel(err)
		}
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
