package lifecycle_test

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/lifecycle"
	"github.com/capreg/registry/startup"
)

// TestRandom_RunsKeepTheInvariants plays random graphs of components that end by themselves and are restarted,
// that are added and removed meanwhile, and whose code goes wrong in every way. It checks that
//
//   - a component starts when what it needs is ready, or has completed its work, and never while its last run goes on;
//   - each start that succeeded is stopped exactly once, users first where everything stops;
//   - what was registered is unregistered;
//   - every transition is one of the table, and the counts of the engine are those of its nodes;
//   - each event is a change, and the last one of a component is its state;
//   - when nothing goes wrong any more, nothing is under way for ever.
func TestRandom_RunsKeepTheInvariants(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for seed := range uint64(600) {
		synctest.Test(t, func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("seed %d", seed)
				}
			}()
			w := &world{t: t, random: rand.New(rand.NewPCG(seed, 3)), actors: make(map[string]*actor), states: make(map[string]startup.State), transitions: seen}
			w.play()
		})
	}
	require.Len(t, seen, lifecycle.Transitions(), "every transition of the table happens: %v", seen)
}

// world has the components of one engine and what they see.
type world struct {
	t      *testing.T
	e      *lifecycle.Engine
	random *rand.Rand // used by one goroutine; components have sources of their own

	mu          sync.Mutex
	actors      map[string]*actor
	stopping    bool // everything is stopped in order
	calm        bool // nothing goes wrong any more
	lenient     bool // components start without needs that have failed
	registered  int
	states      map[string]startup.State // that the listener has seen last
	transitions map[string]bool
}

// actor is the code of one component.
type actor struct {
	name, provides string
	needs          []actorNeed
	random         *rand.Rand // guarded by the mutex of the world
	deaf           bool       // some code of it does not heed its context
	completes      bool       // it is ready when its work is done

	inside, stopping, ended bool
	accepted, stops         int // starts that have succeeded, and stops
	workers                 int
	uses                    map[*actor]int // what was up when it started, and which of its runs
}

type actorNeed struct {
	startup.Need

	members []string // nil: all that provide it, one of which is enough
}

func (a *actor) up() bool {
	return a.accepted > a.stops && !a.stopping && (!a.completes || a.workers == 0)
}

func (w *world) upTo(d time.Duration) time.Duration { return time.Duration(w.random.Int64N(int64(d))) }

// chance reports whether something happens, once in odds, until the world is calm.
func (w *world) chance(a *actor, odds int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return a.random.IntN(odds) == 0 && !w.calm
}

func (w *world) duration(a *actor, d time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Duration(a.random.Int64N(int64(d)))
}

func (w *world) isCalm() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calm
}

// fail ends code in one of the ways in which it can, which may be no failure.
func (w *world) fail(a *actor) error {
	switch int(w.duration(a, 4)) {
	case 0:
		panic("failure")
	case 1:
		return exits()
	case 2:
		return nil
	}
	return errBroken
}

// component returns a random component, which may need those with lower numbers, or any of a kind.
func (w *world) component(index int) component {
	random, name := w.random, "c"+strconv.Itoa(index)
	a := &actor{name: name, provides: []string{"even", "odd"}[index%2], random: rand.New(rand.NewPCG(random.Uint64(), 1))}
	w.mu.Lock()
	w.actors[name] = a
	w.mu.Unlock()
	for at := range index {
		if other := "c" + strconv.Itoa(at); random.IntN(4) == 0 {
			a.needs = append(a.needs, actorNeed{startup.Need{Component: other, Optional: random.IntN(5) == 0, OrderOnly: random.IntN(8) == 0}, []string{other}})
		}
	}
	if index > 4 && random.IntN(5) == 0 {
		a.needs = append(a.needs, actorNeed{startup.Need{Capability: []string{"odd", "even"}[index%2], Any: true, Optional: random.IntN(2) == 0}, nil})
	}
	c := component{
		Name: name, Provides: []string{a.provides}, NonCritical: random.IntN(4) > 0,
		StartTimeout: 4*time.Second + w.upTo(time.Second), StopTimeout: 2*time.Second + w.upTo(time.Second),
		Notifies: random.IntN(5) == 0,
	}
	for _, need := range a.needs {
		c.Needs = append(c.Needs, need.Need)
	}
	if random.IntN(3) > 0 {
		c.Restart = &startup.Restart{
			Mode: startup.RestartMode(random.IntN(3)), MaxRestarts: 1 + random.IntN(6), Decay: time.Second + w.upTo(20*time.Second),
			FirstDelay: 1 + w.upTo(time.Second), MaxDelay: time.Second + w.upTo(5*time.Second), Dependants: random.IntN(2) == 0,
		}
	}
	a.completes = random.IntN(4) == 0
	c.Completes = a.completes
	deaf := func(odds int) bool {
		is := random.IntN(odds) == 0
		a.deaf = a.deaf || is
		return is
	}
	c.Start, c.Stop = w.startOf(a, deaf(25)), w.stopOf(a, deaf(25))
	if random.IntN(3) == 0 {
		c.Ready = w.probeOf(a, deaf(15))
	}
	for range random.IntN(3) {
		c.Register = append(c.Register, w.registrationOf(a, deaf(25)))
	}
	return withDefaults([]component{c})[0]
}

