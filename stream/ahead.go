package stream

import (
	"errors"
	"runtime"
	"time"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/verdict"
)

// longestHold bounds how long the first item is held, where it is not known whether it says anything.
const longestHold = 100 * time.Millisecond

// ahead is a read of the second item, which began before there was a reader.
//
//	reading ── the read ends ──▶ done       Open looks at its result, and may fail over
//	reading ── longestHold ──▶ handed over ── the read ends ──▶ the reader gets its result
type ahead[I any] struct {
	done   chan struct{} // closed when the fields below are set
	handed bool          // to the reader; guarded by the mu of the stream

	item   I
	err    error
	more   bool
	failed *verdict.PanicError // the read panicked, or ended its goroutine
}

// result returns the result of the read, once there is one. What the provider's code panicked with goes on here.
func (n *ahead[I]) result() (item I, err error, more bool) {
	<-n.done
	switch {
	case n.failed == nil:
		return n.item, n.err, n.more
	case n.failed.Value == nil:
		runtime.Goexit()
	}
	panic(n.failed.Value)
}

// readAhead reads the second item, for a while: an error that comes before it still fails over.
func (a *attempt[T, I]) readAhead(s *Stream[I]) error {
	next := &ahead[I]{done: make(chan struct{})}
	s.reading = true
	go fault.RunThen(func() error {
		next.item, next.err, next.more = a.pull(a.options.StallTimeout, ErrStalled)
		return nil
	}, func(err error) {
		_ = errors.As(err, &next.failed)
		a.endAhead(s, next)
	})
	timer := time.NewTimer(longestHold)
	defer timer.Stop()
	select {
	case <-next.done:
	case <-timer.C:
	}
	if s.handOver(next) {
		return nil
	}
	item, err, more := next.result()
	if more {
		s.buffered = append(s.buffered, item)
	}
	return err
}

// handOver leaves the result of the read to the reader, unless it is there.
func (s *Stream[I]) handOver(next *ahead[I]) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-next.done:
	default:
		next.handed, s.second = true, next
	}
	return next.handed
}

// endAhead ends the read. Without a reader yet, it does what a read of its own would do.
func (a *attempt[T, I]) endAhead(s *Stream[I], next *ahead[I]) {
	s.mu.Lock()
	closed, release := s.left() // before Open or the reader goes on, which may read at once
	handed, unread := next.handed, s.second == next
	close(next.done)
	s.mu.Unlock()
	s.afterRead(closed, release)
	switch {
	case !handed: // Open goes on
		return
	case !unread: // the reader judges it
	case next.err != nil:
		s.finish(next.err)
	case !next.more && next.failed == nil:
		s.finish(nil)
	}
	if a.ctx.Err() != nil {
		a.releaseBetweenReads(s)
	}
}

// releaseBetweenReads ends the stream after its context has ended.
func (a *attempt[T, I]) releaseBetweenReads(s *Stream[I]) {
	if a.whole.Load() {
		s.releaseBetweenReads(nil)
	} else {
		s.releaseBetweenReads(a.caused(a.ctx.Err()))
	}
}
