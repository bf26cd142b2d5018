// Package stream opens streams on providers and fails over until the first item has arrived.
//
// Once the first item has been handed over the stream is committed: no other provider can
// continue it. So a stream that ends without its end mark is an error, never a success. With
// [Options.Whole] the items are held back until the end mark, and another provider replaces a
// cut stream. The end mark is defined by [Options.Last] or [ReaderOptions.End]. Without one,
// every end without an error is complete, as a cut cannot be detected.
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
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/verdict"
)

var (
	// ErrFirstItem is the cause of a stream whose first item did not arrive in time.
	ErrFirstItem = errors.New("no first item in time")
	// ErrStalled is the cause of a stream whose next item did not arrive in time.
	ErrStalled = errors.New("stream stalled")
	// ErrTruncated reports a stream that ended without its end mark.
	ErrTruncated = errors.New("stream ended without its end mark")
	// ErrTooLong reports a whole answer of more than [Options.MaxItems] items.
	ErrTooLong = errors.New("more items than allowed")
	// ErrClosed reports a read after the end of the stream, or a second reader.
	ErrClosed = errors.New("stream closed")
)

const (
	defaultItemTimeout = 30 * time.Second
	defaultTimeout     = time.Hour
	defaultMostItems   = 1 << 16
	tailTimeout        = time.Second // for an item behind the end mark
)

// Options configure a stream of items. The zero value of each field is its default.
type Options[I any] struct {
	// FirstTimeout bounds the time until the first item, the opening included. Default: 30 s.
	FirstTimeout time.Duration
	// StallTimeout bounds the time until each further item. The reader's own time between two
	// items is not counted. Default: 30 s.
	StallTimeout time.Duration
	// Timeout bounds the whole stream, instead of the provider's attempt timeout. After the first item its end
	// says nothing about the provider, and neither does that of ctx. Default: 1 h.
	Timeout time.Duration
	// KeepAlive reports whether an item carries no content, such as a preamble with the role, or a
	// ping. Such items reset no time limit and commit to no provider: those before the first item
	// with content are handed over together with it, later ones not at all. Default: for an [Event], and the
	// bytes of [Reader], what servers of language models send before the answer, all of which is handed over.
	// Of other items it is not known, so the first one is held until the next one or the end is there, for a
	// tenth of a second at most: an error that comes before still fails over.
	KeepAlive func(I) bool
	// Last reports whether an item is the end mark; it is handed over as well. The answer is
	// complete with it, whatever follows: what still comes within a second, such as the usage, is
	// handed over too, and no error of it. Default: every stream that ends without an error is
	// complete.
	Last func(I) bool
	// Whole holds the items back until the end, so that the next provider can still replace a
	// stream that is cut.
	Whole bool
	// MaxItems bounds a whole answer. Default: 65,536.
	MaxItems int
	// Call are options of the lease, such as [registry.Caller]. A once-only stream fails over
	// only when nothing was sent.
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
	if o.MaxItems < 0 {
		return o, refuse("Options.MaxItems", o.MaxItems, fmt.Sprintf("0 (default %d) or more", defaultMostItems))
	}
	o.MaxItems = cmp.Or(o.MaxItems, defaultMostItems)
	return o, nil
}

func refuse(field string, value any, bound string) error {
	return &registry.FieldError{Field: field, Value: fmt.Sprint(value), Bound: bound, Err: registry.ErrInvalid}
}

// Stream is a stream of items from one provider. It holds its lease, with its slot and its
// context, until it has been read to its end or closed. It is for one reader; Close may be
// called from any goroutine.
type Stream[I any] struct {
	provider string
	toFirst  time.Duration
	attempts []registry.Attempt

	pull    func() (I, error, bool) // nil after the last item
	end     func(error)
	release func() // stops the provider's iterator; not while pull runs

	// mu guards the fields below; no function of a provider is called while it is held.
	mu       sync.Mutex
	buffered []I           // read but not handed over yet
	second   *ahead[I]     // the read of the second item that Open has begun; nil: none, or the reader has it
	over     error         // the cause of an end between two reads; nil of a complete answer
	gone     chan struct{} // closed when that end has released the iterator; nil without one
	begun    bool          // the one reader has begun
	reading  bool          // a read is in progress
	closed   bool
	finished bool
	released bool
}

// Provider returns the name of the provider of the stream.
func (s *Stream[I]) Provider() string { return s.provider }

// TimeToFirst returns the time until the first item, which is also the recorded latency.
func (s *Stream[I]) TimeToFirst() time.Duration { return s.toFirst }

// Attempts returns the failed attempts before this stream.
func (s *Stream[I]) Attempts() []registry.Attempt { return s.attempts }

// All yields the items. A stream that is cut, stalls or ends without its end mark yields one
// error at last, which names the provider and unwraps to the cause; an error is final. Leaving
// the loop closes the stream. A stream can be read once: a second time yields an error that
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