func (w *world) startOf(a *actor, deaf bool) func(context.Context, *startup.Run) error {
	return func(ctx context.Context, run *startup.Run) error {
		w.enterStart(a)
		ok := false
		defer func() { // also when it panics or exits
			w.mu.Lock()
			defer w.mu.Unlock()
			a.inside = false
			if ok {
				a.accepted++
			}
		}()
		if w.chance(a, 2) {
			w.startWorkers(a, run)
		}
		if takes := w.duration(a, 2*time.Second); deaf && w.chance(a, 3) {
			time.Sleep(20*time.Second + takes)
			if w.chance(a, 2) {
				return errBroken
			}
		} else if err := sleep(ctx, takes); err != nil {
			return err
		}
		if w.chance(a, 12) {
			if err := w.fail(a); err != nil {
				return err
			}
		}
		if w.chance(a, 20) {
			w.end(a, run)
		}
		notifies, ends, endsAfter := w.duration(a, 2*time.Second), w.chance(a, 3), w.duration(a, 30*time.Second)
		go func() {
			if sleep(run.Context(), notifies) == nil {
				run.Ready()
			}
			if ends && sleep(run.Context(), endsAfter) == nil && !w.isCalm() {
				w.end(a, run)
			}
		}()
		ok = true
		return nil
	}
}

// end lets a component report that it has ended by itself.
func (w *world) end(a *actor, run *startup.Run) {
	w.mu.Lock()
	a.ended = true
	w.mu.Unlock()
	run.Ended(errBroken)
}

// enterStart checks what has to be so when a component is started.
func (w *world) enterStart(a *actor) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case a.inside, a.accepted > a.stops, a.stopping:
		w.t.Errorf("%s starts while it is up: %d accepted, %d stopped", a.name, a.accepted, a.stops)
	case a.workers > 0 && !a.deaf:
		w.t.Errorf("%s starts while a goroutine of its last run goes on", a.name)
	case w.stopping:
		w.t.Errorf("%s starts while everything is being stopped", a.name)
	}
	a.inside, a.ended = true, false
	a.uses = make(map[*actor]int)
	for _, need := range a.needs {
		satisfied := need.Optional || need.OrderOnly || w.lenient
		if need.Any {
			for _, member := range w.actors {
				satisfied = satisfied || member.provides == need.Capability && member.up()
			}
		}
		for _, name := range need.members {
			member := w.actors[name]
			satisfied = satisfied || member.up()
			if member.up() && !member.ended {
				a.uses[member] = member.accepted
			}
		}
		if !satisfied {
			w.t.Errorf("%s starts without %v", a.name, need)
		}
	}
}

// startWorkers starts goroutines of a run, some of which end it.
func (w *world) startWorkers(a *actor, run *startup.Run) {
	for range 1 + w.duration(a, 3) {
		ends, lingers, fails := w.duration(a, 40*time.Second), w.duration(a, time.Second), w.chance(a, 2)
		if a.completes {
			ends /= 10
		}
		run.Go(func(ctx context.Context) error {
			w.addWorkers(a, 1)
			defer w.addWorkers(a, -1)
			if err := sleep(ctx, ends); err != nil {
				time.Sleep(lingers)
				return err
			}
			if fails && !w.isCalm() {
				w.mu.Lock()
				a.ended = true
				w.mu.Unlock()
				return w.fail(a)
			}
			if a.completes {
				return nil
			}
			<-ctx.Done()
			return nil
		})
	}
}

