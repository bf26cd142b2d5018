package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/hedge"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/stream"
	"github.com/capreg/registry/verdict"
)

// call makes a call and checks its result against the counts of the backends.
func (w *world) call(o *op) outcome {
	options, report := o.options()
	checked := false
	defer func() { // deferred: panics and exits are reported as well
		if report != nil && !checked {
			o.checkReport(report)
		}
	}()
	got, err := registry.Call(o.ctx, w.resolver(o.random), func(ctx context.Context, b *backend) (answer, error) {
		return b.serve(ctx, o)
	}, options...)
	if err == nil && (got.call != o.number || got.try != o.tries.Load()) {
		w.ledger.broke("call %d got the answer of try %d of call %d, not of its try %d", o.number, got.try, got.call, o.tries.Load())
	}
	if o.crash.Load() && !w.panicsAreErrors {
		w.ledger.broke("call %d returned although its function had panicked or exited", o.number)
	}
	if err != nil {
		tried := 0
		if failure, ok := errors.AsType[*registry.CallError](err); ok {
			tried = len(failure.Attempts)
		}
		if tries := o.tries.Load(); uint64(tried) != tries {
			w.ledger.broke("call %d names %d attempts of %d: %v", o.number, tried, tries, err)
		}
	}
	if report != nil {
		checked = true
		o.checkReport(report)
	}
	return o.of(err)
}

// checkReport compares the report of a call with the counts of the backends.
func (o *op) checkReport(report *registry.CallReport) {
	var reported []string
	seen := make(map[string]bool)
	for _, a := range report.Attempts {
		if (a.Why == reason.First || a.Why == reason.Failover) && seen[a.Provider] {
			o.ledger.broke("call %d asked %s twice: %+v", o.number, a.Provider, report.Attempts)
		}
		seen[a.Provider] = true
		reported = append(reported, a.Provider)
	}
	if asked := o.asked(); !slices.Equal(asked, reported) {
		o.ledger.broke("call %d asked %v and reports %v", o.number, asked, reported)
	}
}

// get looks up, and uses nothing.
func (w *world) get(o *op) outcome {
	r := w.resolver(o.random)
	if o.random.IntN(4) > 0 {
		b, err := r.Get(o.ctx)
		if (b == nil) == (err == nil) {
			w.ledger.broke("look-up %d: Get returned %v and %v", o.number, b, err)
		}
		return o.of(err)
	}
	limit := o.random.IntN(4)
	all, err := r.GetAll(o.ctx, limit)
	if (len(all) == 0) == (err == nil) || limit > 0 && len(all) > limit || slices.Contains(all, nil) {
		w.ledger.broke("look-up %d: GetAll(%d) returned %v and %v", o.number, limit, all, err)
	}
	return o.of(err)
}

// lease acquires, works and reports, or forgets to.
func (w *world) lease(o *op) outcome {
	options, _ := o.options()
	lease, err := w.resolver(o.random).Acquire(o.ctx, options...)
	how := o.of(err)
	var beside *registry.Lease[*backend]
	for lease != nil {
		if beside == nil && o.random.IntN(6) == 0 {
			if beside, _ = lease.Steps().Beside(); beside != nil {
				defer w.report(o, beside)
			}
		}
		random, _ := lease.Value.enter(o)
		o.noteTry(lease.Provider())
		work := func() error { return lease.Value.behave(lease.Context(), o, random) }
		switch o.random.IntN(8) {
		case 0:
			return forgotten
		case 1:
			w.doneTwice(o, lease)
			return answered
		}
		err := lease.Guard(work) // may panic or exit: then it is reported
		if err == nil && lease.Done(nil) != verdict.ClassIgnored {
			return answered
		}
		next, failure := lease.MoveOn(err)
		if next == nil {
			how = o.of(failure)
		}
		lease = next
	}
	return how
}

// report ends a lease that was acquired in addition to another.
func (w *world) report(o *op, lease *registry.Lease[*backend]) {
	lease.Value.account.entered.Add(1)
	if o.random.IntN(4) > 0 { // else it is forgotten
		lease.Done(errIll)
	}
}

