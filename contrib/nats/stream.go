package registrynats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/capreg/registry"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/stream"
	"github.com/capreg/registry/verdict"
)

// The headers of streams.
const (
	headerStream  = "Registry-Stream"  // of a request: where the items go
	headerControl = "Registry-Control" // of its reply: where it is said how many were read
	headerNumber  = "Registry-Number"  // of an item, from 1
	headerEnd     = "Registry-End"     // of the last message
)

const (
	// window bounds the items that a server sends beyond those that were read.
	window = 64
	// beat is the time after which each side says that it is there, and silence the time after which it is not.
	beat    = 2 * time.Second
	silence = 5 * beat

	cancelled = "cancel"
)

var (
	errSilent = errors.New("the other process is silent")
	errGap    = errors.New("an item is missing")
	errLeft   = errors.New("the caller has left")
)

// ServeStream has the server answer requests of a method with items, as [Serve] does with one answer. At most 64 items are
// under way: a provider waits for a caller that reads slowly. A caller that leaves, or whose process is gone, cancels the
// context of the stream.
func ServeStream[T, Q, I any](
	s *Server, service registry.Service[T], method string, do func(context.Context, T, Q) (iter.Seq2[I, error], error),
) error {
	if s == nil || do == nil {
		return fmt.Errorf("registrynats: ServeStream needs a server and a function: %w", registry.ErrInvalid)
	}
	return s.serve(service.Name(), method, func(request micro.Request) { answerStream(s, service, request, do) })
}

// sending is a stream on the side of the server.
type sending struct {
	nc     *nats.Conn
	inbox  string
	read   atomic.Int64 // items
	more   chan struct{}
	heard  atomic.Int64 // when the caller was heard of last, since begun
	begun  time.Time
	cancel context.CancelCauseFunc
}

func answerStream[T, Q, I any](
	s *Server, service registry.Service[T], request micro.Request, do func(context.Context, T, Q) (iter.Seq2[I, error], error),
) {
	timed := s.incoming(request.Headers())
	defer timed.answered()
	ctx, cancel := context.WithCancelCause(timed)
	defer cancel(nil)
	provider, asked, err := readRequest[Q](request)
	inbox := request.Headers().Get(headerStream)
	if err == nil && (!strings.HasPrefix(inbox, nats.InboxPrefix) || strings.ContainsAny(inbox, " \t*>")) {
		err = errors.New("there is no inbox for the items")
	}
	if err != nil {
		s.answerError(request, verdict.ClassBadRequest, 0, "the request cannot be read: "+err.Error())
		return
	}
	out := &sending{nc: s.nc, inbox: inbox, more: make(chan struct{}, 1), begun: time.Now(), cancel: cancel}
	control, err := s.nc.Subscribe(nats.NewInbox(), out.controlled)
	if err != nil {
		s.answerError(request, verdict.ClassNotSent, 0, err.Error())
		return
	}
	defer control.Unsubscribe() //nolint:errcheck // the connection may be gone
	if err := s.respond(request, nil, nats.Header{headerControl: {control.Subject}}); err != nil {
		return
	}
	var beats sync.WaitGroup
	defer beats.Wait()
	defer cancel(nil) // before the wait
	beats.Go(func() { out.beats(ctx) })
	_, err = guarded(func() (struct{}, error) {
		resolver := service.Bind(s.reg, registry.Query{Only: []string{provider}})
		items, err := stream.Open(ctx, resolver, func(ctx context.Context, instance T) (iter.Seq2[I, error], error) {
			return do(ctx, instance, asked)
		}, stream.Options[I]{})
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, sendAll(ctx, out, items.All())
	})
	out.end(err)
}

// sendAll sends the items until one of them is an error.
func sendAll[I any](ctx context.Context, out *sending, items iter.Seq2[I, error]) error {
	number := 0
	for item, err := range items {
		if err != nil {
			return err
		}
		number++
		if err := out.send(ctx, number, item); err != nil {
			return err
		}
	}
	return nil
}

// controlled notes what the caller says.
func (s *sending) controlled(message *nats.Msg) {
	s.heard.Store(int64(time.Since(s.begun)))
	if string(message.Data) == cancelled {
		s.cancel(errLeft)
		return
	}
	if read, err := strconv.ParseInt(string(message.Data), 10, 64); err == nil && read > s.read.Load() {
		s.read.Store(read)
		select {
		case s.more <- struct{}{}:
		default: // it is known
		}
	}
}

// beats says that the stream goes on, and cancels it when the caller is silent.
func (s *sending) beats(ctx context.Context) {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if time.Since(s.begun)-time.Duration(s.heard.Load()) > silence {
				s.cancel(errSilent)
				return
			}
			_ = s.nc.PublishMsg(nats.NewMsg(s.inbox)) // the caller notices that none comes
		}
	}
}

