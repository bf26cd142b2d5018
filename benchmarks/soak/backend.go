package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/verdict"
)

// mood is the behaviour of a backend for a while.
type mood int32

const (
	well    mood = iota // answers nearly always
	shaky               // fails every other time, in any way
	down                // answers nothing
	limited             // rate limited
	broken              // panics, exits, hangs
	moodCount
)

// fault is the outcome of one try on a backend.
type fault int

const (
	faultNone      fault = iota
	faultSlow            // an answer, later
	faultClass           // an error of some class, stated
	faultWire            // an error as a network or a server gives it
	faultLimit           // a rate limit, with or without a time
	faultPark            // a refusal that only an operator can end
	faultHang            // until its context ends
	faultDeaf            // for longer than its context
	faultPanic           // of the provider's code
	faultExit            // runtime.Goexit
	faultHangUp          // the caller goes away meanwhile
	faultBadAnswer       // a mistake of the caller
	faultCount
)

func (f fault) String() string {
	return [faultCount]string{
		"none", "slow answer", "error of a class", "network or server error", "rate limit", "parked", "hang",
		"hang that heeds no context", "panic", "exit", "caller goes away", "bad request",
	}[f]
}

// chances are the weights of the faults in each mood.
var chances = [moodCount][faultCount]int{ //nolint:gochecknoglobals // a table
	well:    {faultNone: 900, faultSlow: 60, faultClass: 10, faultWire: 10, faultHangUp: 10, faultBadAnswer: 10},
	shaky:   {faultNone: 350, faultSlow: 100, faultClass: 150, faultWire: 150, faultLimit: 50, faultPark: 5, faultHang: 40, faultDeaf: 20, faultPanic: 30, faultExit: 30, faultHangUp: 45, faultBadAnswer: 30},
	down:    {faultClass: 200, faultWire: 700, faultHang: 100},
	limited: {faultNone: 300, faultLimit: 600, faultPark: 20, faultSlow: 80},
	broken:  {faultPanic: 250, faultExit: 250, faultHang: 300, faultDeaf: 100, faultClass: 100},
}

func (m mood) draw(random *rand.Rand) fault {
	sum := 0
	for _, weight := range chances[m] {
		sum += weight
	}
	at := random.IntN(sum)
	for f, weight := range chances[m] {
		if at -= weight; at < 0 {
			return fault(f)
		}
	}
	return faultNone
}

// account counts the backend's own tries, for one registration.
// It outlives the backend, so that nothing but the registry keeps that alive.
type account struct {
	name  string
	mood  atomic.Int32
	ill   atomic.Int32 // how its probes end, a sickness
	ledge *ledger
	seen  *faults

	entered atomic.Uint64 // tries that were given to it
	sure    atomic.Uint64 // of them: answers that count as a success whatever else happens
	crashed atomic.Uint64 // of them: panics and exits, each a failure whatever else happens
	made    atomic.Int64  // instances that its factory made
	closed  atomic.Int64  // of them: closed
	held    atomic.Int64  // iterators and bodies that are open

	places int // a bulkhead that does not change; 0: none
	inside atomic.Int64
}

// faults counts the injected faults and changes.
type faults struct {
	tries  [faultCount]atomic.Uint64
	mu     sync.Mutex // guards others
	others map[string]uint64
}

func (f *faults) note(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.others[what]++
}

// backend is an instance of the service.
type backend struct{ account *account }

// answer identifies the try and the call that it answers.
type answer struct{ call, try uint64 }

var backends = registry.NewService[*backend]("backend")

var (
	errIll   = errors.New("ill")
	errTwice = errors.New("closed twice")
)

// statusError is an HTTP status as an error of a client.
type statusError struct {
	code  int
	after time.Duration
}

func (e *statusError) Error() string             { return fmt.Sprintf("status %d", e.code) }
func (e *statusError) HTTPStatusCode() int       { return e.code }
func (e *statusError) RetryAfter() time.Duration { return e.after }

// planned is the value of a panic that is meant to reach the caller.
type planned struct{ call uint64 }

