// Package lazy makes an instance with a user's factory at first need.
//
// An [Instance] runs its factory at most once at a time, in a goroutine of the host's, so that no waiting
// caller's context can end it for the others; a factory that failed is run again after a growing delay, at
// the next need. The package owns the run, its context and its product until the product is ready. It never
// holds a lock while user code runs, and never closes a product that was ready.
package lazy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/tasks"
)

// The delay before a factory that failed may run again.
const (
	firstDelay = time.Second
	maxDelay   = time.Minute
)

const maxText = 300 // of the text of a failure

// ErrSlow is the failure of a factory that runs for longer than an attempt may wait for it.
var ErrSlow = errors.New("its factory takes longer than an attempt may")

// Host connects an [Instance] to its owner. Go, After, Ready, NotReady and Retry are called while the instance
// is locked, in the order of the changes: they must neither block nor call the instance.
type Host[T any] interface {
	// Life returns the context that all runs and products end with.
	Life() context.Context
	// Go runs f in a goroutine that the host waits for. It returns false if it starts no more of them.
	Go(f func()) bool
	// After calls f once, when d has elapsed, unless it is stopped before.
	After(d time.Duration, f func()) (stop func() bool)
	// Ready hands over a product.
	Ready(product T)
	// NotReady reports that there is no product, and none to wait for: a run failed, or is slow.
	NotReady(f Failure)
	// Retry reports that the next need runs the factory again.
	Retry()
	// Discard closes a product that came after Stop. It is user code and called without a lock.
	Discard(product T) error
}

// Failure tells why there is no product. The zero value is none.
type Failure struct {
	// Err is the error of the factory, or [ErrSlow].
	Err error
	// Text is its text in one line.
	Text string
	// Until is the time from which the factory may run again; zero if it is still running.
	Until time.Time
}

// state is the state of an [Instance].
//
//	state     event                next      effect
//	empty     Get                  making    run begins
//	empty     Get, no goroutine    stopped   none
//	empty     Stop, Release        stopped   none
//	making    factory succeeds     made      Ready; waiters wake
//	making    factory fails        waiting   NotReady; context ends; waiters wake; delay begins
//	making    waiter times out     making    NotReady, as slow
//	making    Stop, Release        stopped   context ends; waiters wake
//	waiting   delay is over        empty     Retry
//	waiting   Stop, Release        stopped   delay ends
//	made      Stop                 made      none: the product goes on
//	made      Release              stopped   context of the product ends
//	stopped   factory returns      stopped   Discard of a product
//
// Everything else leaves the state as it is.
type state uint8

const (
	empty state = iota
	making
	waiting
	made
	stopped
)

// Instance is a product that a factory makes at first need. Use [New] to create one; of none, nil, there is nothing
// to get, stop or release. All methods are safe for concurrent use.
type Instance[T any] struct {
	host Host[T]

	// mu guards the fields below. No user code runs while it is held; the host's locks come after it.
	mu        sync.Mutex
	state     state
	factory   func(context.Context) (T, error) // nil once it never runs again
	product   T                                // in state made
	run       *run                             // the last one; nil before the first
	delays    *backoff.ExponentialBackOff      // made at the first failure
	stopDelay func() bool                      // in state waiting
	late      time.Time                        // when the run is given up; set where Stop has ended it
	discarded error                            // of Discard
}

// run is one run of the factory.
type run struct {
	cancel context.CancelCauseFunc // of the context of the run, and of its product
	woken  chan struct{}           // closed when waiters have nothing more to wait for
	ended  chan struct{}           // closed when nothing of the run goes on
	told   bool                    // all that the factory has come to; guarded by the mutex of the instance
}

// New returns an empty instance. The factory is user code: it may panic, exit its goroutine and ignore its
// context. Its error, and not a nil product, says that it made nothing.
func New[T any](host Host[T], factory func(context.Context) (T, error)) *Instance[T] {
	return &Instance[T]{host: host, factory: factory}
}

// Get returns the product, running the factory if it is due. It waits for one run at most, and within ctx; ok
// is false if there is no product then. When ctx ends by [fault.ErrAttemptTimeout], the run counts as slow
// from then on.
func (i *Instance[T]) Get(ctx context.Context) (product T, ok bool) {
	if i == nil {
		return product, false
	}
	if current := i.ensureRun(); current != nil {
		select {
		case <-current.woken:
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), fault.ErrAttemptTimeout) {
				i.reportSlow(current)
			}
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.product, i.state == made
}

// Start runs the factory if it is due, and does not wait for it.
func (i *Instance[T]) Start() { i.ensureRun() }

// ensureRun returns the run in progress, which it begins if the factory is due; nil when there is none to
// wait for.
func (i *Instance[T]) ensureRun() *run {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.state == empty {
		i.beginRun()
	}
	if i.state != making {
		return nil
	}
	return i.run
}

