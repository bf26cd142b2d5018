package registryhttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/verdict"
)

const (
	drainTimeout = 10 * time.Millisecond
	drainMost    = 64 << 10
)

var (
	errAbandoned = verdict.Ignore(errors.New("registryhttp: closed before its end"))
	errPanicked  = verdict.As(errors.New("registryhttp: the body has panicked"), verdict.Verdict{Class: verdict.ClassPanic})
)

// Read reads the body of the answer. It is for one reader.
func (x *exchange) Read(p []byte) (n int, err error) {
	if !x.enter() {
		return 0, http.ErrBodyReadAfterClose
	}
	returned := false
	defer func() {
		if !returned {
			x.finish(errPanicked)
		}
		x.leave()
	}()
	n, err = x.read(p)
	returned = true
	return n, err
}

func (x *exchange) read(p []byte) (n int, err error) {
	if len(x.first) > 0 {
		n = copy(p, x.first)
		if x.first = x.first[n:]; len(x.first) > 0 {
			return n, nil
		}
		x.freeBuffer()
		if isEnd(x.readErr) {
			return n, io.EOF
		}
		return n, nil
	}
	if x.readErr != nil {
		return 0, x.failed(x.readErr)
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err = x.body.Read(p)
	if x.empty++; n > 0 || err != nil {
		x.empty = 0
	} else if x.empty >= mostEmptyReads {
		err = io.ErrNoProgress
	}
	if err != nil {
		err = x.failed(err)
	}
	return n, err
}

// failed reports the end of the body, and returns what its reader is told.
func (x *exchange) failed(err error) error {
	if isEnd(err) {
		x.readErr = io.EOF
		x.finish(nil)
		return io.EOF
	}
	if x.told == nil {
		err = x.caused(err)
		x.readErr, x.told = err, fmt.Errorf("registryhttp: answer of provider %q: %w", x.lease.Provider(), err)
		x.finish(err)
	}
	return x.told
}

// Close ends the body. A body that was not read to its end, and has more than a moment's worth left, says nothing
// about the provider. It always returns nil, and may be called any number of times, also while another goroutine
// reads.
func (x *exchange) Close() error {
	x.mu.Lock()
	first, reading, over := !x.closed, x.reading, x.over
	x.closed = true
	drain := first && !reading && !over
	x.reading = reading || drain
	x.mu.Unlock()
	if !first {
		return nil
	}
	outcome := errPanicked
	defer func() {
		if !reading {
			defer x.freeBuffer()
		}
		if !over {
			x.finish(outcome)
		}
		_ = x.body.Close()
	}()
	if drain {
		x.drain()
	}
	outcome = errAbandoned
	return nil
}

// drain reads what is left if that is little and there already: a reader that knows the end mark stops before the
// end, which the outcome is, and which lets the connection be used again.
func (x *exchange) drain() {
	if x.readErr != nil || x.ctx.Err() != nil {
		return
	}
	if x.buffer == nil {
		x.buffer, _ = firstBuffers.Get().(*[firstSize]byte)
	}
	x.mu.Lock()
	x.allow(x.now(), drainTimeout)
	x.mu.Unlock()
	for most := drainMost; most > 0; {
		n, err := x.body.Read(x.buffer[:])
		if isEnd(err) {
			x.finish(nil)
		}
		if most -= max(n, 1); err != nil {
			return
		}
	}
}

// enter begins a read, of which the time is limited where it goes on to the provider's body.
func (x *exchange) enter() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed || x.reading {
		return false
	}
	x.reading = true
	if x.stall > 0 && len(x.first) == 0 && x.readErr == nil {
		x.allow(x.now(), x.stall)
	}
	return true
}

// leave ends a read, and the limit of its time. The context may have ended while it went on.
func (x *exchange) leave() {
	x.mu.Lock()
	x.reading = false
	x.allowAll()
	ended := x.ended
	x.mu.Unlock()
	if ended {
		x.contextEnded()
	}
}

// contextEnded reports the outcome when the context of a committed answer has ended, unless something is reading, which then
// does it at its end: there may never be another read.
func (x *exchange) contextEnded() {
	x.mu.Lock()
	x.ended = true
	idle := !x.reading && !x.over && !x.detached
	x.mu.Unlock()
	if idle {
		x.finish(x.caused(x.cause()))
	}
}

// finish reports the outcome, once, and releases the context.
func (x *exchange) finish(err error) { x.finishRead(err, true) }

// finishRead is finish, which ends a read as well unless goesOn.
func (x *exchange) finishRead(err error, goesOn bool) {
	x.mu.Lock()
	over, detached, unwatch := x.over, x.detached, x.unwatch
	x.over, x.reading = true, x.reading && goesOn
	x.stopClock()
	x.mu.Unlock()
	if over {
		return
	}
	if unwatch != nil {
		unwatch()
	}
	x.stopFollowing()
	if !detached {
		x.lease.Done(err)
	}
	x.end(context.Canceled)
}

// stopFollowing keeps the end of the lease from ending the context.
func (x *exchange) stopFollowing() {
	x.removal.Stop()
	if x.unfollow != nil {
		x.unfollow()
	}
}

// stopClock stops the timer. It is called with mu held.
func (x *exchange) stopClock() {
	x.timer.Stop()
	x.rings, x.due = never, never
}

// drop releases an attempt that has no answer. Its lease is yet to be reported.
func (x *exchange) drop() {
	x.mu.Lock()
	x.over, x.closed = true, true
	x.stopClock()
	x.mu.Unlock()
	x.stopFollowing()
	if x.end != nil {
		x.end(context.Canceled)
	}
	if x.body != nil {
		_ = fault.Run(x.body.Close) // its panic would keep the lease from being reported
	}
	x.freeBuffer()
}

// detach keeps the body of a refusal from ending with the lease, which is about to be reported: it ends with
// the context of the client.
func (x *exchange) detach() {
	x.mu.Lock()
	x.detached = true
	x.mu.Unlock()
	x.stopFollowing()
	x.leave()
}

// discard closes a refusal that is not returned.
func (x *exchange) discard() {
	if x.response != nil {
		_ = fault.Run(x.Close) // its panic would keep the next lease from being reported
	}
}

func (x *exchange) freeBuffer() {
	if x.buffer != nil {
		firstBuffers.Put(x.buffer)
		x.buffer, x.first = nil, nil
	}
}
