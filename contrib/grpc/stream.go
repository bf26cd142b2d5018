package registrygrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/capreg/registry"
)

// NewStream opens a stream on the best provider, and on the next one as long as that fails; see the documentation
// of the package for when it moves on later. It blocks, within ctx, until a connection has taken the stream. As with every
// stream of gRPC, ctx must end, or the stream be read until an error, io.EOF included. The error is as that of [Conn.Invoke].
func (c *Conn[C]) NewStream(
	ctx context.Context, desc *grpc.StreamDesc, method string, options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	r, err := c.begin(ctx, method, options)
	if err != nil {
		return nil, err
	}
	if desc == nil {
		return nil, refuse("desc", "nil", "a description of the stream")
	}
	begun := false
	defer func() {
		if !begun { // a panic
			r.finish(errPanicked)
		}
	}()
	s := &stream[C]{conn: c, rpc: r, desc: desc, caller: ctx, turn: make(chan struct{}, 1)}
	call := slices.Concat([]registry.CallOption{registry.AttemptTimeout(c.options.Timeout)}, r.call)
	lease, err := c.resolver.Acquire(ctx, call...)
	var a *attempt[C]
	if err == nil {
		a, err = s.openFirst(lease)
	}
	begun = true
	if err != nil {
		err = conclude(ctx, err)
		r.finish(err)
		return nil, err
	}
	s.current = a
	s.watch(a)
	return s, nil
}

// stream is a stream that moves on until it is committed:
//
//	open ── first message received, header shown, or a message sent that is not kept ─▶ committed
//	  │ ▲                                                                                   │
//	  ▼ │ next provider                                                                     │
//	moving on ── none left ─▶ over ◀── end, error, or the end of the context between reads ─┘
type stream[C grpc.ClientConnInterface] struct {
	conn   *Conn[C]
	rpc    *rpc
	desc   *grpc.StreamDesc
	caller context.Context //nolint:containedctx // of the client

	// turn is taken by what reads, or moves on: it has one place.
	turn chan struct{}
	// sending is held while messages are sent, and while the stream moves on, in which no message is sent. It
	// guards size.
	sending sync.Mutex
	size    int // of kept

	// mu guards the fields below; nothing is called while it is held.
	mu         sync.Mutex
	current    *attempt[C]
	kept       []any // sent, and to be sent again
	halfClosed bool
	committed  bool
	over       bool
	err        error // of every read once it is over
}

// attempt is the stream on one provider.
type attempt[C grpc.ClientConnInterface] struct {
	lease   *registry.Lease[C]
	ctx     context.Context //nolint:containedctx // of the stream
	end     context.CancelCauseFunc
	stream  grpc.ClientStream
	unwatch func() bool
}

// openFirst opens the stream on the provider of the lease, or on one after it.
func (s *stream[C]) openFirst(lease *registry.Lease[C]) (*attempt[C], error) {
	for {
		a, failed := s.open(lease)
		if failed == nil {
			return a, nil
		}
		var err error
		if lease, err = lease.MoveOn(failed); lease == nil {
			if err == nil {
				err = failed // a classifier counts it as an answer
			}
			return nil, err
		}
	}
}

// open opens the stream on the provider of the lease. With an error nothing of it is left, and the lease is yet to be
// reported.
func (s *stream[C]) open(lease *registry.Lease[C]) (*attempt[C], error) {
	a := &attempt[C]{lease: lease}
	a.ctx, a.end = context.WithCancelCause(lease.Context())
	opened := false
	defer func() {
		if !opened {
			a.end(context.Canceled)
		}
	}()
	s.rpc.reset()
	err := lease.Guard(func() (err error) {
		if a.stream, err = lease.Value.NewStream(s.rpc.outgoing(a.ctx), s.desc, s.rpc.method, s.rpc.options...); err == nil && a.stream == nil {
			err = errNoStream
		}
		return err
	})
	if err != nil {
		_, ofGRPC := any(lease.Value).(*grpc.ClientConn)
		f := failure{err: err, ctx: a.ctx, ofGRPC: ofGRPC, unsent: ofGRPC}
		return nil, f.judge()
	}
	opened = true
	return a, nil
}

// watch makes the stream notice the end of its context while nothing reads.
func (s *stream[C]) watch(a *attempt[C]) {
	s.mu.Lock() // for the function, which may run at once
	defer s.mu.Unlock()
	a.unwatch = context.AfterFunc(a.ctx, func() { s.endedBetweenReads(a) })
}

