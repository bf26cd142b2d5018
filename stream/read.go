package stream

import (
	"fmt"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/verdict"
)

// next returns the next item. more is false at a complete end.
func (s *Stream[I]) next() (item I, err error, more bool) {
	item, second, ok := s.held()
	switch {
	case ok:
		return item, nil, true
	case second != nil:
		return s.judge(second.result())
	case !s.enter():
		return item, ErrClosed, false
	}
	defer s.leave()
	if s.pull == nil {
		return item, nil, false
	}
	if over, err := s.isOver(); over {
		if err != nil {
			err = s.named(err)
		}
		return item, err, false
	}
	return s.judge(s.pull())
}

// held returns the next item that was read already, or the read that has begun.
func (s *Stream[I]) held() (item I, second *ahead[I], ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return item, nil, false
	case len(s.buffered) > 0:
		item, s.buffered = s.buffered[0], s.buffered[1:]
		return item, nil, true
	}
	second, s.second = s.second, nil
	return item, second, false
}

// judge returns the result of a read, and reports an end.
func (s *Stream[I]) judge(item I, err error, more bool) (I, error, bool) {
	var none I
	switch {
	case s.isClosed():
		return none, ErrClosed, false
	case err != nil:
		s.finish(err)
		return none, s.named(err), false
	case !more:
		s.finish(nil)
	}
	return item, nil, more
}

// named adds the name of the provider to the error.
func (s *Stream[I]) named(err error) error {
	return fmt.Errorf("stream of provider %q: %w", s.provider, err)
}

// begin claims the stream for its one reader.
func (s *Stream[I]) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun || s.closed {
		return false
	}
	s.begun = true
	return true
}

func (s *Stream[I]) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.reading {
		return false
	}
	s.reading = true
	return true
}

// leave ends the read of an item, and releases a stream that has ended in it, or whose Close was called meanwhile.
func (s *Stream[I]) leave() {
	s.mu.Lock()
	closed, release := s.left()
	s.mu.Unlock()
	s.afterRead(closed, release)
}

// left notes that the read has ended: from now on another one may begin. It is called with mu held, and then
// [Stream.afterRead] without.
func (s *Stream[I]) left() (closed, release bool) {
	s.reading = false
	release = (s.closed || s.finished) && !s.released && s.release != nil
	s.released = s.released || release
	return s.closed, release
}

func (s *Stream[I]) afterRead(closed, release bool) {
	if closed {
		s.finish(verdict.Ignore(errAbandoned))
	}
	if release {
		s.release()
	}
}

func (s *Stream[I]) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// isOver reports whether the stream has ended between two reads, and the cause, once the provider's
// iterator is released: the reader may not use it at the same time. A complete answer has no cause.
func (s *Stream[I]) isOver() (over bool, cause error) {
	s.mu.Lock()
	cause, gone := s.over, s.gone
	s.mu.Unlock()
	if gone == nil {
		return false, nil
	}
	<-gone
	return true, cause
}

// releaseBetweenReads releases the provider's iterator when the context ends between two reads: there may
// never be another one.
func (s *Stream[I]) releaseBetweenReads(cause error) {
	s.mu.Lock()
	release := !s.reading && !s.released
	s.released = s.released || release
	if release {
		s.gone = make(chan struct{})
		defer close(s.gone)
		if !s.finished {
			s.over = cause
		}
	}
	s.mu.Unlock()
	if release {
		s.finish(cause)
		// The provider's code may panic, and this goroutine has no caller to catch it.
		_ = fault.Run(func() error { s.release(); return nil })
	}
}
