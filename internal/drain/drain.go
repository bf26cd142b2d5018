// Package drain ends a provider that nothing picks any more: it waits for the calls in flight, and then gives up the
// instance.
//
// A [Drain] owns the contexts of the calls in flight, the deadline after which it cancels them, and the goroutine
// that closes the instance. It never picks a provider, decides that one leaves, or runs user code with a lock held.
package drain

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/internal/tasks"
	"github.com/capreg/registry/status"
)

// Host is the provider that is drained.
type Host interface {
	// Quiesce ends what the provider does by itself. It may run more than once.
	Quiesce()
	// InFlight returns the number of calls in flight. Once the provider has left, no call begins without being
	// counted before, so zero is final.
	InFlight() uint64
	// Drained notes that the last call has ended, and reports whether the release has to wait until it is asked for.
	// It is called once, with the drain locked: it must not call the drain.
	Drained() (holdRelease bool)
	// GiveUp lets go of the instance: nothing refers to it afterwards. It returns what remains to be done, and whether
	// that blocks; then it may be user code. It is called once.
	GiveUp() (finish func() error, blocks bool)
	// Unfinished returns an error while something goes on that the remainder has given up, or when that has failed.
	Unfinished() error
	// After calls f when d has elapsed. It is called with the drain locked.
	After(d time.Duration, f func()) *schedule.Timer
	// Go runs f in a goroutine that the host waits for.
	Go(name string, f func())
}

// state is the state of a [Drain].
//
//	state      event                          next       effect
//	busy       CheckIdle, none in flight      idle       Host.Drained; Idle closes; the deadline stops
//	busy       Release, ReleaseWhenIdle       busy       the release no longer waits to be asked for
//	idle       release not held, or wanted    releasing  Host.GiveUp
//	idle       Release, ReleaseWhenIdle       releasing  Host.GiveUp
//	releasing  nothing remains to be done     released   Released closes
//
// Everything else leaves the state as it is. A provider is busy from its registration on: its host closes its gate,
// and every end of a call after that is a CheckIdle.
type state uint8

const (
	busy state = iota
	idle
	releasing
	released
)

// Drain is the end of one provider. It is a field of its provider: use [Drain.Init] before anything else, and do not
// copy it. All other methods are safe for concurrent use, and called without the lock of the registry.
type Drain struct {
	host     Host
	id       status.ProviderID // of the provider
	calls    attemptctx.Set    // contexts of the calls in flight
	idle     chan struct{}
	released chan struct{}
	err      error // of the release; readable when released is closed

	// mu guards the fields below. No user code runs while it is held; the lock of the registry comes after it.
	mu            sync.Mutex
	state         state
	releaseWanted bool            // in state busy: idle is followed by releasing, even if the host holds the release
	deadline      *schedule.Timer // cancels the calls in flight; nil: none
}

// Init prepares the drain of the provider.
func (d *Drain) Init(host Host, id status.ProviderID) {
	d.host, d.id = host, id
	d.idle, d.released = make(chan struct{}), make(chan struct{})
}

// Calls returns the contexts of the calls in flight.
func (d *Drain) Calls() *attemptctx.Set { return &d.calls }

// Idle returns a channel that is closed when the provider has left and its last call has ended.
func (d *Drain) Idle() <-chan struct{} { return d.idle }

// Released returns a channel that is closed when nothing of the provider goes on.
func (d *Drain) Released() <-chan struct{} { return d.released }

// Start drains a provider that has left. The calls in flight go on.
func (d *Drain) Start() {
	d.host.Quiesce()
	d.CheckIdle()
}

// StartWithin is [Drain.Start], and cancels the contexts of calls that are still in flight after the given time.
func (d *Drain) StartWithin(limit time.Duration) {
	d.host.Quiesce()
	d.mu.Lock()
	if d.state == busy {
		d.deadline = d.host.After(limit, d.CancelCalls)
	}
	d.mu.Unlock()
	d.CheckIdle()
}

// CancelCalls cancels the contexts of the calls in flight.
func (d *Drain) CancelCalls() {
	d.calls.Cancel(fault.Join(fmt.Sprintf("registry: provider %q: ", d.id), []error{fault.ErrClosed}))
}

// MoveCallsOn ends, after the given time and if that is due then, the contexts of those calls in flight that can go on
// elsewhere. The provider stays.
func (d *Drain) MoveCallsOn(after time.Duration, due func() bool) {
	d.host.After(after, func() {
		if due() {
			d.calls.MoveOn(fault.Join(fmt.Sprintf("registry: provider %q: ", d.id), []error{fault.ErrUnhealthy}))
		}
	})
}

// CheckIdle moves on to idle when no call is in flight. It is called for a provider that has left, at the end of each
// call after it was counted. As a call looks at the gate after it was counted, and the gate was closed before, the last
// one is not missed.
func (d *Drain) CheckIdle() {
	if d.host.InFlight() == 0 && d.becomeIdle() {
		d.release()
	}
}

