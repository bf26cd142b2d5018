package request

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Limited is a context with a deadline. A timer for that starts when Done is first asked for: what works for a request and
// keeps its deadline by a clock of its own takes [Unlimited], and then there is none. Use [Limited.Init] to make one. It is safe
// for concurrent use.
type Limited struct {
	context.Context // without the deadline

	deadline time.Time
	over     atomic.Bool // [Limited.End] was called
	armed    atomic.Pointer[armedLimit]

	// mu guards the making of armed, while which methods of the context without the deadline are called.
	mu sync.Mutex
}

// armedLimit is the context of package context that stands behind one whose end is waited for.
type armedLimit struct {
	context.Context

	cancel context.CancelFunc
}

// Init makes the zero Limited one that ends with ctx, and at the deadline.
func (l *Limited) Init(ctx context.Context, deadline time.Time) {
	l.Context, l.deadline = ctx, deadline
	if sooner, has := ctx.Deadline(); has && sooner.Before(l.deadline) {
		l.deadline = sooner
	}
}

// End ends the context: its work is done.
func (l *Limited) End() {
	l.mu.Lock()
	l.over.Store(true)
	armed := l.armed.Load()
	l.mu.Unlock()
	if armed != nil {
		armed.cancel()
	}
}

// Deadline returns the deadline.
func (l *Limited) Deadline() (time.Time, bool) { return l.deadline, true }

// Done returns a channel that is closed at the end.
func (l *Limited) Done() <-chan struct{} { return l.arm().Done() }

// Err returns why the context has ended; nil: it has not.
func (l *Limited) Err() error {
	if armed := l.armed.Load(); armed != nil {
		return armed.Err()
	}
	if err := l.Context.Err(); err != nil {
		return err
	}
	if l.over.Load() || !time.Now().Before(l.deadline) {
		return l.arm().Err() // for [context.Cause], too
	}
	return nil
}

// Value returns the values of the context without the deadline. Contexts that are derived find the armed one.
func (l *Limited) Value(key any) any {
	if armed := l.armed.Load(); armed != nil {
		return armed.Value(key)
	}
	return l.Context.Value(key)
}

func (l *Limited) arm() *armedLimit {
	l.mu.Lock()
	defer l.mu.Unlock()
	if armed := l.armed.Load(); armed != nil {
		return armed
	}
	armed := &armedLimit{}
	armed.Context, armed.cancel = context.WithDeadline(l.Context, l.deadline)
	if l.over.Load() {
		armed.cancel()
	}
	l.armed.Store(armed)
	return armed
}

// Unlimited returns what a Limited is without its deadline, and that deadline. Any other context is returned as it is, with the
// zero time.
func Unlimited(ctx context.Context) (context.Context, time.Time) {
	if l, ok := ctx.(*Limited); ok {
		return l.Context, l.deadline
	}
	return ctx, time.Time{}
}