func (w *world) addWorkers(a *actor, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a.workers += n
}

func (w *world) probeOf(a *actor, deaf bool) func(context.Context) error {
	return func(ctx context.Context) error {
		switch {
		case deaf && w.chance(a, 10):
			time.Sleep(15*time.Second + w.duration(a, time.Second))
		case w.chance(a, 10):
			<-ctx.Done()
			return ctx.Err()
		case w.chance(a, 3):
			return w.fail(a)
		}
		return nil
	}
}

// registration is what a component has registered.
type registration struct {
	w    *world
	once *sync.Once
}

func (r registration) Unregister(context.Context) error {
	r.once.Do(func() { r.w.register(-1) })
	return nil
}

func (r registration) AwaitEligible(context.Context) error { return nil }

func (r registration) Withdraw() { _ = r.Unregister(context.Background()) }

func (w *world) register(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.registered += n
}

func (w *world) registrationOf(a *actor, deaf bool) func(context.Context) (lifecycle.Handle, error) {
	return func(ctx context.Context) (lifecycle.Handle, error) {
		switch {
		case deaf && w.chance(a, 3):
			time.Sleep(15*time.Second + w.duration(a, time.Second))
		case w.chance(a, 12):
			<-ctx.Done()
		case w.chance(a, 8):
			return nil, w.fail(a)
		}
		w.register(1)
		return registration{w, new(sync.Once)}, nil
	}
}

func (w *world) stopOf(a *actor, deaf bool) func(context.Context) error {
	return func(ctx context.Context) error {
		w.enterStop(a)
		defer func() { // also when it panics or exits
			w.mu.Lock()
			defer w.mu.Unlock()
			a.stopping = false
			a.stops++
		}()
		if takes := w.duration(a, time.Second); deaf && w.chance(a, 3) {
			time.Sleep(10*time.Second + takes)
		} else {
			_ = sleep(ctx, takes)
		}
		if w.chance(a, 8) {
			return w.fail(a)
		}
		return nil
	}
}

// enterStop checks what has to be so when a component is stopped.
func (w *world) enterStop(a *actor) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case a.stopping:
		w.t.Errorf("%s is stopped twice at once", a.name)
	case a.inside:
		w.t.Errorf("%s is stopped while it starts", a.name)
	case a.accepted != a.stops+1:
		w.t.Errorf("%s is stopped although %d of its starts have succeeded and %d were undone", a.name, a.accepted, a.stops)
	}
	if w.stopping && !a.deaf {
		for _, user := range w.actors {
			if (user.accepted > user.stops || user.inside) && user.uses[a] == a.accepted && !user.deaf {
				w.t.Errorf("%s stops before %s, which uses it", a.name, user.name)
			}
		}
	}
	a.stopping = true
}

// listen checks that each event of a component is a change.
func (w *world) listen(e startup.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if last, ok := w.states[e.Component]; ok && e.Component != "" && last == e.State && e.Lost == 0 && e.State != startup.Skipped {
		w.t.Errorf("%s is %v twice", e.Component, e.State)
	}
	if e.Settled < 0 || e.Settled > e.Total {
		w.t.Errorf("%d of %d are settled", e.Settled, e.Total)
	}
	w.states[e.Component] = e.State
}

func (w *world) transition(transition string, wrong error) {
	w.transitions[transition] = true // under the lock of the engine
	if wrong != nil {
		w.t.Error(wrong)
	}
}