// endedBetweenReads reports or moves on when the context of the attempt has ended and nothing reads: there may never be
// another read.
func (s *stream[C]) endedBetweenReads(a *attempt[C]) {
	select {
	case s.turn <- struct{}{}:
	default:
		return // the read does it
	}
	defer s.leave()
	s.mu.Lock()
	settled := s.over || s.current != a
	s.mu.Unlock()
	if !settled {
		s.fail(a, withCause(a.ctx, a.ctx.Err(), false))
	}
}

// leave ends a read. The context may have ended while it went on.
func (s *stream[C]) leave() {
	<-s.turn
	s.mu.Lock()
	a, over := s.current, s.over
	s.mu.Unlock()
	if !over && a.ctx.Err() != nil {
		s.endedBetweenReads(a)
	}
}

// SendMsg sends a message, and keeps a copy as long as the stream may move on. It returns nil where the attempt has
// ended and the read will move on, and io.EOF where it will not. It is for one goroutine, beside the one that reads.
func (s *stream[C]) SendMsg(m any) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	a, kept, over := s.keep(m)
	if over {
		return io.EOF
	}
	err := a.lease.Guard(func() error { return a.stream.SendMsg(m) })
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, io.EOF) && a.ctx.Err() == nil:
		s.finish(a, ofSend(err))
		return s.result()
	case kept:
		return nil // the read finds out why
	}
	return io.EOF
}

// keep notes a message that is about to be sent, and reports whether it was kept. It is called with sending held.
func (s *stream[C]) keep(m any) (a *attempt[C], kept, over bool) {
	s.mu.Lock()
	a, committed, over := s.current, s.committed, s.over
	s.mu.Unlock()
	if over || committed {
		return a, false, over
	}
	message, ok := m.(proto.Message)
	if ok {
		s.size += proto.Size(message) + messageOverhead
		ok = s.size <= s.conn.options.MaxReplay
	}
	if ok {
		m = proto.Clone(message) // many clients use a message again
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !ok || s.committed {
		s.commitLocked()
		return a, false, s.over
	}
	s.kept = append(s.kept, m)
	return a, true, s.over
}

// commitLocked makes the stream stay with its provider. Caller holds mu.
func (s *stream[C]) commitLocked() { s.committed, s.kept = true, nil }

// CloseSend ends the messages of the client. It is for the goroutine that sends.
func (s *stream[C]) CloseSend() error {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.mu.Lock()
	s.halfClosed = true
	a, over := s.current, s.over
	s.mu.Unlock()
	if over {
		return nil
	}
	_ = a.lease.Guard(a.stream.CloseSend) // the read finds out what is wrong
	return nil
}

// Header returns the header of the answer, for which it waits. Having shown one, the stream moves on no more; without
// one, the read may still get the answer of another provider, and Header then returns that one's.
func (s *stream[C]) Header() (md metadata.MD, err error) {
	s.mu.Lock()
	a := s.current
	s.mu.Unlock()
	err = a.lease.Guard(func() (err error) {
		md, err = a.stream.Header()
		return err
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && md != nil && s.current == a {
		s.commitLocked()
	}
	return md, err
}

// Trailer returns the trailer of the provider that the stream ended with.
func (s *stream[C]) Trailer() metadata.MD {
	s.mu.Lock()
	a := s.current
	s.mu.Unlock()
	return a.stream.Trailer()
}

// Context returns the context of the stream on its provider.
func (s *stream[C]) Context() context.Context {
	s.mu.Lock()
	a := s.current
	s.mu.Unlock()
	return a.stream.Context()
}

func (s *stream[C]) result() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// finish reports the outcome on the current provider, once, and releases it.
func (s *stream[C]) finish(a *attempt[C], err error) {
	s.finishWith(a, err, func() { a.lease.Done(err) })
}

// finishWith ends the stream with the outcome that report reports.
func (s *stream[C]) finishWith(a *attempt[C], err error, report func()) {
	if err != nil && s.isCommitted() {
		err = fmt.Errorf("registrygrpc: stream of provider %q: %w", a.lease.Provider(), err)
	}
	err = conclude(s.caller, err)
	told := err
	if told == nil {
		told = io.EOF
	}
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return
	}
	s.over, s.err, s.kept = true, told, nil
	s.mu.Unlock()
	a.unwatch()
	defer s.rpc.finish(err)
	defer a.end(context.Canceled)
	report()
}

func (s *stream[C]) isCommitted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.committed
}
