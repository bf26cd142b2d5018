// Package tasks starts goroutines that have a name and an owner that waits for them.
//
// A [Group] owns its goroutines until they return, and can say which of them did not. It
// never ends one: that is what contexts are for. [Grace] is how much longer than its
// context a well-behaved function may take.
package tasks

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/capreg/registry/internal/fault"
)

// Group is a set of running goroutines. The zero value is empty and ready to use; it must
// not be copied. All methods are safe for concurrent use.
type Group struct {
	// mu guards the fields below; nothing else is locked while it is held.
	mu      sync.Mutex
	running map[*task]struct{}
	sealed  bool
	done    chan struct{} // closed when none is running; nil while nothing waits
}

type task struct{ name string }

// Start runs f in a goroutine of its own. It returns false, and starts nothing, once
// [Group.Wait] was called.
func (g *Group) Start(name string, f func()) bool { return g.launch(name, f, false) }

// StartLast runs f in a goroutine of its own even after [Group.Wait] was called: for what
// ends something, and could not before.
func (g *Group) StartLast(name string, f func()) { g.launch(name, f, true) }

func (g *Group) launch(name string, f func(), last bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sealed && !last {
		return false
	}
	started := &task{name: name}
	if g.running == nil {
		g.running = make(map[*task]struct{})
	}
	g.running[started] = struct{}{}
	go func() {
		defer g.remove(started) // deferred: f may exit its goroutine
		f()
	}()
	return true
}

func (g *Group) remove(ended *task) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.running, ended)
	if g.done != nil && len(g.running) == 0 {
		close(g.done)
		g.done = nil
	}
}

// Wait lets no further goroutine start and waits for those running. When its time is over
// first, the error names them and matches [fault.ErrStuck] and the context's error.
func (g *Group) Wait(limit GraceWait) error { return g.wait(limit, nil) }

// WaitAtMost is [Group.Wait] for goroutines whose contexts have all ended: it waits for d at most, whatever the limit.
func (g *Group) WaitAtMost(d time.Duration, limit GraceWait) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	return g.wait(limit, timer.C)
}

func (g *Group) wait(limit GraceWait, timeout <-chan time.Time) error {
	g.mu.Lock()
	g.sealed = true
	if len(g.running) == 0 {
		g.mu.Unlock()
		return nil
	}
	if g.done == nil {
		g.done = make(chan struct{})
	}
	done := g.done
	g.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-limit.Over:
	case <-timeout:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.running) == 0 {
		return nil
	}
	names := make([]string, 0, len(g.running))
	for stuck := range g.running {
		names = append(names, stuck.name)
	}
	slices.Sort(names)
	stuck := fmt.Errorf("%s: %w", strings.Join(names, ", "), fault.ErrStuck)
	if limit.Context.Err() == nil {
		return stuck
	}
	return fault.Join("", append([]error{stuck}, fault.OfContext(limit.Context)...))
}

// StuckAfter is the time after which code that ignores the end of its context is given up, whatever the time of those
// that wait for it.
const StuckAfter = 10 * time.Second

// Grace is the time that code has to end after its context has ended, before it counts as stuck.
const Grace = time.Second

// GraceWait is a wait that goes on for a [Grace] after its context has ended. Use [WithGrace] to
// create one.
type GraceWait struct {
	// Context is the caller's context for the wait.
	Context context.Context //nolint:containedctx // lives as long as the wait
	// Over is closed when the wait is over.
	Over <-chan struct{}
	// Stop frees the timers of the wait.
	Stop func()
}

// WithGrace returns a wait that is over a [Grace] after ctx has ended.
func WithGrace(ctx context.Context) GraceWait {
	over := make(chan struct{})
	var end *time.Timer
	started := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		end = time.AfterFunc(Grace, func() { close(over) })
		close(started)
	})
	return GraceWait{Context: ctx, Over: over, Stop: func() {
		if !stop() {
			<-started
			end.Stop()
		}
	}}
}

// IsOver reports whether the wait is over.
func (w GraceWait) IsOver() bool { return IsClosed(w.Over) }

// IsClosed reports whether the channel is closed.
func IsClosed(ended <-chan struct{}) bool {
	select {
	case <-ended:
		return true
	default:
		return false
	}
}

// Again returns a wait for one more [Grace], from now on.
func (w GraceWait) Again() GraceWait {
	over := make(chan struct{})
	end := time.AfterFunc(Grace, func() { close(over) })
	return GraceWait{Context: w.Context, Over: over, Stop: func() { end.Stop() }}
}
