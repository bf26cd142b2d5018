package registry

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

// tasks are the goroutines that a registry has started. Each has a name, so
// that what does not end can be named.
type tasks struct {
	// mu guards the fields below; nothing else is locked while it is held.
	mu      sync.Mutex
	running map[*task]struct{}
	sealed  bool
	done    chan struct{} // closed when none is running; nil while nobody waits
}

type task struct{ name string }

// start runs f in a goroutine of its own, unless the tasks are sealed.
func (t *tasks) start(name string, f func()) bool { return t.launch(name, f, false) }

// startLast runs f in a goroutine of its own even when the tasks are sealed: for
// what ends something, and could not before.
func (t *tasks) startLast(name string, f func()) { t.launch(name, f, true) }

func (t *tasks) launch(name string, f func(), last bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sealed && !last {
		return false
	}
	started := &task{name: name}
	if t.running == nil {
		t.running = make(map[*task]struct{})
	}
	t.running[started] = struct{}{}
	go func() {
		defer t.end(started) // deferred: f may exit its goroutine
		f()
	}()
	return true
}

func (t *tasks) end(ended *task) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.running, ended)
	if t.done != nil && len(t.running) == 0 {
		close(t.done)
		t.done = nil
	}
}

// wait lets no further task start and waits for those running. When its time is
// over first, the error names them.
func (t *tasks) wait(p patience) error {
	t.mu.Lock()
	t.sealed = true
	if len(t.running) == 0 {
		t.mu.Unlock()
		return nil
	}
	if t.done == nil {
		t.done = make(chan struct{})
	}
	done := t.done
	t.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-p.over:
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.running) == 0 {
		return nil
	}
	names := make([]string, 0, len(t.running))
	for stuck := range t.running {
		names = append(names, stuck.name)
	}
	slices.Sort(names)
	stuck := fmt.Errorf("%s: %w", strings.Join(names, ", "), ErrStuck)
	return joined("", append([]error{stuck}, endedBy(p.ctx)...))
}

// grace is how long code may take to end after its context told it to, before
// it is called stuck.
const grace = time.Second

// patience is a wait that outlasts its context by the grace.
type patience struct {
	ctx  context.Context //nolint:containedctx // what the user gave for the wait
	over <-chan struct{}
	stop func()
}

// again returns a wait for one more grace.
func (p patience) again() patience {
	over := make(chan struct{})
	end := time.AfterFunc(grace, func() { close(over) })
	return patience{ctx: p.ctx, over: over, stop: func() { end.Stop() }}
}

func outlast(ctx context.Context) patience {
	over := make(chan struct{})
	var end *time.Timer
	started := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		end = time.AfterFunc(grace, func() { close(over) })
		close(started)
	})
	return patience{ctx: ctx, over: over, stop: func() {
		if !stop() {
			<-started
			end.Stop()
		}
	}}
}

// guard runs user code that returns an error, and turns a panic or the exit of
// its goroutine into one. After an exit the goroutine goes on exiting.
func guard(f func() error) (err error) {
	returned := false
	defer func() {
		if !returned {
			err = &PanicError{Value: recover(), Stack: debug.Stack()}
		}
	}()
	err = f()
	returned = true
	return err
}
