package registryhttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/request"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/verdict"
)

// exchange is one attempt: a request to one provider, and then the body of its answer.
//
//	begin ── failure ─▶ over (detached: its refusal may still be read)
//	  │ first byte
//	  ▼
//	committed ── end, error, Close, or the end of the lease between two reads ─▶ over
type exchange struct {
	// What each read needs stands together: the memory of a slow stream is not near the processor any more when its next
	// piece arrives.

	body    io.ReadCloser // the provider's
	first   []byte        // read and not handed over
	readErr error         // behind first
	empty   int           // reads in a row without bytes
	last    time.Duration // when the time for the whole answer is over
	stall   time.Duration // the time for each further read; zero: that for the whole answer

	// mu guards the fields below it up to timer; nothing is called while it is held but the clock, methods of the timer and Patience.
	mu       sync.Mutex
	phase    phase
	reading  bool          // also from the start until the answer is returned
	over     bool          // the outcome was reported
	closed   bool          // by the reader
	detached bool          // the lease is reported by the round, and the answer is a refusal that may still be read
	ended    bool          // the context, of an answer that is committed
	own      bool          // the limit is that of [LimitFirst]
	cut      bool          // what is due leaves time for another provider
	due      time.Duration // when ctx is ended
	rings    time.Duration // when the timer goes off; never: it does not
	limit    time.Duration // of the first byte
	unwatch  func() bool   // nil until the answer is committed and has more to read
	timer    schedule.Timer

	round    *round
	lease    *registry.Lease[*Upstream]
	ctx      context.Context //nolint:containedctx // of the request, and then of the body
	end      context.CancelCauseFunc
	removal  attemptctx.Follower // ends ctx when the provider is told to stop
	unfollow func() bool         // ends it with a context of a hook; nil without
	sent     http.Request        // to the provider
	url      url.URL             // of that
	response *http.Response
	failure  error
	buffer   *[firstSize]byte // of first
	told     error            // readErr as the reader gets it
	began    time.Duration
	clients  bool // what is last is the client's deadline
}

// phase says what an exchange waits for, and so what is wrong when that takes too long.
type phase uint8

const (
	phaseFirst phase = iota // the first byte
	phaseBody               // the next bytes, or a reader
)

// never is later than every time.
const never time.Duration = math.MaxInt64

// clientContext is an exchange as the context of its client with the values of the attempt. It does not ask the context of
// the attempt whether it has ended, which would cost a timer, nor that of the client where the exchange keeps the deadline.
type clientContext exchange

func (c *clientContext) client() context.Context {
	ctx, _ := request.Unlimited(c.round.request.Context())
	return ctx
}

// Deadline returns the client's.
func (c *clientContext) Deadline() (time.Time, bool) { return c.round.request.Context().Deadline() }

// Done returns the client's.
func (c *clientContext) Done() <-chan struct{} { return c.client().Done() }

// Err returns the client's.
func (c *clientContext) Err() error { return c.client().Err() }

// exchangeKey is the key under which the context of an attempt has its exchange.
type exchangeKey struct{}

// Value returns the value of the attempt, where it has one.
func (c *clientContext) Value(key any) any {
	switch key {
	case exchangeKey{}:
		return (*exchange)(c)
	case request.SenderKey{}:
		return (*exchange)(c).sender()
	}
	attempt := c.lease.Context()
	value, plain := attemptctx.OwnValue(attempt, key)
	if !plain { // a hook has changed it
		value = context.WithoutCancel(attempt).Value(key)
	}
	if value != nil {
		return value
	}
	return c.client().Value(key)
}

// LimitFirst bounds the time until the first byte of an answer, from now on, where that is less than what
// [Options.FirstTimeout] leaves: for a transport of an upstream that knows how long this answer may take, which then needs
// neither a timer nor a context of its own. It ends the attempt as a whole, so it is not for one that is sent again by what
// stands between. It reports whether ctx is the context of an attempt of a [Transport], or derived
// from it, that waits for its first byte; otherwise it does nothing. It does not block, and is safe for concurrent use.
func LimitFirst(ctx context.Context, limit time.Duration) bool {
	if ctx == nil {
		return false
	}
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x != nil && x.limitFirst(max(limit, 0))
}

func (x *exchange) limitFirst(limit time.Duration) bool {
	now := x.now()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.phase != phaseFirst || x.over {
		return false
	}
	if x.limit > limit {
		x.limit, x.own = limit, true
	}
	if after(now, limit) < x.due {
		x.cut = false
		x.allow(now, limit)
		x.lease.Steps().Patience(after(now-x.began, limit))
	}
	return true
}

// firstSize is the number of bytes that are read at most before an answer is committed.
const firstSize = 4 << 10

//nolint:gochecknoglobals // of buffers
var firstBuffers = sync.Pool{New: func() any { return new([firstSize]byte) }}

var errNoResponse = verdict.As(errors.New("registryhttp: the transport returned neither an answer nor an error"),
	verdict.Verdict{Class: verdict.ClassMalformed})

