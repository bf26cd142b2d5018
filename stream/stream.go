// Package stream opens streams on providers and moves on to the next one until
// the first item is there.
//
// After the first item has been handed over the stream is committed: nobody else
// can go on where it was cut. So a stream that ends without its end mark is an
// error, never a success; with [Options.Whole] the items are held back until the
// end mark, and a cut stream is answered elsewhere instead.
package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
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

	pull    func() (I, error, bool)
	end     func(error)
	release func() // lets go of the provider's iterator; not while pull runs
	held    []I    // read already, not handed over

	// mu guards the fields below; no function of a provider is called while it is
	// held.
	mu       sync.Mutex
	begun    bool // somebody reads, or has read
	reading  bool // somebody reads now
	closed   bool
	finished bool
	released bool
}

// Provider returns the name of the provider that answers.
func (s *Stream[I]) Provider() string { return s.provider }

// TimeToFirst returns how long the provider took for the first item, which is
// also what counts as its latency.
func (s *Stream[I]) TimeToFirst() time.Duration { return s.toFirst }

// Attempts returns the tries on other providers that failed before.
func (s *Stream[I]) Attempts() []registry.Attempt { return s.attempts }

// All yields the items. A stream that is cut, stalls or ends without its end mark
// yields one error at last; an error that was yielded is final. Breaking off the
// loop closes the stream. It can be read once: after that it yields an error that
// matches [ErrClosed].
func (s *Stream[I]) All() iter.Seq2[I, error] {
	return func(yield func(I, error) bool) {
		var none I
		if !s.begin() {
			yield(none, ErrClosed)
			return
		}
		defer s.leave()
		for _, item := range s.held {
			if s.isClosed() {
				yield(none, ErrClosed)
				return
			}
			if !yield(item, nil) {
				return
			}
		}
		s.held = nil
		for s.pull != nil {
			item, err, more := s.pull()
			switch {
			case s.isClosed():
				yield(none, ErrClosed)
				return
			case err != nil:
				s.finish(err)
				yield(none, err)
				return
			case !more:
				s.finish(nil)
				return
			}
			if !yield(item, nil) {
				return
			}
		}
	}
}

func (s *Stream[I]) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun || s.closed {
		return false
	}
	s.begun, s.reading = true, true
	return true
}

// leave ends the reading.
func (s *Stream[I]) leave() {
	s.mu.Lock()
	s.reading = false
	s.mu.Unlock()
	_ = s.Close()
}

func (s *Stream[I]) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
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
// bounds the whole stream. The errors are those of [registry.Call]; a request
// that is too long for one provider is not offered to others.
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
	callOptions := append([]registry.CallOption{registry.AttemptTimeout(options.Timeout)}, options.Call...)
	once := false
	for _, option := range options.Call {
		once = once || option.String() == "OnceOnly"
	}
	failure := &registry.CallError{Service: resolver.Service()}
	var asked []string
	for {
		lease, err := resolver.AcquireOther(ctx, asked, callOptions...)
		if err != nil {
			return nil, exhausted(failure, err)
		}
		lease.Extend(reportingTime)
		asked = append(asked, lease.Provider())
		a := &attempt[T, I]{lease: lease, options: options, began: time.Now()}
		s, err := a.begin(ctx, open)
		if err == nil {
			s.attempts = failure.Attempts
			return s, nil
		}
		class := a.done(err)
		failure.Attempts = append(failure.Attempts, registry.Attempt{
			Provider: lease.Provider(), Why: why(len(asked)), Class: class, Duration: time.Since(a.began), Err: err,
		})
		if !movesOn(class, once) {
			failure.OnceOnly = once
			return nil, failure
		}
	}
}

// reportingTime is how long the lease outlives its context, so that a stream
// whose time is over reports so itself.
const reportingTime = time.Second

// exhausted is the error when nobody else could be asked, for the given reason.
func exhausted(failure *registry.CallError, reason error) error {
	if len(failure.Attempts) == 0 {
		return reason
	}
	var unavailable *registry.UnavailableError
	if !errors.As(reason, &unavailable) {
		return fmt.Errorf("%w; %w", reason, failure) // the caller's context has ended
	}
	failure.RetryIn = unavailable.RetryIn
	for _, candidate := range unavailable.Candidates {
		if !candidate.Eligible {
			failure.Skipped = append(failure.Skipped, candidate)
		}
	}
	return failure
}

