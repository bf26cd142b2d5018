// Package stream opens streams on providers and moves on to the next one until
// the first item is there.
//
// After the first item has been handed over the stream is committed: nobody else
// can go on where it was cut. So a stream that ends without its end mark is an
// error, never a success; with [Options.Whole] the items are held back until the
// end mark, and a cut stream is answered elsewhere instead. What the end mark is says
// [Options.Last] or [ReaderOptions.End]: without one, every end without an error is
// a complete one, for nothing tells it from a cut.
package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/verdict"
)

var (
	// ErrFirstItem is the cause of a stream that gave no first item in time.
	ErrFirstItem = errors.New("no first item in time")
	// ErrStalled is the cause of a stream that gave no further item in time.
	ErrStalled = errors.New("stream stalled")
	// ErrTruncated is a stream that ended without its end mark.
	ErrTruncated = errors.New("stream ended without its end mark")
	// ErrTooLong is a whole answer of more than [Options.MostItems] items.
	ErrTooLong = errors.New("more items than allowed")
	// ErrClosed is a stream that was read after its end, or twice.
	ErrClosed = errors.New("stream closed")
)

const (
	defaultItemTimeout = 30 * time.Second
	defaultTimeout     = time.Hour
	defaultMostItems   = 1 << 16
)

// Options are the settings of a stream of items. The zero value is the default
// of each.
type Options[I any] struct {
	// FirstTimeout is how long the first item may take, the opening included.
	// Default: 30 s.
	FirstTimeout time.Duration
	// StallTimeout is how long each further item may take. The time that the
	// reader takes between two items is not counted. Default: 30 s.
	StallTimeout time.Duration
	// Timeout bounds the whole stream; the provider's own attempt timeout does
	// not. Default: 1 h.
	Timeout time.Duration
	// KeepAlive says of an item that it carries nothing. Such items are not
	// handed over, and stop no clock. Default: none.
	KeepAlive func(I) bool
	// Last says of an item that it is the end mark; it is handed over as well,
	// and nothing after it is read. Default: every stream that ends without an
	// error is complete.
	Last func(I) bool
	// Whole holds the items back until the end, so that a stream that is cut can
	// still be answered by the next provider.
	Whole bool
	// MostItems bounds a whole answer. Default: 65,536.
	MostItems int
	// Call are options of the lease, such as [registry.Caller]. A once-only
	// stream moves on only when nothing was sent.
	Call []registry.CallOption
}

func (o Options[I]) withDefaults() (Options[I], error) {
	for _, field := range []struct {
		name  string
		value *time.Duration
		usual time.Duration
	}{
		{"Options.FirstTimeout", &o.FirstTimeout, defaultItemTimeout},
		{"Options.StallTimeout", &o.StallTimeout, defaultItemTimeout},
		{"Options.Timeout", &o.Timeout, defaultTimeout},
	} {
		if *field.value < 0 {
			return o, refuse(field.name, *field.value, fmt.Sprintf("0 (default %v) or more", field.usual))
		}
		*field.value = cmp.Or(*field.value, field.usual)
	}
	if o.MostItems < 0 {
		return o, refuse("Options.MostItems", o.MostItems, fmt.Sprintf("0 (default %d) or more", defaultMostItems))
	}
	o.MostItems = cmp.Or(o.MostItems, defaultMostItems)
	return o, nil
}

func refuse(field string, value any, bound string) error {
	return &registry.FieldError{Field: field, Value: fmt.Sprint(value), Bound: bound, Err: registry.ErrInvalid}
}

// Stream is a stream of items from one provider. It holds its lease, with its
// place and its context, until it has been read to its end or closed. It is for
// one reader; Close may be called from anywhere.
type Stream[I any] struct {
	provider string
	toFirst  time.Duration
	attempts []registry.Attempt

	pull    func() (I, error, bool) // nil when everything was read
	end     func(error)
	release func() // lets go of the provider's iterator; not while pull runs
	held    []I    // read already, not handed over

	// mu guards the fields below; no function of a provider is called while it is
	// held.
	mu       sync.Mutex
	over     error         // why the stream ended while nobody read
	gone     chan struct{} // closed when that has been reported; nil until then
	begun    bool          // somebody reads, or has read
	reading  bool          // somebody reads now
	closed   bool
	finished bool
	released bool
}