// begin sends the request and returns the answer with its first byte. With a failure the answer may be one as
// well: the refusal of the provider.
func (x *exchange) begin(r *round, lease *registry.Lease[*Upstream]) (response *http.Response, failure error) {
	x.round, x.lease, x.reading, x.rings = r, lease, true, never
	begun := false
	defer func() {
		if !begun { // a panic, which the lease has recorded
			x.drop()
		}
	}()
	failure = lease.Guard(x.open)
	begun = true
	if failure != nil {
		x.response = nil // it is the error of a panic, or there is none
		x.drop()
		return nil, failure
	}
	return x.response, x.failure
}

// open makes the request and decides on the answer. An error is a failure without one.
func (x *exchange) open() error {
	leased := x.lease.Context()
	x.ctx, x.end = context.WithCancelCause((*clientContext)(x))
	if !x.removal.Follow(leased, (*removal)(x)) { // a hook has changed it
		x.unfollow = context.AfterFunc(leased, (*removal)(x).ContextEnded)
	}
	x.startClock()
	x.lease.Value.address(x)
	if err := x.round.body.give(x); err != nil {
		return err
	}
	var err error
	x.response, err = x.sender().RoundTrip(&x.sent) //nolint:bodyclose // it is the answer's
	switch {
	case err != nil:
		return x.caused(err)
	case x.response == nil:
		return errNoResponse
	}
	return x.judge()
}

// sender returns the transport that sends the request.
func (x *exchange) sender() http.RoundTripper {
	if own := x.lease.Value.options.Transport; own != nil {
		return own
	}
	return x.round.transport.base
}

// removal is an exchange whose lease has ended.
type removal exchange

// ContextEnded ends the context with that of the lease.
func (r *removal) ContextEnded() { r.end(fault.Bound(context.Cause(r.lease.Context()))) }

// address makes the request that is sent one to the upstream.
func (u *Upstream) address(x *exchange) {
	in := x.round.request
	x.sent = *in.WithContext(x.ctx) // a part of the exchange, so that it costs no allocation
	u.target(&x.url, in.URL, x.round.transport.options.Base)
	x.sent.URL, x.sent.Host, x.sent.Header = &x.url, u.host, u.headers(x.ctx, in)
	x.sent.Response = nil
}

// startClock limits the time until the first byte.
func (x *exchange) startClock() {
	options := &x.round.transport.options
	most, explicit := options.FirstTimeout, x.round.transport.explicit
	if own := x.lease.Value.options.FirstTimeout; own > 0 {
		most, explicit = own, true
	}
	x.lease.Steps().Patience(most)
	client := x.round.request.Context()
	_, bounded := client.Deadline()
	if x.limit = most; bounded && !explicit && !x.round.body.mayGetLost() {
		x.limit, x.cut = x.lease.Steps().Share(most)
	}
	left := options.Timeout
	if x.stall = options.StallTimeout; x.stall >= left {
		x.stall = 0
	}
	if _, deadline := request.Unlimited(client); !deadline.IsZero() {
		// Read before the clock: what is over by that is over for the client as well.
		if until := time.Until(deadline); until < left {
			left, x.clients = until, true
		}
	}
	x.began = x.now()
	x.last = after(x.began, left)
	x.allow(x.began, x.limit) // without mu: nothing else knows the exchange yet
}

func (x *exchange) now() time.Duration { return x.round.transport.timers.Now() }

// after returns the time d later, at most never: the longest d is no limit.
func after(now, d time.Duration) time.Duration { return now + min(d, never-now) }

// allow ends the context after the limit, and the time for the whole answer, unless it is called again before. It is
// called with mu held. A timer that goes off too soon is left as it is, since most limits are never reached.
func (x *exchange) allow(now, limit time.Duration) {
	x.due = min(after(now, limit), x.last)
	if x.rings <= x.due {
		return
	}
	x.rings = x.due
	x.round.transport.timers.Start(&x.timer, x.due, (*alarm)(x))
}

// allowAll limits nothing but the time for the whole answer. It is called with mu held.
func (x *exchange) allowAll() { x.due = x.last }

// alarm is an exchange whose timer has gone off.
type alarm exchange

// Run ends the context if the timer went off in time.
func (a *alarm) Run() {
	if cause := (*exchange)(a).overdue(); cause != nil {
		a.end(cause)
	}
}

// overdue returns why the context is to be ended; nil: it is not yet.
func (x *exchange) overdue() error {
	now := x.now()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.rings = never
	switch {
	case x.over:
		return nil
	case now < x.due:
		x.allow(now, x.due-now)
		return nil
	case now >= x.last && x.clients:
		return context.DeadlineExceeded
	case now >= x.last:
		return registry.ErrAttemptTimeout
	case x.phase == phaseFirst:
		return ErrFirstByte
	}
	return ErrStalled
}

