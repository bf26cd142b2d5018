package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/capreg/registry"
)

// Kinds of calls.
const (
	kindCall   = "call"
	kindLease  = "lease"
	kindMany   = "fan-out"
	kindGet    = "look-up"
	kindStream = "stream"
	kindReader = "reader"
	kindHedge  = "hedge"
)

// op is one call of the soak.
type op struct {
	number uint64
	seed   uint64
	kind   string
	ctx    context.Context //nolint:containedctx // the call's own
	cancel context.CancelFunc
	random *rand.Rand // of the goroutine of the call
	once   bool       // it must not run twice
	ledger *ledger

	tries atomic.Uint64
	crash atomic.Bool // a panic or an exit was planned

	mu    sync.Mutex // guards the fields below
	sent  bool
	names []string
}

// noteTry records a try of a provider, and checks that a once-only call is not tried twice.
func (o *op) noteTry(provider string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.once && o.sent {
		o.ledger.broke("%s %d: a call that must not run twice did, on %s", o.kind, o.number, provider)
	}
	o.sent = true
	o.names = append(o.names, provider)
}

// unsent takes back that something was sent, or says that it was not processed.
func (o *op) unsent() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent = false
}

func (o *op) crashes(a *account) {
	o.crash.Store(true)
	if o.kind == kindCall {
		a.crashed.Add(1)
	}
}

func (o *op) asked() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.names)
}

// longestCall bounds every call by its context; slack is the delay that a machine may add,
// and a function may take that heeds no context.
const (
	longestCall = 600 * time.Millisecond
	slack       = 10 * time.Second
)

// lateCalls is the number of calls that each caller makes on a closed registry.
const lateCalls = 10

// live makes calls until the context ends, or the registry has closed.
func (w *world) live(ctx context.Context, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // the same calls for the same seed
	for late := 0; ctx.Err() == nil && late < lateCalls; {
		if w.closed.Load() {
			late++
		}
		w.make(random.Uint64())
	}
}

// make makes one call and accounts for it, in a goroutine of its own, which a panic or an
// exit may end.
func (w *world) make(seed uint64) {
	o := &op{seed: seed, random: rand.New(rand.NewPCG(seed, 0)), ledger: w.ledger} //nolint:gosec // see live
	o.kind = drawKind(o.random)
	o.number = w.ledger.begin(o.kind)
	var cancelTimer *time.Timer
	o.ctx, o.cancel = context.WithTimeout(context.Background(), between(o.random, time.Millisecond, longestCall))
	defer o.cancel()
	switch o.random.IntN(20) {
	case 0:
		o.cancel()
	case 1, 2:
		cancelTimer = time.AfterFunc(between(o.random, 0, 50*time.Millisecond), o.cancel)
		defer cancelTimer.Stop()
	}
	began := time.Now()
	how := unplanned
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() { w.ledger.end(o.number, how) }()
		defer func() {
			if how == unplanned {
				how = w.crashed(o, recover())
			}
		}()
		how = w.run(o)
	}()
	<-ended
	if how == refused {
		_ = after(context.Background(), between(o.random, 0, 2*time.Millisecond)) // as a caller would
	}
	if took := time.Since(began); took > longestCall+slack {
		w.ledger.broke("%s %d took %v, its context %v at most", o.kind, o.number, took, longestCall)
	}
}

// crashed records the end of a call that did not return, and whether that was planned.
func (w *world) crashed(o *op, value any) outcome {
	if value == nil {
		if !o.crash.Load() {
			w.ledger.broke("%s %d: its goroutine has exited, which was not planned", o.kind, o.number)
			return unplanned
		}
		return exited
	}
	if plan, ok := value.(planned); !ok || plan.call != o.number || w.panicsAreErrors {
		w.ledger.broke("%s %d: a panic that was not planned: %v", o.kind, o.number, value)
		return unplanned
	}
	return panicked
}

func drawKind(random *rand.Rand) string {
	switch at := random.IntN(100); {
	case at < 55:
		return kindCall
	case at < 67:
		return kindLease
	case at < 71:
		return kindMany
	case at < 83:
		return kindGet
	case at < 90:
		return kindStream
	case at < 94:
		return kindReader
	}
	return kindHedge
}

func (w *world) run(o *op) outcome {
	w.lookups.Add(1)
	switch o.kind {
	case kindLease:
		return w.lease(o)
	case kindMany:
		return w.many(o)
	case kindGet:
		return w.get(o)
	case kindStream:
		return w.stream(o)
	case kindReader:
		return w.reader(o)
	case kindHedge:
		return w.hedge(o)
	}
	return w.call(o)
}

// options draws the options of a call.
func (o *op) options() (options []registry.CallOption, report *registry.CallReport) {
	if o.random.IntN(10) == 0 && o.kind != kindHedge {
		o.once = true
		options = append(options, registry.OnceOnly())
	}
	if o.random.IntN(5) == 0 {
		options = append(options, registry.AttemptTimeout(between(o.random, time.Millisecond, 300*time.Millisecond)))
	}
	if o.random.IntN(10) == 0 {
		options = append(options, registry.WaitForCooldown())
	}
	if o.random.IntN(5) == 0 {
		options = append(options, registry.Caller([]string{"anna", "ben", "unknown"}[o.random.IntN(3)]))
	}
	if o.random.IntN(3) == 0 && o.kind == kindCall {
		report = &registry.CallReport{}
		options = append(options, registry.ReportTo(report))
	}
	return options, report
}

// of returns the outcome of a call from its error.
func (o *op) of(err error) outcome {
	var call *registry.CallError
	switch {
	case err == nil:
		return answered
	case o.ctx.Err() != nil:
		return cancelled
	case errors.As(err, &call):
		return failed
	case errors.Is(err, registry.ErrUnavailable):
		return refused
	}
	return failed
}