// after waits, for as long as the context allows.
func after(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func between(random *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(random.Int64N(int64(most-least)+1))
}

// enter counts a try.
func (b *backend) enter(o *op) (random *rand.Rand, try uint64) {
	b.account.entered.Add(1)
	try = o.tries.Add(1)
	return rand.New(rand.NewPCG(o.seed, try)), try //nolint:gosec // the same faults for the same seed
}

// serve is the function of a call on the backend.
func (b *backend) serve(ctx context.Context, o *op) (answer, error) {
	random, try := b.enter(o)
	if a := b.account; a.places > 0 && o.kind == kindCall {
		defer a.inside.Add(-1)
		if inside := a.inside.Add(1); inside > int64(a.places) {
			a.ledge.broke("%s: %d calls inside a bulkhead of %d", a.name, inside, a.places)
		}
	}
	o.noteTry(b.account.name)
	err := b.behave(ctx, o, random)
	if err != nil {
		return answer{}, err
	}
	if o.kind == kindCall {
		b.account.sure.Add(1)
	}
	return answer{o.number, try}, nil
}

// behave acts by the mood; nil is an answer.
func (b *backend) behave(ctx context.Context, o *op, random *rand.Rand) error {
	drawn := mood(b.account.mood.Load()).draw(random)
	b.account.seen.tries[drawn].Add(1)
	switch drawn {
	case faultSlow:
		return after(ctx, between(random, 0, 20*time.Millisecond))
	case faultClass:
		classes := verdict.Classes()
		class := classes[random.IntN(len(classes))]
		if class.Rule().OnceMovesOn {
			o.unsent()
		}
		return verdict.As(errIll, verdict.Verdict{Class: class, After: someTime(random)})
	case faultWire:
		return wireError(o, random)
	case faultLimit:
		o.unsent()
		return verdict.RateLimited(errIll, someTime(random))
	case faultPark:
		o.unsent()
		return verdict.Fatal(errIll, someTime(random))
	case faultHang:
		<-ctx.Done()
		return ctx.Err()
	case faultDeaf:
		<-time.After(between(random, 0, 150*time.Millisecond))
		return ctx.Err()
	case faultPanic:
		o.crashes(b.account)
		panic(planned{o.number})
	case faultExit:
		o.crashes(b.account)
		runtime.Goexit()
	case faultHangUp:
		o.cancel()
		return after(ctx, time.Millisecond)
	case faultBadAnswer:
		return verdict.Permanent(errIll)
	case faultNone, faultCount:
	}
	return nil
}

// someTime is the delay that a server asks for: none, or up to 200 ms.
func someTime(random *rand.Rand) time.Duration {
	if random.IntN(4) == 0 {
		return 0
	}
	return between(random, time.Millisecond, 200*time.Millisecond)
}

// unprocessed returns the statuses that say that nothing was processed: a call that must not run twice moves on.
func unprocessed() []int { return []int{401, 402, 403, 407, 421, 425, 429, 501} }

func wireError(o *op, random *rand.Rand) error {
	switch random.IntN(7) {
	case 0:
		return io.ErrUnexpectedEOF
	case 1:
		o.unsent()
		return fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
	case 2:
		o.unsent()
		return verdict.NotSent(errIll)
	case 3:
		return context.DeadlineExceeded // of the client's own
	case 4:
		return &statusError{http.StatusServiceUnavailable, someTime(random)}
	case 5:
		code := 400 + random.IntN(200)
		if slices.Contains(unprocessed(), code) {
			o.unsent()
		}
		return &statusError{code, someTime(random)}
	}
	return errIll
}

// CheckHealth is the probe of the instances that are Checkers.
func (b *backend) CheckHealth(ctx context.Context) error { return b.account.probe(ctx) }

// sickness is the outcome of the probes of a backend.
type sickness int32

const (
	noSickness sickness = iota
	limping
	failing
	hanging
	deafening
	panicking
	exiting
	sicknessCount
)

func (a *account) probe(ctx context.Context) error {
	switch sickness(a.ill.Load()) {
	case limping:
		health.Use(ctx, "memory", 0.95)
		return health.Limp(errIll)
	case failing:
		return errIll
	case hanging:
		<-ctx.Done()
		return ctx.Err()
	case deafening:
		<-time.After(150 * time.Millisecond)
		return nil
	case panicking:
		panic(errIll)
	case exiting:
		runtime.Goexit()
	case noSickness, sicknessCount:
	}
	return nil
}

// product is a backend that a factory has made.
func (a *account) product(born *births) *backend {
	a.made.Add(1)
	return born.deliver(a)
}

// Close is called by the registry on instances made by factories.
func (b *backend) Close() error {
	if b.account.closed.Add(1) > b.account.made.Load() {
		return errTwice
	}
	return nil
}

// births counts the backends that were not garbage-collected.
type births struct{ all, gone atomic.Int64 }

func (c *births) deliver(a *account) *backend {
	b := &backend{account: a}
	c.all.Add(1)
	runtime.AddCleanup(b, func(gone *atomic.Int64) { gone.Add(1) }, &c.gone)
	return b
}

func (c *births) alive() int64 { return c.all.Load() - c.gone.Load() }
