package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/status"
)

// world is one registry with all that happens to it, from New to Close.
type world struct {
	name            string
	reg             *registry.Registry
	ledger          *ledger
	seen            *faults
	census          *births
	panicsAreErrors bool
	resolvers       []*registry.Resolver[*backend]
	lookups         atomic.Uint64
	before, after   atomic.Uint64 // hooks of calls
	calm            atomic.Bool   // factories and probes do as they should
	closed          atomic.Bool

	history *history
	reading sync.WaitGroup

	// mu guards the fields below; no method of the registry is called while it is held.
	mu      sync.Mutex
	members []*member // present, and those not audited yet
	made    uint64
}

// member is a registration and the backend's own account.
type member struct {
	*registry.Registration

	account *account
	fixed   bool // its limits do not change
}

const (
	fewest  = 5  // members that are to be there
	most    = 20 // and at most
	waiting = 300 * time.Millisecond
)

func newWorld(name string, books *ledger, seen *faults, hooked bool) (*world, error) {
	w := &world{name: name, ledger: books, seen: seen, census: &births{}, panicsAreErrors: hooked}
	options := registry.Options{
		DrainTimeout: 100 * time.Millisecond, ProbeConcurrency: 8, PanicsAsErrors: hooked,
	}
	if hooked {
		options.Hooks.BeforeCall = func(ctx context.Context, _ registry.CallReport) context.Context { w.before.Add(1); return ctx }
		options.Hooks.AfterCall = func(_ context.Context, r registry.CallReport) {
			if w.after.Add(1)%512 == 0 {
				panic(errIll) // of a hook: it must not reach a caller
			}
		}
		options.Authorize = func(_ context.Context, caller, _, provider string) error {
			if caller == "unknown" && len(provider)%2 == 0 {
				return errIll
			}
			return nil
		}
	}
	var err error
	if w.reg, err = registry.New(options); err != nil {
		return nil, err
	}
	for _, q := range queries() {
		w.resolvers = append(w.resolvers, backends.Bind(w.reg, q))
	}
	w.history = newHistory(w.name, books)
	events := w.reg.Subscribe(1 << 16)
	w.reading.Go(func() { w.history.follow(events) })
	random := rand.New(rand.NewPCG(1, uint64(len(name)))) //nolint:gosec // not a secret
	for range fewest {
		w.join(context.Background(), random, "")
	}
	w.joinFixed()
	return w, nil
}

func queries() []registry.Query {
	return []registry.Query{
		{},
		{Require: []string{"x"}},
		{Require: []string{"x", "y"}},
		{TryRefused: true},
		{Handler: "h"},
		{Handler: "h", OwnOnly: true},
		{Handler: "i", Require: []string{"y"}},
	}
}

func (w *world) resolver(random *rand.Rand) *registry.Resolver[*backend] {
	return w.resolvers[random.IntN(len(w.resolvers))]
}

func (w *world) newName() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.made++
	return fmt.Sprintf("%s-%d", w.name, w.made)
}

// joinFixed registers a provider behind a bulkhead that stays as it is.
func (w *world) joinFixed() {
	a := &account{name: w.newName(), ledge: w.ledger, seen: w.seen, places: 3}
	w.register(context.Background(), a, registry.Provider[*backend]{
		Name: a.name, Instance: w.census.deliver(a), Capabilities: []string{"x", "y"}, Group: 1, AttemptTimeout: waiting,
		Limits:  registry.LimitPolicy{MaxConcurrent: a.places, MaxQueue: 100, MaxWait: waiting},
		Breaker: registry.BreakerPolicy{RecoveryTimeout: 20 * time.Millisecond},
	})
}

func (w *world) register(ctx context.Context, a *account, p registry.Provider[*backend]) {
	handle, err := backends.Register(ctx, w.reg, p)
	if p.Replace && errors.Is(err, registry.ErrNotReady) {
		w.seen.note("replacement refused")
		return
	}
	if err != nil {
		if !errors.Is(err, registry.ErrConflict) && !errors.Is(err, registry.ErrClosed) && !errors.Is(err, registry.ErrExists) {
			w.ledger.broke("%s: registration of %+v: %v", w.name, p, err)
		}
		return
	}
	w.seen.note("provider joined")
	w.mu.Lock()
	defer w.mu.Unlock()
	w.members = append(w.members, &member{Registration: handle, account: a, fixed: a.places > 0})
}