// doneTwice reports a success from two goroutines at once, of which one counts.
func (w *world) doneTwice(o *op, lease *registry.Lease[*backend]) {
	var classes [2]verdict.Class
	var waiting sync.WaitGroup
	for i := range classes {
		waiting.Go(func() { classes[i] = lease.Done(nil) })
	}
	waiting.Wait()
	if classes[0] != verdict.ClassIgnored && classes[1] != verdict.ClassIgnored {
		w.ledger.broke("lease %d was reported twice: %v", o.number, classes)
	}
}

// many looks up all providers.
func (w *world) many(o *op) outcome {
	options, _ := o.options()
	limit := o.random.IntN(4)
	leases, err := w.resolver(o.random).AcquireAll(o.ctx, limit, options...)
	if (len(leases) == 0) == (err == nil) || limit > 0 && len(leases) > limit {
		w.ledger.broke("fan-out %d of %d returned %d leases and %v", o.number, limit, len(leases), err)
	}
	var names []string
	for _, lease := range leases {
		if slices.Contains(names, lease.Provider()) {
			w.ledger.broke("fan-out %d has %s twice", o.number, lease.Provider())
		}
		names = append(names, lease.Provider())
		lease.Value.account.entered.Add(1)
	}
	var waiting sync.WaitGroup
	for i, lease := range leases {
		if i%5 == 4 {
			continue // forgotten
		}
		waiting.Go(func() { lease.Done(after(lease.Context(), time.Millisecond)) })
	}
	waiting.Wait()
	return o.of(err)
}

// hedge calls several providers at once.
func (w *world) hedge(o *op) outcome {
	options, _ := o.options()
	policy := hedge.Policy{After: between(o.random, time.Millisecond, 20*time.Millisecond), MaxProviders: 1 + o.random.IntN(3)}
	got, err := hedge.Call(o.ctx, w.resolver(o.random), policy, func(ctx context.Context, b *backend) (answer, error) {
		return b.serve(ctx, o)
	}, options...)
	if err == nil && got.call != o.number {
		w.ledger.broke("hedge %d got the answer of call %d", o.number, got.call)
	}
	if err == nil && o.tries.Load() > uint64(policy.MaxProviders) { //nolint:gosec // 1 to 3
		w.ledger.broke("hedge %d asked %d providers, not %d at most", o.number, o.tries.Load(), policy.MaxProviders)
	}
	return o.of(err)
}

// item is an item of a stream; last marks the final one.
type item struct {
	call, try uint64
	number    int
	last      bool
}

const mostItems = 6

// stream reads a stream, or breaks off, or never begins.
func (w *world) stream(o *op) outcome {
	options, _ := o.options()
	s, err := stream.Open(o.ctx, w.resolver(o.random), func(ctx context.Context, b *backend) (iter.Seq2[item, error], error) {
		random, try := b.enter(o)
		o.noteTry(b.account.name)
		if err := b.behave(ctx, o, random); err != nil {
			return nil, err
		}
		return b.items(ctx, o, random, try), nil
	}, stream.Options[item]{
		FirstTimeout: between(o.random, 5*time.Millisecond, 100*time.Millisecond), StallTimeout: between(o.random, 5*time.Millisecond, 50*time.Millisecond),
		Timeout: between(o.random, 50*time.Millisecond, 300*time.Millisecond),
		Last:    func(i item) bool { return i.last }, Whole: o.random.IntN(4) == 0, Call: options,
	})
	if err != nil {
		return o.of(err)
	}
	switch o.random.IntN(8) {
	case 0:
		return forgotten // its time will end it
	case 1:
		_ = s.Close()
		return cancelled
	}
	breakAt := o.random.IntN(4 * mostItems)
	expected, complete := 0, false
	var try uint64
	for got, err := range s.All() {
		if err != nil {
			return failed
		}
		if expected == 0 {
			try = got.try
		}
		if got.call != o.number || got.try != try || got.number != expected || complete {
			w.ledger.broke("stream %d: item %+v, not item %d of try %d", o.number, got, expected, try)
		}
		expected++
		complete = got.last
		if expected > breakAt && !complete {
			return cancelled
		}
		if o.random.IntN(10) == 0 {
			_ = after(o.ctx, 5*time.Millisecond)
		}
	}
	if !complete {
		w.ledger.broke("stream %d ended without its end mark, and without an error", o.number)
	}
	return answered
}