// becomeIdle moves from busy to idle, and reports whether the release follows.
func (d *Drain) becomeIdle() (releases bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state != busy {
		return false
	}
	held := d.host.Drained()
	d.state = idle
	if d.deadline != nil {
		d.deadline.Stop()
	}
	close(d.idle)
	return !held || d.releaseWanted
}

// ReleaseWhenIdle releases the instance now, or at the end of the last call in flight.
func (d *Drain) ReleaseWhenIdle() {
	d.mu.Lock()
	d.releaseWanted = true
	d.mu.Unlock()
	d.release()
}

// release moves from idle to releasing, and on to released unless something remains to be done that blocks.
func (d *Drain) release() {
	if !d.advance(idle, releasing) {
		return
	}
	finish, blocks := d.host.GiveUp()
	if !blocks {
		d.finishRelease(finish())
		return
	}
	d.host.Go(fmt.Sprintf("closing of provider %q", d.id), func() { fault.RunThen(finish, d.finishRelease) })
}

// finishRelease moves on to released, with the error of what remained to be done.
func (d *Drain) finishRelease(err error) {
	d.err = err
	d.advance(releasing, released)
	close(d.released)
}

// advance moves from one state to the next; false in another state.
func (d *Drain) advance(from, to state) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state != from {
		return false
	}
	d.state = to
	return true
}

// AwaitIdle waits until the last call has ended, within ctx.
func (d *Drain) AwaitIdle(ctx context.Context) {
	select {
	case <-d.idle:
	case <-ctx.Done():
	}
}

// Release releases the instance when the provider is idle, or when the limit is over, and returns what
// [Drain.AwaitReleased] does.
func (d *Drain) Release(limit tasks.GraceWait) error {
	select {
	case <-d.idle:
	case <-limit.Over:
	}
	d.ReleaseWhenIdle()
	return d.AwaitReleased(limit)
}

// AwaitReleased returns the error of the release. If the limit is over first, the error names what the release waits
// for and matches [fault.ErrStuck] and the context's error.
func (d *Drain) AwaitReleased(limit tasks.GraceWait) error {
	select {
	case <-d.released: // also if the limit is over
		return d.result()
	default:
	}
	select {
	case <-d.released:
		return d.result()
	case <-limit.Over:
	}
	what := "closing its instance"
	if calls := d.host.InFlight(); calls > 0 {
		what = oneline.Plural(calls, "call") + " in flight"
	}
	stuck := fmt.Errorf("provider %q: %w: %s", d.id, fault.ErrStuck, what)
	return fault.Join("", append([]error{stuck}, fault.OfContext(limit.Context)...))
}

// result returns the error of a release that is over.
func (d *Drain) result() error {
	err := d.err
	if err == nil {
		err = d.host.Unfinished()
	}
	if err == nil {
		return nil
	}
	return fault.Wrap(fmt.Sprintf("closing provider %q: ", d.id), err)
}

// AwaitAll waits until all of them are released, cancels the contexts of their calls in flight when ctx ends, and
// returns what [Drain.AwaitReleased] does for each, after a grace period.
func AwaitAll(ctx context.Context, all []*Drain) error {
	var limit tasks.GraceWait
	if slices.ContainsFunc(all, func(d *Drain) bool { return !tasks.IsClosed(d.released) }) {
		limit = tasks.WithGrace(ctx)
		defer limit.Stop()
	}
	for _, d := range all {
		select {
		case <-d.released:
		case <-ctx.Done():
			d.CancelCalls()
		}
	}
	var failures []error
	for _, d := range all {
		if err := d.AwaitReleased(limit); err != nil {
			failures = append(failures, err)
		}
	}
	if len(failures) > 0 {
		return fault.Join("registry: ", failures)
	}
	return nil
}

// FinishAll starts all of them, waits for the calls in flight until ctx ends, and then cancels these.
func FinishAll(ctx context.Context, all []*Drain) {
	for _, d := range all {
		d.Start()
	}
	for _, d := range all {
		d.AwaitIdle(ctx)
	}
	for _, d := range all {
		d.CancelCalls() // without effect where nothing is in flight
	}
}

// ReleaseAll releases the instances one after another. When one of them takes too long, all others are released at
// once and get a grace period of their own.
func ReleaseAll(all []*Drain, limit tasks.GraceWait) (failures []error) {
	late := false
	for i, d := range all {
		if !late && limit.IsOver() {
			late = true
			for _, other := range all[i:] {
				other.ReleaseWhenIdle()
			}
			limit = limit.Again()
			defer limit.Stop()
		}
		if err := d.Release(limit); err != nil {
			failures = append(failures, err)
		}
	}
	return failures
}