// join registers a provider of any kind; with a name it takes the place of that one.
func (w *world) join(ctx context.Context, random *rand.Rand, replaced string) {
	a := &account{name: replaced, ledge: w.ledger, seen: w.seen}
	if replaced == "" {
		a.name = w.newName()
	}
	a.mood.Store(int32(drawMood(random)))
	p := registry.Provider[*backend]{
		Name: a.name, Replace: replaced != "", AtOnce: random.IntN(2) == 0, ProveWithin: between(random, time.Millisecond, waiting), Group: random.IntN(3), Mock: random.IntN(8) == 0, LastResort: random.IntN(5) == 0,
		Priority: priorities[random.IntN(len(priorities))], Handler: []string{"", "", "", "h", "i"}[random.IntN(5)],
		Window: random.IntN(3) * 1000, Domain: []string{"", "", "", "d", "e"}[random.IntN(5)],
		Breaker: drawBreaker(random), Limits: drawLimits(random), Retry: drawRetry(random), Health: w.drawHealth(random, a),
		AttemptTimeout: between(random, 10*time.Millisecond, waiting),
	}
	for _, word := range []string{"x", "y"} {
		if random.IntN(3) > 0 {
			p.Capabilities = append(p.Capabilities, word)
		}
	}
	if p.Domain != "" {
		p.Limits = registry.LimitPolicy{}
	}
	if random.IntN(8) == 0 {
		until, cancel := context.WithTimeout(context.Background(), between(random, time.Millisecond, 2*time.Second))
		context.AfterFunc(until, cancel)
		p.Until = until
	}
	if random.IntN(3) > 0 {
		p.Instance = w.census.deliver(a)
	} else {
		p.Factory = w.factory(a, random.Uint64())
	}
	w.register(ctx, a, p)
}

// factory makes a backend, or fails in one of the ways there are.
func (w *world) factory(a *account, seed uint64) func(context.Context) (*backend, error) {
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // used by one run at a time
	return func(ctx context.Context) (*backend, error) {
		if w.calm.Load() {
			return a.product(w.census), nil
		}
		switch random.IntN(8) {
		case 0:
			w.seen.note("factory failed")
			return nil, errIll
		case 1:
			w.seen.note("factory panicked")
			panic(errIll)
		case 2:
			w.seen.note("factory hung")
			return nil, after(ctx, waiting)
		case 3:
			w.seen.note("factory late")
			<-time.After(50 * time.Millisecond)
		}
		return a.product(w.census), nil
	}
}

var priorities = []registry.Priority{ //nolint:gochecknoglobals // a table
	registry.PriorityCritical, registry.PriorityHigh, registry.PriorityNormal, registry.PriorityLow, registry.PriorityFallback,
}

func drawMood(random *rand.Rand) mood {
	if random.IntN(3) == 0 {
		return well
	}
	return mood(random.Int32N(int32(moodCount)))
}

// mostTrials bounds the trial slots of every policy.
const mostTrials = 3

func drawBreaker(random *rand.Rand) registry.BreakerPolicy {
	p := registry.BreakerPolicy{
		RecoveryTimeout: between(random, time.Millisecond, 200*time.Millisecond), SuccessThreshold: mostTrials, TrialSlots: 1 + random.IntN(mostTrials),
	}
	switch random.IntN(4) {
	case 0:
		p.FailureRate, p.MinimumCalls, p.Window = 0.5, 5, 500*time.Millisecond
	case 1:
		p.SlowRate, p.SlowAfter, p.MinimumCalls, p.Window = 0.5, 10*time.Millisecond, 5, 500*time.Millisecond
	default:
		p.FailureThreshold = 1 + random.IntN(4)
	}
	if random.IntN(3) == 0 {
		p.RecoveryGrowth, p.RecoveryJitter, p.MaxRecoveryTimeout = 2, 0.5, time.Second
	}
	return p
}