// Provider returns the name of the provider that answers.
func (s *Stream[I]) Provider() string { return s.provider }

// TimeToFirst returns how long the provider took for the first item, which is
// also what counts as its latency.
func (s *Stream[I]) TimeToFirst() time.Duration { return s.toFirst }

// Attempts returns the tries that failed before.
func (s *Stream[I]) Attempts() []registry.Attempt { return s.attempts }

// All yields the items. A stream that is cut, stalls or ends without its end mark
// yields one error at last, which names the provider and unwraps to the cause; an
// error that was yielded is final. Breaking off the
// loop closes the stream. It can be read once: after that it yields an error that
// matches [ErrClosed].
func (s *Stream[I]) All() iter.Seq2[I, error] {
	return func(yield func(I, error) bool) {
		var none I
		if !s.begin() {
			yield(none, ErrClosed)
			return
		}
		defer func() { _ = s.Close() }()
		for {
			item, err, more := s.next()
			switch {
			case err != nil:
				yield(none, err)
				return
			case !more || !yield(item, nil):
				return
			}
		}
	}
}

// next returns the next item. more is false at a complete end.
func (s *Stream[I]) next() (item I, err error, more bool) {
	if !s.enter() {
		return item, ErrClosed, false
	}
	defer s.leave()
	switch {
	case len(s.held) > 0:
		item, s.held = s.held[0], s.held[1:]
		return item, nil, true
	case s.pull == nil:
		return item, nil, false
	}
	if err := s.isOver(); err != nil {
		return item, s.named(err), false
	}
	item, err, more = s.pull()
	switch {
	case s.isClosed():
		var none I
		return none, ErrClosed, false
	case err != nil:
		s.finish(err)
		return item, s.named(err), false
	case !more:
		s.finish(nil)
	}
	return item, nil, more
}

// named returns the error with whose it is.
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

// leave ends the reading of an item, and lets go of a stream that was closed
// meanwhile.
func (s *Stream[I]) leave() {
	s.mu.Lock()
	s.reading = false
	closed := s.closed
	s.mu.Unlock()
	if closed {
		_ = s.Close()
	}
}

func (s *Stream[I]) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// isOver returns why the stream ended while nobody read, once that has been
// reported.
func (s *Stream[I]) isOver() error {
	s.mu.Lock()
	over, gone := s.over, s.gone
	s.mu.Unlock()
	if over != nil {
		<-gone
	}
	return over
}

// letGo lets go of the provider's iterator when the context has ended while nobody
// reads: perhaps nobody ever will.
func (s *Stream[I]) letGo(cause error) {
	s.mu.Lock()
	release := !s.reading && !s.released
	s.released = s.released || release
	if release && !s.finished {
		s.over, s.gone = cause, make(chan struct{})
		defer close(s.gone)
	}
	s.mu.Unlock()
	if release {
		s.finish(cause)
		defer func() { _ = recover() }() // of the provider's code, where nobody else could
		s.release()
	}
}

// finish reports the outcome, once.
func (s *Stream[I]) finish(err error) {
	s.mu.Lock()
	first := !s.finished
	s.finished = true
	s.mu.Unlock()
	if first && s.end != nil {
		s.end(err)
	}
}

var errAbandoned = errors.New("stream: abandoned by its reader")

// Close ends the stream and gives the provider back. A stream that was not read
// to its end says nothing about the provider. It always returns nil, and may be
// called any number of times, also while another goroutine reads.
func (s *Stream[I]) Close() error {
	s.mu.Lock()
	s.closed = true
	release := !s.reading && !s.released && s.release != nil // else the reader does
	s.released = s.released || release
	s.mu.Unlock()
	s.finish(verdict.Ignore(errAbandoned))
	if release {
		s.release()
	}
	return nil
}

