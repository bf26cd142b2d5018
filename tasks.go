package registry

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
)

// tasks are the goroutines that a registry has started. Each has a name, so
// that what does not end can be named.
type tasks struct {
	// mu guards the fields below; nothing else is locked while it is held.
	mu      sync.Mutex
	running map[*task]struct{}
	sealed  bool
	done    chan struct{} // closed when sealed and none is running
}

type task struct{ name string }

// start runs f in a goroutine of its own, unless the tasks are sealed.
func (t *tasks) start(name string, f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sealed {
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
	if t.sealed && len(t.running) == 0 {
		close(t.done)
	}
}

// wait lets no further task start and waits for those running. When ctx ends
// first, the error names them.
func (t *tasks) wait(ctx context.Context) error {
	t.mu.Lock()
	t.sealed = true
	t.done = make(chan struct{})
	if len(t.running) == 0 {
		close(t.done)
	}
	t.mu.Unlock()
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
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
	return joined("", append([]error{stuck}, endedBy(ctx)...))
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