// beginRun moves from empty to making, or to stopped. Caller holds mu.
func (i *Instance[T]) beginRun() {
	ctx, cancel := context.WithCancelCause(i.host.Life())
	next := &run{cancel: cancel, woken: make(chan struct{}), ended: make(chan struct{})}
	factory := i.factory
	i.state, i.run = making, next
	if !i.host.Go(func() { i.runFactory(ctx, next, factory) }) {
		i.enterFinal(stopped)
		cancel(fault.ErrClosed)
		close(next.ended)
	}
}

// enterFinal moves to a state in which the factory never runs again, and lets go of what it refers to. Caller
// holds mu.
func (i *Instance[T]) enterFinal(s state) {
	i.state, i.factory = s, nil
}

func (i *Instance[T]) runFactory(ctx context.Context, current *run, factory func(context.Context) (T, error)) {
	defer close(current.ended)
	var product T
	fault.RunThen(func() (err error) {
		product, err = factory(ctx)
		return err
	}, func(err error) {
		if err != nil {
			i.runFailed(current, err)
			return
		}
		i.runSucceeded(current, product)
	})
}

// runSucceeded moves from making to made; what comes after Stop it discards.
func (i *Instance[T]) runSucceeded(current *run, product T) {
	if i.publish(current, product) {
		return
	}
	fault.RunThen(func() error { return i.host.Discard(product) }, func(err error) {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.discarded = err
	})
}

// publish makes the product ready, or reports false if it came too late.
func (i *Instance[T]) publish(current *run, product T) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.state == stopped {
		return false
	}
	i.enterFinal(made)
	i.product, current.told = product, true
	i.host.Ready(product)
	close(current.woken) // after Ready: waiters see what it did
	return true
}

// runFailed moves from making to waiting, unless it comes after Stop.
func (i *Instance[T]) runFailed(current *run, err error) {
	text := oneline.Cut(fault.Text(err), maxText) // outside the lock: the error is the user's
	i.mu.Lock()
	defer i.mu.Unlock()
	current.told = true
	if i.state == stopped {
		return
	}
	current.cancel(nil)
	if i.delays == nil {
		i.delays = limit.NewDelays(firstDelay, maxDelay, limit.HalfJitter)
	}
	delay := i.delays.NextBackOff()
	i.state = waiting
	i.host.NotReady(Failure{Err: err, Text: text, Until: time.Now().Add(delay)})
	i.stopDelay = i.host.After(delay, i.endDelay)
	close(current.woken) // after NotReady: waiters see what it did
}

// endDelay moves from waiting to empty.
func (i *Instance[T]) endDelay() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.state == waiting {
		i.state = empty
		i.host.Retry()
	}
}

// reportSlow keeps further callers from waiting for a run that has cost one of them all its time. The end of
// the run lets them in again.
func (i *Instance[T]) reportSlow(current *run) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.state == making && i.run == current {
		i.host.NotReady(Failure{Err: ErrSlow, Text: ErrSlow.Error()})
	}
}

// Stop ends a run in progress, for which no caller waits any longer, with the cause, and lets no other begin. A
// product that is ready goes on.
func (i *Instance[T]) Stop(cause error) {
	if i == nil {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.stopLocked(cause)
}

// stopLocked is Stop for callers that hold mu.
func (i *Instance[T]) stopLocked(cause error) {
	switch i.state {
	case empty:
		i.enterFinal(stopped)
	case waiting:
		i.enterFinal(stopped)
		i.stopDelay()
	case making:
		i.enterFinal(stopped)
		i.run.cancel(cause)
		close(i.run.woken)
		i.late = time.Now().Add(tasks.StuckAfter)
	case made, stopped:
	}
}

// Release does what Stop does, and ends the context of a product that is ready, of which it keeps no
// reference. The channel is closed when nothing of the last run goes on; it is nil if there was none.
func (i *Instance[T]) Release(cause error) (ended <-chan struct{}) {
	if i == nil {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.stopLocked(cause)
	if i.state == made {
		var none T
		i.enterFinal(stopped)
		i.product = none
		i.run.cancel(cause)
	}
	if i.run == nil {
		return nil
	}
	return i.run.ended
}

// AwaitEnd waits, after Release, until nothing of the last run goes on. A run that ignores the end of its context is
// given up [tasks.StuckAfter] after that; what it makes is discarded all the same.
func (i *Instance[T]) AwaitEnd() {
	i.mu.Lock()
	last, late := i.run, i.late
	i.mu.Unlock()
	if last == nil {
		return
	}
	select {
	case <-last.ended:
	case <-time.After(time.Until(late)):
	}
}

// EndError returns what the wait has come to: an error that matches [fault.ErrStuck] while the last run goes on, then
// that of Discard for a product that came too late.
func (i *Instance[T]) EndError() error {
	if i == nil {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.run != nil && !i.run.told && !tasks.IsClosed(i.run.ended) {
		return fmt.Errorf("its factory: %w", fault.ErrStuck)
	}
	return i.discarded
}