// Close ends the stream and releases the provider. A stream that was not read to its end says
// nothing about the provider. It always returns nil, and may be called any number of times,
// also while another goroutine reads.
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

// Open opens a stream on the best provider, and on the next one when that fails before its
// first item; with [Options.Whole], before its end. It returns when the first item has arrived,
// or the whole answer.
//
// open gets the context of the stream, which lives until the stream has ended, and returns an
// iterator over the items. The iterator runs in a goroutine of its own, one step at a time, which Open and the reader
// wait for. Both must heed that context, by which time limits reach them. ctx bounds the whole stream. Where no FirstTimeout
// was given, the wait for the first item may be cut to leave time for another provider, as an
// attempt of [registry.Call] is. Budgets, limits, breakers, retries, reports and errors are as in [registry.Call].
func Open[T, I any](
	ctx context.Context, resolver *registry.Resolver[T],
	open func(ctx context.Context, provider T) (iter.Seq2[I, error], error), options Options[I],
) (*Stream[I], error) {
	explicit := options.FirstTimeout > 0
	options, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	if ctx == nil || open == nil {
		return nil, refuse("ctx, open", "nil", "both")
	}
	lease, err := resolver.Acquire(ctx, append([]registry.CallOption{registry.AttemptTimeout(options.Timeout)}, options.Call...)...)
	for err == nil {
		a := &attempt[T, I]{lease: lease, options: options, preamble: options.preamble(), explicit: explicit, began: time.Now()}
		failed := lease.Attempts()
		s, failure := a.begin(open)
		if failure == nil {
			s.attempts = failed
			return s, nil
		}
		lease, err = lease.MoveOn(failure)
	}
	return nil, err
}

// attempt is a stream on one provider.
type attempt[T, I any] struct {
	lease   *registry.Lease[T]
	options Options[I]
	began   time.Time

	explicit bool         // the user has chosen the FirstTimeout
	preamble func(I) bool // reports whether an item says nothing; nil: not known

	ctx    context.Context //nolint:containedctx // the stream's
	cancel context.CancelCauseFunc
	items  func() (I, error, bool)
	stop   func()
	ended  bool          // there is nothing more to read
	whole  atomic.Bool   // the end mark was read, or the end where no mark is defined
	early  []I           // the items without content before the first one with it
	busy   time.Duration // that the provider took for its items; the rest is the reader's
}

// stopReading ends the context of the stream and stops its iterator.
func (a *attempt[T, I]) stopReading() {
	if a.cancel != nil {
		a.cancel(context.Canceled)
	}
	if a.stop != nil {
		a.stop()
	}
}

// stopGuarded is stopReading before the lease is reported: a panic of the iterator is its outcome.
func (a *attempt[T, I]) stopGuarded() error {
	return a.lease.Guard(func() error {
		a.stopReading()
		return nil
	})
}

// firstTimeout returns the time limit of the first item, and reports whether it was cut to leave
// time for another provider.
func (a *attempt[T, I]) firstTimeout() (limit time.Duration, cut bool) {
	if a.explicit {
		return a.options.FirstTimeout, false
	}
	return a.lease.Steps().Share(a.options.FirstTimeout)
}

// ofCut returns the error of a stream whose first item did not arrive before the limit: the verdict
// on one that was cut is not that it has stalled.
func ofCut(err error, cut bool) error {
	if v, stated := verdict.Stated(err); cut && stated && v.Class == verdict.ClassStalled {
		return verdict.As(err, verdict.Verdict{Class: verdict.ClassCut})
	}
	return err
}

// begin is first, and releases everything unless that returns a stream.
func (a *attempt[T, I]) begin(open func(context.Context, T) (iter.Seq2[I, error], error)) (s *Stream[I], err error) {
	defer func() {
		if s == nil {
			_ = a.stopGuarded() // the failure is there already
		}
	}()
	return a.first(open)
}

// first opens the stream and reads its first item, or all of them.
func (a *attempt[T, I]) first(open func(context.Context, T) (iter.Seq2[I, error], error)) (*Stream[I], error) {
	a.ctx, a.cancel = context.WithCancelCause(a.lease.Context())
	a.lease.Steps().Patience(a.options.FirstTimeout)
	limit, cut := a.firstTimeout()
	if err := a.open(limit, open); err != nil {
		return nil, ofCut(err, cut)
	}
	a.busy = time.Since(a.began)
	s := &Stream[I]{provider: a.lease.Provider()}
	item, err, more := a.pull(limit-time.Since(a.began), ErrFirstItem)
	if err != nil {
		return nil, ofCut(err, cut)
	}
	s.toFirst = time.Since(a.began)
	a.lease.Steps().Answered()
	a.lease.Steps().Patience(a.options.Timeout)
	if s.buffered = a.early; more {
		s.buffered = append(s.buffered, item)
	}
	a.early = nil
	if more && a.options.Whole {
		if err := a.readAll(s); err != nil {
			return nil, err
		}
	}
	s.pull = func() (I, error, bool) { return a.pull(a.options.StallTimeout, ErrStalled) }
	s.end, s.release = a.finish, a.stop
	if !a.ended && !a.options.Whole && a.preamble == nil && !a.whole.Load() {
		if err := a.readAhead(s); err != nil {
			return nil, err
		}
	}
	if s.second == nil && a.ended {
		s.pull, s.end, s.release = nil, nil, nil
		if err := a.stopGuarded(); err != nil {
			return nil, err
		}
		a.lease.Done(nil)
		return s, nil
	}
	context.AfterFunc(a.ctx, func() { a.releaseBetweenReads(s) })
	return s, nil
}