func drawLimits(random *rand.Rand) registry.LimitPolicy {
	switch random.IntN(5) {
	case 0:
		return registry.LimitPolicy{MaxConcurrent: 1 + random.IntN(4), MaxWait: between(random, time.Millisecond, 100*time.Millisecond)}
	case 1:
		return registry.LimitPolicy{MaxConcurrent: 1 + random.IntN(4), NoQueue: true}
	case 2:
		return registry.LimitPolicy{Rate: 100, Burst: 10}
	}
	return registry.LimitPolicy{}
}

func drawRetry(random *rand.Rand) registry.RetryPolicy {
	if random.IntN(2) == 0 {
		return registry.RetryPolicy{}
	}
	return registry.RetryPolicy{Retries: random.IntN(3), FirstDelay: time.Millisecond, MaxDelay: 10 * time.Millisecond, Floor: 1000}
}

func (w *world) drawHealth(random *rand.Rand, a *account) health.Policy {
	p := health.Policy{
		Off: random.IntN(2) == 0, Interval: between(random, 10*time.Millisecond, 50*time.Millisecond), Timeout: 20 * time.Millisecond,
		Fall: 1 + random.IntN(2), Rise: 1 + random.IntN(2), TrustCalls: random.IntN(2) == 0,
	}
	if p.Off {
		return health.Policy{Off: true}
	}
	if random.IntN(2) == 0 {
		p.Probe = a.probe
	}
	if random.IntN(4) == 0 {
		p.Recover = func(context.Context) error {
			w.seen.note("recovery ran")
			if a.ill.Swap(int32(noSickness)) == int32(exiting) {
				panic(errIll)
			}
			return nil
		}
	}
	return p
}

// present returns the members of the registry as it sees them now.
func (w *world) present() (present []*member) {
	w.mu.Lock()
	members := slices.Clone(w.members)
	w.mu.Unlock()
	for _, m := range members {
		if handle, ok := w.reg.Provider(backends.Name(), m.Name()); ok && handle.Info().Generation == m.Info().Generation {
			present = append(present, m)
		}
	}
	return present
}

// disturb changes the registry and its backends at random until the context ends.
func (w *world) disturb(ctx context.Context, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // not a secret
	for after(ctx, between(random, 0, 2*time.Millisecond)) == nil {
		present := w.present()
		if len(present) < fewest || len(present) < most && random.IntN(12) == 0 {
			w.join(ctx, random, "")
			continue
		}
		w.change(ctx, random, present[random.IntN(len(present))])
	}
}

// update makes changes of two members at one moment.
func (w *world) update(ctx context.Context, random *rand.Rand, m *member) error {
	var u registry.Update
	u.SetPriority(backends.Name(), m.Name(), priorities[random.IntN(len(priorities))])
	u.SetGroup(backends.Name(), m.Name(), random.IntN(3))
	u.SetWeight(backends.Name(), m.Name(), float64(1+random.IntN(3)))
	present := w.present()
	if len(present) == 0 {
		return nil // all have left
	}
	if other := present[random.IntN(len(present))]; !other.fixed && other.Name() != m.Name() {
		u.SetBreakerPolicy(backends.Name(), other.Name(), drawBreaker(random))
		u.SetRetry(backends.Name(), other.Name(), drawRetry(random))
	}
	if err := w.reg.Update(ctx, &u); !errors.Is(err, registry.ErrClosed) { // it may be closing, as it may for those that join
		return err
	}
	return nil
}