// pause stops the clock while the body of the request is produced.
func (x *exchange) pause() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.phase == phaseFirst && !x.over {
		x.allowAll()
		x.lease.Steps().Patience(x.round.transport.options.Timeout)
	}
}

// resume starts it again.
func (x *exchange) resume() {
	now := x.now()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.phase == phaseFirst && !x.over {
		x.cut = x.cut && !x.own
		x.allow(now, x.limit)
		x.lease.Steps().Patience(after(now-x.began, x.limit))
	}
}

// judge decides on an answer whose header has arrived.
func (x *exchange) judge() error {
	response, in, transport := x.response, x.round.request, x.round.transport
	response.Request = in
	if response.StatusCode == http.StatusSwitchingProtocols {
		x.answered()
		x.round.body.commit()
		x.detach() // the connection is the client's now
		x.lease.Done(nil)
		return nil
	}
	failure := verdict.FromResponse(response)
	if x.body = response.Body; x.body == nil {
		x.body = http.NoBody
	}
	response.Body = x
	if x.refused(failure) {
		return nil
	}
	if response.StatusCode >= http.StatusMultipleChoices {
		x.lease.Value.localize(response, x.sent.URL, in.URL, transport.options.Base)
	}
	if !transport.options.CommitHeader && x.round.repeatable && x.round.body.repeatable() {
		if err := x.peek(); err != nil {
			return err
		}
		if x.refused(x.inspect()) {
			return nil
		}
	}
	x.commit()
	return nil
}

// refused notes the failure, if there is one, of an answer that may be returned all the same.
func (x *exchange) refused(failure error) bool {
	if failure == nil {
		return false
	}
	x.failure = failure
	x.answered()
	return true
}

// commit makes the answer the one of the request.
func (x *exchange) commit() {
	x.round.body.commit()
	if x.atEnd() {
		x.finishRead(nil, false)
		return
	}
	x.answered()
	x.lease.Steps().Answered()
	x.lease.Steps().Patience(x.round.transport.options.Timeout)
	x.mu.Lock() // for the function, which may run at once
	x.unwatch = context.AfterFunc(x.ctx, x.contextEnded)
	x.mu.Unlock()
	x.leave()
}

// peek reads the first bytes of the body.
func (x *exchange) peek() error {
	if x.body == http.NoBody {
		return nil
	}
	x.buffer, _ = firstBuffers.Get().(*[firstSize]byte)
	for empty := 0; len(x.first) == 0 && x.readErr == nil; empty++ {
		var n int
		n, x.readErr = x.body.Read(x.buffer[:])
		if x.first = x.buffer[:n]; n == 0 && empty >= mostEmptyReads {
			x.readErr = io.ErrNoProgress
		}
	}
	if len(x.first) == 0 && !x.atEnd() {
		return x.caused(x.readErr)
	}
	return nil
}

// atEnd reports whether nothing is left to read behind the first bytes.
func (x *exchange) atEnd() bool {
	return x.body == http.NoBody || isEnd(x.readErr)
}

// isEnd reports whether a reader has ended in order: an error around io.EOF is one.
func isEnd(err error) bool { return err == io.EOF } //nolint:errorlint // see above

// inspect shows the answer to the user's function.
func (x *exchange) inspect() error {
	inspect := x.round.transport.options.Inspect
	if inspect == nil {
		return nil
	}
	var err error
	_ = fault.Run(func() error { err = inspect(x.response, x.first); return nil })
	return err
}

// mostEmptyReads bounds the reads in a row that return neither bytes nor an error.
const mostEmptyReads = 100

// answered ends the wait for the first byte.
func (x *exchange) answered() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.phase = phaseBody
	x.allowAll()
}

// caused returns the error of an attempt or a body, with why its context has ended where the error does not say it.
func (x *exchange) caused(err error) error {
	if around, ok := err.(*url.Error); ok { //nolint:errorlint // the outermost
		err = around.Err // it shows the URL of the provider, with its query
	}
	if x.ctx.Err() == nil {
		return err
	}
	cause := x.cause()
	switch {
	case errors.Is(err, cause):
	case cause == context.DeadlineExceeded && err == context.Canceled: //nolint:errorlint // the context says so where the clock has ended it
		err = cause
	default:
		err = fmt.Errorf("%w: %w", cause, err)
	}
	x.mu.Lock()
	cut := x.cut
	x.mu.Unlock()
	switch {
	case errors.Is(cause, ErrFirstByte) && cut:
		return verdict.As(err, verdict.Verdict{Class: verdict.ClassCut})
	case errors.Is(cause, ErrFirstByte), errors.Is(cause, ErrStalled):
		return verdict.As(err, verdict.Verdict{Class: verdict.ClassStalled})
	}
	return err
}

// cause returns why the context has ended. Where it was the time for the whole answer, the attempt learns it.
func (x *exchange) cause() error {
	cause := fault.Bound(context.Cause(x.ctx))
	if errors.Is(cause, registry.ErrAttemptTimeout) {
		_ = x.lease.Context().Err()
	}
	return cause
}