func (w *world) play() {
	t, random := w.t, w.random
	n := 2 + random.IntN(12)
	components := make([]component, n)
	for i := range components {
		components[i] = w.component(i)
	}
	options := startup.Options{MaxConcurrent: random.IntN(4), Batches: random.IntN(4) == 0, OnFailure: startup.Policy(random.IntN(3))}
	w.lenient = options.OnFailure == startup.Continue
	listens := random.IntN(2) == 0
	if listens {
		options.Listen = w.listen
	}
	random.Shuffle(n, func(i, j int) { components[i], components[j] = components[j], components[i] })
	var err error
	w.e, err = lifecycle.New(options, components)
	require.NoError(t, err)
	w.e.Watch(w.transition)

	var asides sync.WaitGroup
	w.start(&asides)
	n = w.change(n, &asides)
	time.Sleep(w.upTo(30 * time.Second))
	if random.IntN(2) == 0 {
		w.settle(&asides)
	}
	require.NoError(t, w.e.Check())
	w.stop(n)
	asides.Wait()
	time.Sleep(2 * time.Minute)
	w.checkEnd(listens)
}

// start starts the components in one of the ways there are.
func (w *world) start(asides *sync.WaitGroup) {
	ctx, cancel := context.WithCancel(w.t.Context())
	w.t.Cleanup(cancel)
	if w.random.IntN(8) == 0 {
		time.AfterFunc(w.upTo(8*time.Second), cancel)
	}
	early := w.random.IntN(20) == 0
	if early {
		after := w.upTo(30 * time.Second)
		asides.Go(func() {
			time.Sleep(after)
			_ = w.e.Stop(context.Background())
		})
	}
	switch w.random.IntN(3) {
	case 0:
		_, _ = w.e.Start(ctx)
	case 1:
		asides.Go(func() { _, _ = w.e.Start(ctx) })
	case 2:
		running, end := context.WithTimeout(ctx, w.upTo(40*time.Second))
		asides.Go(func() {
			defer end()
			_ = w.e.Run(running)
		})
	}
}

// change adds and removes components, and returns how many there have been.
func (w *world) change(n int, asides *sync.WaitGroup) int {
	for range w.random.IntN(8) {
		time.Sleep(w.upTo(8 * time.Second))
		ctx, end := context.WithTimeout(context.Background(), 1+w.upTo(10*time.Second))
		var change func() error
		if w.random.IntN(2) == 0 {
			added := []component{w.component(n)}
			n++
			change = func() error { return w.e.Add(ctx, added) }
		} else {
			name := "c" + strconv.Itoa(w.random.IntN(n))
			change = func() error { return w.e.Remove(ctx, name) }
		}
		asides.Go(func() {
			defer end()
			_ = change()
		})
	}
	return n
}

// settle lets nothing go wrong any more, and checks that everything comes to an end.
func (w *world) settle(asides *sync.WaitGroup) {
	w.mu.Lock()
	w.calm = true
	w.mu.Unlock()
	time.Sleep(5 * time.Minute)
	asides.Wait()
	for name := range w.actors {
		switch state, known := w.e.State(name); state {
		case startup.Starting, startup.Stopping, startup.Restarting:
			w.t.Errorf("%s is %v for ever", name, state)
		case startup.Waiting:
			if known {
				w.t.Errorf("%s waits for ever", name)
			}
		case startup.Ready, startup.Completed, startup.Failed, startup.Skipped, startup.Stopped, startup.Stuck:
		}
	}
}

// stop stops everything, which takes as long as the longest chain at most.
func (w *world) stop(n int) {
	w.mu.Lock()
	w.stopping = true
	w.mu.Unlock()
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	if w.random.IntN(4) == 0 {
		time.AfterFunc(w.upTo(5*time.Second), cancel)
	}
	_ = w.e.Stop(ctx)
	require.Less(w.t, time.Since(began), time.Duration(n+1)*10*time.Second)
}

// checkEnd checks that nothing is left.
func (w *world) checkEnd(listens bool) {
	require.NoError(w.t, w.e.Check())
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.actors {
		require.Equal(w.t, a.accepted, a.stops, "%s: every start that succeeds is stopped once", a.name)
		require.False(w.t, a.inside || a.stopping || a.workers > 0, a.name)
		state, known := w.e.State(a.name)
		if !known {
			continue
		}
		require.NotContains(w.t, []startup.State{startup.Waiting, startup.Starting, startup.Ready, startup.Completed, startup.Stopping, startup.Restarting}, state, a.name)
		if last, seen := w.states[a.name]; listens && seen {
			require.Equal(w.t, state, last, "%s: its last event", a.name)
		}
	}
	require.Zero(w.t, w.registered, "what was registered is unregistered")
}