// Open opens a stream on the best provider, and on the next one when that fails
// before its first item; with [Options.Whole], before its end. It returns when
// the first item is there, or the whole answer.
//
// open gets the context of the stream, which lives until the stream has ended,
// and returns what yields its items. Both run in the goroutine of Open and of the
// reader, and must heed that context: it is how time limits reach them. ctx
// bounds the whole stream; while somebody else could be asked, the first item may
// take half of what remains. Everything counts as in [registry.Call]: budgets,
// limits, breakers, retries, reports and errors.
func Open[T, I any](
	ctx context.Context, resolver *registry.Resolver[T],
	open func(ctx context.Context, provider T) (iter.Seq2[I, error], error), options Options[I],
) (*Stream[I], error) {
	options, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	if ctx == nil || open == nil {
		return nil, refuse("ctx, open", "nil", "both")
	}
	lease, err := resolver.Acquire(ctx, append([]registry.CallOption{registry.AttemptTimeout(options.Timeout)}, options.Call...)...)
	for err == nil {
		a := &attempt[T, I]{lease: lease, options: options, began: time.Now()}
		failed := lease.Attempts()
		s, failure := a.begin(open)
		if failure == nil {
			s.attempts = failed
			return s, nil
		}
		if lease, err = lease.MoveOn(failure); lease == nil && err == nil {
			err = failure // a classifier takes it for an answer
		}
	}
	return nil, err
}

// attempt is a stream on one provider.
type attempt[T, I any] struct {
	lease   *registry.Lease[T]
	options Options[I]
	began   time.Time

	ctx    context.Context //nolint:containedctx // the stream's
	cancel context.CancelCauseFunc
	items  func() (I, error, bool)
	stop   func()
	ended  bool         // the end mark was seen, or the end where there is no mark
	busy   atomic.Int64 // how long the provider took for its items
}

// stopReading ends the context of the stream and lets go of its iterator.
func (a *attempt[T, I]) stopReading() {
	if a.cancel != nil {
		a.cancel(context.Canceled)
	}
	if a.stop != nil {
		a.stop()
	}
}

// firstTimeout is how long the first item may take.
func (a *attempt[T, I]) firstTimeout() time.Duration {
	limit := a.options.FirstTimeout
	if deadline, ok := a.lease.Context().Deadline(); ok && a.lease.More() {
		limit = min(limit, time.Until(deadline)/2)
	}
	return limit
}

// begin is first, and lets go of everything unless that returns a stream.
func (a *attempt[T, I]) begin(open func(context.Context, T) (iter.Seq2[I, error], error)) (s *Stream[I], err error) {
	defer func() {
		if s == nil {
			a.stopReading()
		}
	}()
	return a.first(open)
}

// first opens the stream and reads its first item, or all of them.
func (a *attempt[T, I]) first(open func(context.Context, T) (iter.Seq2[I, error], error)) (*Stream[I], error) {
	a.ctx, a.cancel = context.WithCancelCause(a.lease.Context())
	a.lease.Patience(a.options.FirstTimeout)
	limit := a.firstTimeout()
	var items iter.Seq2[I, error]
	err := a.within(limit, ErrFirstItem, func() (err error) {
		items, err = open(a.ctx, a.lease.Value)
		return err
	})
	if err != nil {
		if items != nil { // it came too late; what it holds is let go of by running it
			letGoOf(a.lease, items)
		}
		return nil, err
	}
	if items == nil {
		return nil, verdict.As(errors.New("stream: open returned nothing to read"), verdict.Verdict{Class: verdict.ClassMalformed})
	}
	a.items, a.stop = iter.Pull2(items)
	s := &Stream[I]{provider: a.lease.Provider()}
	item, err, more := a.pull(limit-time.Since(a.began), ErrFirstItem)
	if err != nil {
		return nil, err
	}
	s.toFirst = time.Since(a.began)
	a.lease.Answered()
	a.lease.Patience(a.options.Timeout)
	if more {
		s.held = append(s.held, item)
	}
	for more && !a.ended && a.options.Whole {
		if item, err, more = a.pull(a.options.StallTimeout, ErrStalled); err != nil {
			return nil, err
		}
		if more {
			s.held = append(s.held, item)
		}
		if len(s.held) > a.options.MostItems {
			return nil, verdict.As(ErrTooLong, verdict.Verdict{Class: verdict.ClassMalformed})
		}
	}
	if a.ended {
		a.stopReading()
		a.lease.Done(nil)
		return s, nil
	}
	s.pull = func() (I, error, bool) {
		item, err, more := a.pull(a.options.StallTimeout, ErrStalled)
		if err == nil && a.ended {
			s.finish(nil) // nothing that the reader does now changes that
		}
		return item, err, more
	}
	s.end, s.release = a.finish, a.stop
	context.AfterFunc(a.ctx, func() { s.letGo(a.tooSlowFor(context.Cause(a.ctx))) })
	return s, nil
}