// items yields some items, and may be cut, stall, panic or exit between them.
func (b *backend) items(ctx context.Context, o *op, random *rand.Rand, try uint64) iter.Seq2[item, error] {
	return func(yield func(item, error) bool) {
		b.account.held.Add(1)
		defer b.account.held.Add(-1)
		count := 1 + random.IntN(mostItems)
		for i := range count {
			if random.IntN(12) == 0 {
				b.account.seen.note("stream broken")
				switch err := b.behave(ctx, o, random); {
				case err != nil:
					yield(item{}, err)
					return
				case random.IntN(3) == 0:
					return // truncated
				}
			}
			if !yield(item{call: o.number, try: try, number: i, last: i == count-1}, nil) {
				return
			}
		}
	}
}

var endMark = []byte("data: [DONE]\n\n") //nolint:gochecknoglobals // immutable

// reader reads a stream of bytes.
func (w *world) reader(o *op) outcome {
	options, _ := o.options()
	body, err := stream.Reader(o.ctx, w.resolver(o.random), func(ctx context.Context, b *backend) (io.ReadCloser, error) {
		random, _ := b.enter(o)
		o.noteTry(b.account.name)
		if err := b.behave(ctx, o, random); err != nil {
			return nil, err
		}
		return newBody(ctx, b, o, random), nil
	}, stream.ReaderOptions{End: endMark, Options: stream.Options[[]byte]{
		FirstTimeout: between(o.random, 5*time.Millisecond, 100*time.Millisecond), StallTimeout: 30 * time.Millisecond,
		Timeout: 300 * time.Millisecond, Whole: o.random.IntN(4) == 0, Call: options,
	}})
	if err != nil {
		return o.of(err)
	}
	if o.random.IntN(8) == 0 {
		return forgotten
	}
	defer func() { _ = body.Close() }()
	text, err := io.ReadAll(body)
	// The mark is complete without its line ends: servers of events leave them out.
	switch complete := bytes.HasSuffix(bytes.TrimRight(text, "\n"), bytes.TrimRight(endMark, "\n")); {
	case err != nil:
		return failed
	case !complete:
		w.ledger.broke("reader %d ended without its end mark, and without an error: %q", o.number, text)
	}
	return answered
}

// body is an answer that comes in small pieces.
type body struct {
	ctx    context.Context //nolint:containedctx // as of an HTTP response
	of     *backend
	call   *op
	random *rand.Rand
	rest   []byte
	once   sync.Once
}

func newBody(ctx context.Context, b *backend, o *op, random *rand.Rand) *body {
	b.account.held.Add(1)
	text := bytes.Repeat([]byte("data: {}\n\n"), random.IntN(mostItems))
	return &body{ctx: ctx, of: b, call: o, random: random, rest: append(text, endMark...)}
}

// Read gives a few bytes, and may be cut.
func (b *body) Read(p []byte) (int, error) {
	if b.random.IntN(15) == 0 {
		b.of.account.seen.note("body broken")
		if err := b.of.behave(b.ctx, b.call, b.random); err != nil {
			return 0, err
		}
		if b.random.IntN(3) == 0 {
			return 0, io.EOF
		}
	}
	n := copy(p, b.rest[:min(1+b.random.IntN(8), len(b.rest))])
	b.rest = b.rest[n:]
	if n == 0 {
		return 0, io.EOF
	}
	return n, b.ctx.Err()
}

// Close counts that it is closed.
func (b *body) Close() error {
	b.once.Do(func() { b.of.account.held.Add(-1) })
	return nil
}