// change does one thing to a member; that it may have left is no error.
func (w *world) change(ctx context.Context, random *rand.Rand, m *member) {
	var err error
	what := "setting changed"
	switch random.IntN(34) {
	case 33:
		what, err = "set of changes made", w.update(ctx, random, m)
	case 0:
		what, err = "breaker forced open", m.ForceOpen(between(random, time.Millisecond, 100*time.Millisecond), "soak")
	case 1, 2, 3, 24, 25, 26, 27, 28, 29:
		what, err = "breaker reset", m.Reset()
	case 4:
		what, err = "marked unhealthy", m.MarkUnhealthy(errIll)
	case 5, 6:
		what, err = "marked healthy", m.MarkHealthy()
	case 7:
		_, err = m.SetBreakerPolicy(drawBreaker(random))
	case 8:
		if !m.fixed {
			_, err = m.SetLimits(drawLimits(random))
		}
	case 9:
		_, err = m.SetRetry(drawRetry(random))
	case 10:
		_, err = m.SetAttemptTimeout(between(random, 10*time.Millisecond, waiting))
	case 11:
		_, err = m.SetHealthPolicy(w.drawHealth(random, m.account))
	case 12:
		_, err = m.SetPriority(priorities[random.IntN(len(priorities))])
	case 13:
		_, err = m.SetGroup(random.IntN(3))
	case 14:
		_, err = m.SetStrategy([]selection.Strategy{registry.StrategyFallback, registry.StrategyRoundRobin}[random.IntN(2)])
	case 15, 16, 17:
		what = "health flapped"
		m.account.ill.Store(random.Int32N(int32(sicknessCount)))
	case 18:
		what = "health flapped"
		m.account.ill.Store(int32(noSickness))
	case 19, 20:
		what = "mood changed"
		m.account.mood.Store(int32(drawMood(random)))
	case 30:
		what = "weight of 0"
		_, err = m.SetWeight(0)
	case 31, 32:
		_, err = m.SetWeight(1 + random.Float64())
	case 21:
		what, err = "health checked", w.checkHealth(ctx, random, m)
	case 22, 23:
		if m.fixed {
			return
		}
		if random.IntN(2) == 0 {
			w.join(ctx, random, m.Name())
			return
		}
		what = "provider left"
		limit, cancel := context.WithTimeout(ctx, between(random, 0, 100*time.Millisecond))
		defer cancel()
		err = m.Unregister(limit)
		if errors.Is(err, registry.ErrStuck) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			err = nil // a lease that was forgotten: it expires
		}
	}
	w.seen.note(what)
	if err != nil && !errors.Is(err, registry.ErrNotRegistered) && !errors.Is(err, registry.ErrConflict) {
		w.ledger.broke("%s: %s of %s: %v", w.name, what, m.Name(), err)
	}
}

func (w *world) checkHealth(ctx context.Context, random *rand.Rand, m *member) error {
	limit, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	var err error
	if random.IntN(2) == 0 {
		_, err = m.CheckHealth(limit)
	} else {
		_, err = w.reg.CheckHealth(limit)
	}
	if limit.Err() != nil {
		return nil
	}
	return err
}

// watch reads everything that can be read, and checks what must hold at any moment.
func (w *world) watch(ctx context.Context, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 2)) //nolint:gosec // not a secret
	for after(ctx, time.Millisecond) == nil {
		for info := range w.reg.All() {
			w.checkAnytime(info)
		}
		if _, err := w.reg.Discover(registry.Query{Require: []string{"x"}}); err != nil && !errors.Is(err, registry.ErrClosed) {
			w.ledger.broke("%s: %v", w.name, err)
		}
		w.reg.Health()
		w.reg.Stats()
		explanation := w.resolver(random).Explain()
		if text := explanation.String(); text == "" {
			w.ledger.broke("%s: an explanation that says nothing", w.name)
		}
		limit, cancel := context.WithTimeout(ctx, time.Millisecond)
		_ = w.reg.WaitReady(limit, backends.Name())
		cancel()
	}
}

func (w *world) checkAnytime(info registry.Info) {
	const absurd = 1 << 40 // a counter that went below zero
	b := info.Breaker
	switch {
	case info.InFlight > absurd:
		w.ledger.broke("%s has %d calls in flight", info.Name, int64(info.InFlight)) //nolint:gosec // to show that it is below zero
	case b.TrialsInFlight < 0 || b.TrialsInFlight > mostTrials:
		w.ledger.broke("%s has %d trials in flight", info.Name, b.TrialsInFlight)
	case b.State != status.BreakerHalfOpen && b.TrialsInFlight != 0:
		w.ledger.broke("%s has %d trials in flight while its breaker is %v", info.Name, b.TrialsInFlight, b.State)
	case b.State != status.BreakerClosed && b.ConsecutiveFailures != 0:
		w.ledger.broke("%s counts failures in a row while its breaker is %v", info.Name, b.State)
	case b.State != status.BreakerOpen && b.RetryIn != 0:
		w.ledger.broke("%s is to be retried in %v while its breaker is %v", info.Name, b.RetryIn, b.State)
	}
}