// tooSlowFor returns the error of a stream whose time is over, and which says
// nothing about the provider when it was mostly the reader who took it.
func (a *attempt[T, I]) tooSlowFor(err error) error {
	if errors.Is(context.Cause(a.lease.Context()), registry.ErrAttemptTimeout) && a.busy.Load() < int64(a.options.Timeout/2) {
		return verdict.Ignore(err)
	}
	return err
}

// letGoOf runs an iterator that nobody will read until it gives up what it holds; its
// context has ended.
func letGoOf[T, I any](lease *registry.Lease[T], items iter.Seq2[I, error]) {
	_ = lease.Guard(func() (err error) {
		for _, err = range items {
			break
		}
		return err
	})
}

// finish is how the stream reports its end. Its code may be reading at this
// moment, in another goroutine: then it ends by its context, and what it holds is
// let go by whoever reads.
func (a *attempt[T, I]) finish(err error) {
	a.cancel(context.Canceled)
	a.lease.Done(err)
}

// pull returns the next item that carries something. more is false at a complete
// end; an end that is not is an error.
func (a *attempt[T, I]) pull(limit time.Duration, late error) (item I, err error, more bool) {
	if a.ended {
		return item, nil, false
	}
	began := time.Now()
	err = a.within(limit, late, func() error {
		for {
			var err error
			var ok bool
			item, err, ok = a.items()
			switch {
			case err != nil:
				return err
			case !ok && a.options.Last != nil:
				return verdict.As(ErrTruncated, verdict.Verdict{Class: verdict.ClassMalformed})
			case !ok:
				a.ended = true
				return nil
			case a.options.KeepAlive != nil && a.options.KeepAlive(item):
				continue
			}
			more = true
			a.ended = a.options.Last != nil && a.options.Last(item)
			return nil
		}
	})
	a.busy.Add(int64(time.Since(began)))
	if err != nil {
		var none I
		return none, a.tooSlowFor(err), false
	}
	return item, nil, more
}

// within runs f, whose context ends when it takes too long. What comes then is
// late, for the context of all that would follow has ended.
func (a *attempt[T, I]) within(limit time.Duration, late error, f func() error) error {
	timer := time.AfterFunc(limit, func() { a.cancel(late) })
	returned := false
	defer func() {
		if !returned { // a panic, which the lease has recorded
			timer.Stop()
			a.cancel(context.Canceled)
		}
	}()
	err := a.lease.Guard(f)
	returned = true
	if timer.Stop() || !errors.Is(a.cause(), late) {
		return err
	}
	if err != nil && !errors.Is(err, late) {
		late = fmt.Errorf("%w: %w", late, err)
	}
	return verdict.As(late, verdict.Verdict{Class: verdict.ClassStalled})
}

// cause waits for the context, which its timer is about to end, and returns why it
// has ended.
func (a *attempt[T, I]) cause() error {
	<-a.ctx.Done()
	return context.Cause(a.ctx)
}
