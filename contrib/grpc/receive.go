package registrygrpc

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
)

// RecvMsg reads a message. Until the first one it moves on to the next provider where this one fails. It returns
// io.EOF at the end of the stream, and the error of the stream, again and again, after it has failed.
func (s *stream[C]) RecvMsg(m any) error {
	s.turn <- struct{}{}
	returned := false
	defer func() {
		if !returned { // a panic, which the lease has recorded
			s.mu.Lock()
			a := s.current
			s.mu.Unlock()
			s.finish(a, errPanicked)
		}
		s.leave()
	}()
	err := s.receive(m)
	returned = true
	return err
}

// receive is RecvMsg with the turn.
func (s *stream[C]) receive(m any) error {
	for {
		s.mu.Lock()
		a, over, err := s.current, s.over, s.err
		s.mu.Unlock()
		if over {
			return err
		}
		limit, cause, cut := s.limit(a)
		err = a.read(m, limit, cause)
		switch {
		case err == nil:
			s.received(a)
			return nil
		case errors.Is(err, io.EOF):
			s.finish(a, nil)
			return s.result()
		}
		s.fail(a, s.judge(a, err, cut))
	}
}

// received commits the stream with its first message. One that has only that message is over.
func (s *stream[C]) received(a *attempt[C]) {
	s.mu.Lock()
	s.commitLocked()
	s.mu.Unlock()
	if !s.desc.ServerStreams {
		s.finish(a, nil)
		return
	}
	a.lease.Steps().Answered() // which counts once
}

// read reads one message within its limit.
func (a *attempt[C]) read(m any, limit time.Duration, cause error) error {
	if limit > 0 {
		timer := time.AfterFunc(limit, func() { a.end(cause) })
		defer timer.Stop()
	}
	return a.lease.Guard(func() error { return a.stream.RecvMsg(m) })
}

// limit returns how long a read may take, with the cause of its end, and whether it was cut to leave time for another
// provider; zero: any time.
func (s *stream[C]) limit(a *attempt[C]) (limit time.Duration, cause error, cut bool) {
	s.mu.Lock()
	first, complete := !s.committed, s.halfClosed || !s.desc.ClientStreams
	s.mu.Unlock()
	options := &s.conn.options
	switch {
	case !first && options.StallTimeout > 0:
		return options.StallTimeout, ErrStalled, false
	case first && options.FirstTimeout > 0:
		a.lease.Steps().Patience(options.FirstTimeout)
		return options.FirstTimeout, ErrFirstMessage, false
	case first && complete:
		if limit, cut = a.lease.Steps().Share(options.Timeout); cut {
			return max(limit, 1), ErrFirstMessage, true
		}
	}
	return 0, nil, false
}

// judge returns the error of a read with what is known beyond its status.
func (s *stream[C]) judge(a *attempt[C], err error, cut bool) error {
	if a.ctx.Err() != nil {
		return withCause(a.ctx, err, cut)
	}
	_, ofGRPC := any(a.lease.Value).(*grpc.ClientConn)
	f := failure{err: err, ctx: a.ctx, ofGRPC: ofGRPC, header: headerOf(a.stream), trailer: a.stream.Trailer()}
	return f.judge()
}

// fail moves the stream on, or ends it. It has the turn.
func (s *stream[C]) fail(a *attempt[C], failed error) {
	a.end(context.Canceled) // a message in progress ends with it
	s.sending.Lock()
	if s.isCommitted() {
		s.sending.Unlock()
		s.finish(a, failed)
		return
	}
	lease, err := a.lease.MoveOn(failed)
	var next *attempt[C]
	if lease != nil {
		next, err = s.openFirst(lease)
	}
	if next == nil {
		if err == nil {
			err = failed // a classifier counts it as an answer
		}
		s.sending.Unlock()
		s.finishWith(a, err, func() {})
		return
	}
	a.unwatch()
	s.mu.Lock()
	s.current = next
	messages, halfClosed := s.kept, s.halfClosed
	s.mu.Unlock()
	s.watch(next)
	if !s.desc.ClientStreams {
		defer s.sending.Unlock()
		s.replay(next, messages, halfClosed)
		return
	}
	go func() { // a provider may answer before it has read all, and wait until that is read
		defer s.sending.Unlock()
		s.replay(next, messages, halfClosed)
	}()
}

// replay sends the messages again that the provider before has got.
func (s *stream[C]) replay(a *attempt[C], messages []any, halfClosed bool) {
	err := errPanicked
	defer func() {
		if err != nil {
			_ = recover() // the lease has recorded it, and this goroutine is none of the client's
			a.end(err)
		}
	}()
	for _, m := range messages {
		if err = a.lease.Guard(func() error { return a.stream.SendMsg(m) }); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil // the read finds out why
			}
			return
		}
		err = errPanicked
	}
	if halfClosed {
		_ = a.lease.Guard(a.stream.CloseSend)
	}
	err = nil
}