func why(asked int) string {
	if asked == 1 {
		return "first"
	}
	return "failover"
}

func movesOn(class verdict.Class, once bool) bool {
	switch class.Rule().Next {
	case verdict.NextAlways:
		return true
	case verdict.NextYes, verdict.NextFree, verdict.NextBeforeFirstItem, verdict.NextByOption:
		return !once
	case verdict.NextNo, verdict.NextLargerWindow, verdict.NextWhenAllowed:
	}
	return false
}

// attempt is a stream on one provider.
type attempt[T, I any] struct {
	lease   *registry.Lease[T]
	options Options[I]
	began   time.Time

	ctx    context.Context //nolint:containedctx // the stream's
	cancel context.CancelCauseFunc
	next   func() (I, error, bool)
	stop   func()
	ended  bool // the end mark was seen, or the end where there is no mark
}

// done gives the provider back with the outcome.
func (a *attempt[T, I]) done(err error) verdict.Class {
	if a.cancel != nil {
		a.cancel(context.Canceled)
	}
	if a.stop != nil {
		a.stop()
	}
	return a.lease.Done(err)
}

// begin opens the stream and reads its first item, or all of them.
func (a *attempt[T, I]) begin(
	ctx context.Context, open func(context.Context, T) (iter.Seq2[I, error], error),
) (s *Stream[I], err error) {
	returned := false
	defer func() {
		if !returned { // a panic goes on to the caller; its outcome is recorded first
			a.done(verdict.As(errUnfinished, verdict.Verdict{Class: verdict.ClassPanic}))
		}
	}()
	s, err = a.first(ctx, open)
	returned = true
	return s, err
}

var errUnfinished = errors.New("stream: the provider's code panicked or ended its goroutine")

func (a *attempt[T, I]) first(
	_ context.Context, open func(context.Context, T) (iter.Seq2[I, error], error),
) (*Stream[I], error) {
	a.ctx, a.cancel = context.WithCancelCause(a.lease.Context())
	var items iter.Seq2[I, error]
	err := a.within(a.options.FirstTimeout, ErrFirstItem, func() (err error) {
		items, err = open(a.ctx, a.lease.Value)
		return err
	})
	if err != nil {
		return nil, err
	}
	if items == nil {
		return nil, verdict.As(errors.New("stream: open returned nothing to read"), verdict.Verdict{Class: verdict.ClassMalformed})
	}
	next, stop := iter.Pull2(items)
	a.next, a.stop = next, stop
	s := &Stream[I]{provider: a.lease.Provider()}
	item, err, more := a.pull(a.options.FirstTimeout-time.Since(a.began), ErrFirstItem)
	if err != nil {
		return nil, err
	}
	s.toFirst = time.Since(a.began)
	a.lease.Answered()
	if more {
		s.held = append(s.held, item)
	}
	for more && a.options.Whole {
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
	if !more {
		a.done(nil)
		return s, nil
	}
	s.pull = func() (I, error, bool) { return a.pull(a.options.StallTimeout, ErrStalled) }
	s.end, s.release = a.finish, a.stop
	return s, nil
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
	returned := false
	defer func() {
		if !returned { // the panic goes on to the reader
			a.finish(verdict.As(errUnfinished, verdict.Verdict{Class: verdict.ClassPanic}))
		}
	}()
	err = a.within(limit, late, func() error {
		for {
			var err error
			var ok bool
			item, err, ok = a.next()
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
	returned = true
	if err != nil {
		var none I
		return none, err, false
	}
	return item, nil, more
}

// within runs f, whose context ends when it takes too long.
func (a *attempt[T, I]) within(limit time.Duration, late error, f func() error) error {
	timer := time.AfterFunc(limit, func() { a.cancel(late) })
	err := f()
	if timer.Stop() || err == nil && a.ctx.Err() == nil {
		return err
	}
	if errors.Is(context.Cause(a.ctx), late) && err != nil {
		return verdict.As(fmt.Errorf("%w: %w", late, err), verdict.Verdict{Class: verdict.ClassStalled})
	}
	return err
}