// send sends an item when the caller has read enough.
func (s *sending) send(ctx context.Context, number int, item any) error {
	for int64(number) > s.read.Load()+window {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.more:
		}
	}
	data, err := json.Marshal(item)
	if err != nil {
		return err
	}
	message := nats.NewMsg(s.inbox)
	message.Data = data
	message.Header.Set(headerNumber, strconv.Itoa(number))
	return s.nc.PublishMsg(message)
}

// end sends the end of the stream.
func (s *sending) end(err error) {
	message := nats.NewMsg(s.inbox)
	if err != nil {
		class, after := verdictOf(err)
		message.Header = errorHeaders(class, after, err.Error())
	}
	message.Header.Set(headerEnd, "yes")
	_ = s.nc.PublishMsg(message) // the caller notices that it does not come
}

// NewStreamStub returns a function that calls a method of [ServeStream], as [NewStub] does, for [stream.Open]. Its items end with the
// server's end mark; a connection that is cut, an item that is lost and a process that is silent for ten seconds are
// errors. The items are read once, by one reader, until ctx ends at the latest; a reader that leaves cancels the stream at its
// provider.
func NewStreamStub[Q, I any](nc *nats.Conn, e federation.Entry, method string) func(ctx context.Context, request Q) (iter.Seq2[I, error], error) {
	target := newTarget(nc, e, method)
	provider := target.provider
	return func(ctx context.Context, request Q) (iter.Seq2[I, error], error) {
		message, err := target.request(ctx, request)
		if err != nil {
			return nil, err
		}
		in := make(chan *nats.Msg, 4*window)
		items, err := nc.ChanSubscribe(nats.NewInbox(), in)
		if err != nil {
			return nil, verdict.NotSent(fmt.Errorf("registrynats: provider %q: %w", provider, err))
		}
		context.AfterFunc(ctx, func() { _ = items.Unsubscribe() })
		message.Header.Set(headerStream, items.Subject)
		reply, err := target.exchange(ctx, message)
		if err != nil {
			_ = items.Unsubscribe()
			return nil, err
		}
		if err := errorIn(reply, provider); err != nil {
			_ = items.Unsubscribe()
			return nil, err
		}
		r := &reading{nc: nc, provider: provider, in: in, control: reply.Header.Get(headerControl), unsubscribe: items.Unsubscribe}
		return func(yield func(I, error) bool) { readAll(ctx, r, yield) }, nil
	}
}

// reading is a stream on the side of the caller.
type reading struct {
	nc          *nats.Conn
	provider    string
	in          chan *nats.Msg
	control     string
	unsubscribe func() error
	read        atomic.Int64
	taken       atomic.Bool
}

func readAll[I any](ctx context.Context, r *reading, yield func(I, error) bool) {
	var none I
	if r.taken.Swap(true) {
		yield(none, stream.ErrClosed)
		return
	}
	living, stop := context.WithCancel(ctx)
	var beats sync.WaitGroup
	beats.Go(func() { r.beats(living) })
	ended := false
	defer func() {
		stop()
		beats.Wait()
		if !ended {
			_ = r.nc.Publish(r.control, []byte(cancelled)) // the server notices the silence
		}
		_ = r.unsubscribe()
	}()
	for {
		message, err := r.next(ctx)
		switch {
		case err != nil:
			yield(none, err)
			return
		case message.Header.Get(headerEnd) != "":
			ended = true
			if err := errorIn(message, r.provider); err != nil {
				yield(none, err)
			}
			return
		}
		var item I
		if err := json.Unmarshal(message.Data, &item); err != nil {
			yield(none, verdict.As(fmt.Errorf("registrynats: provider %q: an item: %w", r.provider, err), verdict.Verdict{Class: verdict.ClassMalformed}))
			return
		}
		if !yield(item, nil) {
			return
		}
		if r.read.Load()%(window/2) == 0 {
			r.tell()
		}
	}
}

// tell says how many items were read.
func (r *reading) tell() {
	_ = r.nc.Publish(r.control, strconv.AppendInt(nil, r.read.Load(), 10)) // it is said again
}

func (r *reading) beats(ctx context.Context) {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.tell()
		}
	}
}

// next returns the next item, or the end.
func (r *reading) next(ctx context.Context) (*nats.Msg, error) {
	fails := func(err error) error {
		return verdict.As(fmt.Errorf("registrynats: provider %q: %w", r.provider, err), verdict.Verdict{Class: verdict.ClassTransport})
	}
	silent := time.NewTimer(silence)
	defer silent.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("registrynats: provider %q: %w", r.provider, ctx.Err())
		case <-silent.C:
			return nil, fails(errSilent)
		case message, open := <-r.in:
			switch {
			case !open:
				return nil, fails(nats.ErrConnectionClosed)
			case message.Header.Get(headerEnd) != "":
				return message, nil
			case message.Header.Get(headerNumber) == "": // a beat
				silent.Reset(silence)
				continue
			case message.Header.Get(headerNumber) != strconv.FormatInt(r.read.Load()+1, 10):
				return nil, fails(errGap)
			}
			r.read.Add(1)
			return message, nil
		}
	}
}