// open opens the stream within limit.
func (a *attempt[T, I]) open(limit time.Duration, open func(context.Context, T) (iter.Seq2[I, error], error)) error {
	var items iter.Seq2[I, error]
	err := a.within(limit, ErrFirstItem, func() (err error) {
		items, err = open(a.ctx, a.lease.Value)
		return err
	})
	if err != nil {
		if items != nil { // it came too late; running it releases its resources
			runToRelease(a.lease, items)
		}
		return err
	}
	if items == nil {
		return verdict.As(errors.New("stream: open returned nothing to read"), verdict.Verdict{Class: verdict.ClassMalformed})
	}
	a.items, a.stop = pull(items)
	return nil
}

// readAll reads the items behind the first one until the stream ends.
func (a *attempt[T, I]) readAll(s *Stream[I]) error {
	for more := true; more && !a.ended; {
		item, err, another := a.pull(a.options.StallTimeout, ErrStalled)
		if err != nil {
			return err
		}
		if more = another; more {
			s.buffered = append(s.buffered, item)
		}
		switch {
		case len(s.buffered) <= a.options.MaxItems:
		case a.whole.Load():
			a.ended = true // what follows the end mark has no end
		default:
			return verdict.As(ErrTooLong, verdict.Verdict{Class: verdict.ClassMalformed})
		}
	}
	return nil
}

// runToRelease runs an iterator without a reader until it releases its resources; its context has
// ended.
func runToRelease[T, I any](lease *registry.Lease[T], items iter.Seq2[I, error]) {
	_ = lease.Guard(func() (err error) {
		for _, err = range items {
			break
		}
		return err
	})
}

// finish reports the end of the stream. The provider's code may be running at this moment, in
// the goroutine of a read: then its context ends it, and that goroutine releases it.
func (a *attempt[T, I]) finish(err error) {
	a.cancel(context.Canceled)
	if a.whole.Load() {
		err = nil // the reader can no longer change the outcome
	}
	a.lease.Done(err)
}

// caused adds why the context of the stream has ended, where err does not say it: the attempt
// timeout, the end of the provider, or the caller's cause.
func (a *attempt[T, I]) caused(err error) error {
	ctx := a.lease.Context()
	if err == nil || ctx.Err() == nil {
		return err
	}
	if cause := fault.Bound(context.Cause(ctx)); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// pullTail returns the next item behind the end mark. The answer is complete: whatever is wrong
// with what follows is its end.
func (a *attempt[T, I]) pullTail() (item I, more bool) {
	_ = a.within(min(a.options.StallTimeout, tailTimeout), ErrStalled, func() (err error) {
		for more = false; !more && err == nil; {
			var ok bool
			if item, err, ok = a.items(); !ok {
				return nil
			}
			more = err == nil && (a.options.KeepAlive == nil || !a.options.KeepAlive(item))
		}
		return err
	})
	if !more {
		a.ended = true
		var none I
		item = none
	}
	return item, more
}

// pull returns the next item with content. more is false at a complete end; an incomplete end
// is an error.
func (a *attempt[T, I]) pull(limit time.Duration, late error) (item I, err error, more bool) {
	if a.ended {
		return item, nil, false
	}
	if a.whole.Load() {
		item, more = a.pullTail()
		return item, nil, more
	}
	began := time.Now()
	unread := began.Sub(a.began) - a.busy
	err = a.within(limit, late, func() (err error) {
		item, err, more = a.pullContent(late == ErrFirstItem) //nolint:errorlint // this value
		return err
	})
	a.busy += time.Since(began)
	if err != nil {
		var none I
		return none, a.ofSlowReader(a.caused(err), unread), false
	}
	return item, nil, more
}

// within runs f and ends its context after limit. A later result is an error as well, since the
// context of everything that would follow has ended.
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

// cause waits for the end of the context, which its timer is about to cancel, and returns the
// cause.
func (a *attempt[T, I]) cause() error {
	<-a.ctx.Done()
	return fault.Bound(context.Cause(a.ctx))
}
