package registry_test

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/startup"
)

// TestOrchestrator_RandomLivesKeepPromises plays random graphs of components that end by
// themselves and are started again, that are added and removed meanwhile, and whose
// starts, probes, registrations, goroutines and stops go wrong in every way.
func TestOrchestrator_RandomLivesKeepPromises(t *testing.T) {
	t.Parallel()
	for seed := range uint64(500) {
		synctest.Test(t, func(t *testing.T) {
			w := &world{t: t, random: rand.New(rand.NewPCG(seed, 11)), people: make(map[string]*person)}
			defer tellSeed(t, seed)
			w.play()
		})
	}
}

// world is what happens to the components of one orchestrator, as they see it.
type world struct {
	t      *testing.T
	reg    *registry.Registry
	o      *registry.Orchestrator
	random *rand.Rand // used by one goroutine; components have dice of their own

	mu       sync.Mutex
	people   map[string]*person
	stopping bool // everything is, in order
	calm     bool // nothing goes wrong any more
	goesOn   bool // also without needs that failed
	told     map[string]startup.State
	over     bool // the listener was told that everything is down
}

// somewhat is a time that coincides with no other.
func (w *world) somewhat(atMost time.Duration) time.Duration {
	return time.Duration(w.random.Int64N(int64(atMost)))
}

func (w *world) component(index int) registry.Component {
	random := w.random
	p := &person{name: "c" + strconv.Itoa(index), provides: []string{"even", "odd"}[index%2], dice: rand.New(rand.NewPCG(random.Uint64(), 1))}
	w.mu.Lock()
	w.people[p.name] = p
	w.mu.Unlock()
	c := registry.Component{
		Name: p.name, Provides: []string{p.provides}, NonCritical: random.IntN(4) > 0,
		StartTimeout: 4*time.Second + w.somewhat(time.Second), StopTimeout: 2*time.Second + w.somewhat(time.Second),
	}
	for at := range index {
		if random.IntN(4) > 0 {
			continue
		}
		need := want{startup.Need{Component: "c" + strconv.Itoa(at), Optional: random.IntN(5) == 0, OrderOnly: random.IntN(8) == 0}, []string{"c" + strconv.Itoa(at)}}
		p.needs = append(p.needs, need)
		c.Needs = append(c.Needs, need.Need)
	}
	if index > 2 && random.IntN(8) == 0 { // all of a kind that gets no later member
		need := want{startup.Need{Capability: "all " + strconv.Itoa(index-1)}, []string{"c" + strconv.Itoa(index-1), "c" + strconv.Itoa(index-2)}}
		p.needs = append(p.needs, need)
		c.Needs = append(c.Needs, need.Need)
	}
	c.Provides = append(c.Provides, "all "+strconv.Itoa(index), "all "+strconv.Itoa(index+1))
	if index > 4 && random.IntN(5) == 0 { // any of an open number, of which some come after it
		need := want{startup.Need{Capability: []string{"odd", "even"}[index%2], Any: true, Optional: random.IntN(2) == 0}, nil}
		p.needs = append(p.needs, need)
		c.Needs = append(c.Needs, need.Need)
	}
	if random.IntN(3) > 0 {
		c.Restart = startup.Restart{
			Mode: startup.RestartMode(random.IntN(3)), MaxRestarts: 1 + random.IntN(6), Decay: time.Second + w.somewhat(20*time.Second),
			FirstDelay: 1 + w.somewhat(time.Second), MaxDelay: time.Second + w.somewhat(5*time.Second), Dependants: random.IntN(2) == 0,
		}
	}
	deaf := func(odds int) bool {
		is := random.IntN(odds) == 0
		p.deaf = p.deaf || is
		return is
	}
	c.Start = w.start(p, deaf(25))
	c.Stop = w.stop(p, deaf(25))
	if random.IntN(3) == 0 {
		c.Ready = w.asked(p, deaf(15))
	}
	c.Notifies = random.IntN(5) == 0
	for range random.IntN(3) {
		late := deaf(25)
		c.Register = append(c.Register, func(ctx context.Context, r *registry.Registry) (*registry.Registration, error) {
			switch {
			case late && w.fate(p, 3):
				time.Sleep(15*time.Second + w.duration(p, time.Second))
			case w.fate(p, 12):
				<-ctx.Done()
			case w.fate(p, 8):
				return nil, w.fail(p)
			}
			return testkit.Chat.Register(ctx, r, testkit.Provider{Name: p.name + "-" + strconv.Itoa(int(w.duration(p, time.Hour))), Instance: testkit.Says(p.name)})
		})
	}
	return c
}

// fate decides whether something happens, one time in odds.
func (w *world) fate(p *person, odds int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return p.dice.IntN(odds) == 0 && !w.calm
}

func (w *world) duration(p *person, atMost time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Duration(p.dice.Int64N(int64(atMost)))
}

// fail is one of the ways in which code of a user ends before its time.
func (w *world) fail(p *person) error {
	w.mu.Lock()
	how := p.dice.IntN(4)
	w.mu.Unlock()
	switch how {
	case 0:
		panic("it")
	case 1:
		runtime.Goexit()
	case 2:
		return nil
	}
	return testkit.ErrDown
}

func (w *world) start(p *person, deaf bool) func(context.Context, *startup.Run) error {
	return func(ctx context.Context, run *startup.Run) error {
		w.enter(p)
		ok := false
		defer func() { // also when it panics or exits
			w.mu.Lock()
			defer w.mu.Unlock()
			p.inside = false
			if ok {
				p.accepted++
			}
		}()
		if w.fate(p, 2) {
			w.goroutines(p, run)
		}
		if takes := w.duration(p, 2*time.Second); deaf && w.fate(p, 3) {
			time.Sleep(20*time.Second + takes)
		} else {
			select {
			case <-time.After(takes):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if w.fate(p, 12) {
			if err := w.fail(p); err != nil {
				return err
			}
		}
		if w.fate(p, 20) {
			w.end(p)
			run.Ended(testkit.ErrDown)
		}
		after := w.duration(p, 2*time.Second)
		if w.fate(p, 4) {
			run.Ready()
		}
		p.run = run
		go func() {
			select {
			case <-time.After(after):
				run.Ready()
			case <-run.Context().Done():
			}
		}()
		if w.fate(p, 3) {
			ends := w.duration(p, 30*time.Second)
			go func() {
				select {
				case <-time.After(ends):
					if w.goesWrong() {
						w.end(p)
						run.Ended(testkit.ErrDown)
					}
				case <-run.Context().Done():
				}
			}()
		}
		ok = true
		return nil
	}
}

func (w *world) goesWrong() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.calm
}

// listen checks that each event of a component is a change, and which is the last one.
func (w *world) listen(e startup.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case e.Component == "":
		w.over = e.State == startup.Stopped
	case w.told[e.Component] == e.State && e.State != startup.Skipped && e.Lost == 0:
		w.t.Errorf("%s is told to be %v twice", e.Component, e.State)
	}
	if e.Settled < 0 || e.Settled > e.Total {
		w.t.Errorf("%d of %d are settled", e.Settled, e.Total)
	}
	w.told[e.Component] = e.State
}

// enter checks what has to be so when a component is started.
func (w *world) enter(p *person) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case p.inside, p.accepted > p.stops, p.stopping:
		w.t.Errorf("%s starts while it is up: %d accepted, %d stopped", p.name, p.accepted, p.stops)
	case p.workers > 0 && !p.deaf:
		w.t.Errorf("%s starts while a goroutine of its last life runs", p.name)
	case w.stopping:
		w.t.Errorf("%s starts while everything is being stopped", p.name)
	}
	p.inside, p.ended = true, false
	p.starts++
	p.uses = make(map[*person]int)
	for _, need := range p.needs {
		if need.Any {
			some := false
			for _, member := range w.people {
				some = some || member.provides == need.Capability && member.up()
			}
			if !some && !need.Optional && !w.goesOn {
				w.t.Errorf("%s starts although nothing provides %v", p.name, need)
			}
		}
		for _, name := range need.members {
			member := w.people[name]
			if _, there := w.o.State(name); need.Capability != "" && !there {
				continue // it had left when this one came
			}
			switch {
			case member.up():
				if !member.ended {
					p.uses[member] = member.accepted
				}
			case !need.Optional && !need.OrderOnly && !w.goesOn:
				w.t.Errorf("%s starts although %s is not up", p.name, name)
			}
		}
	}
}

// end notes that a component ends by itself.
func (w *world) end(p *person) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.ended = true
}

// goroutines runs goroutines in the life of a component, some of which end it.
func (w *world) goroutines(p *person, run *startup.Run) {
	for range 1 + w.duration(p, 3) {
		ends, winds, fails := w.duration(p, 40*time.Second), w.duration(p, time.Second), w.fate(p, 2)
		run.Go(func(ctx context.Context) error {
			w.mu.Lock()
			p.workers++
			w.mu.Unlock()
			defer func() {
				w.mu.Lock()
				p.workers--
				w.mu.Unlock()
			}()
			select {
			case <-time.After(ends):
			case <-ctx.Done():
				time.Sleep(winds)
				return ctx.Err()
			}
			if fails && w.goesWrong() {
				w.end(p)
				return w.fail(p)
			}
			<-ctx.Done()
			return nil
		})
	}
}

func (w *world) asked(p *person, deaf bool) func(context.Context) error {
	return func(ctx context.Context) error {
		switch {
		case deaf && w.fate(p, 10):
			time.Sleep(15*time.Second + w.duration(p, time.Second))
		case w.fate(p, 10):
			<-ctx.Done()
			return ctx.Err()
		case w.fate(p, 3):
			return w.fail(p)
		}
		return nil
	}
}

func (w *world) stop(p *person, deaf bool) func(context.Context) error {
	return func(ctx context.Context) error {
		w.mu.Lock()
		switch {
		case p.stopping:
			w.t.Errorf("%s is stopped twice at once", p.name)
		case p.inside:
			w.t.Errorf("%s is stopped while it starts", p.name)
		case p.accepted != p.stops+1:
			w.t.Errorf("%s is stopped although %d of its starts were accepted and %d undone", p.name, p.accepted, p.stops)
		}
		if w.stopping && !p.deaf {
			for _, user := range w.people {
				if (user.accepted > user.stops || user.inside) && user.uses[p] == p.accepted && !user.deaf {
					w.t.Errorf("%s stops before %s, which uses it", p.name, user.name)
				}
			}
		}
		p.stopping = true
		w.mu.Unlock()
		if w.fate(p, 4) { // too late for all of these
			p.run.Go(func(context.Context) error { w.t.Errorf("%s runs something after its end", p.name); return nil })
			p.run.Ready()
			p.run.Ended(nil)
			if p.run.Context().Err() == nil {
				w.t.Errorf("the run of %s goes on in its stop", p.name)
			}
		}
		defer func() { // also when it panics or exits
			w.mu.Lock()
			defer w.mu.Unlock()
			p.stopping = false
			p.stops++
		}()
		if takes := w.duration(p, time.Second); deaf && w.fate(p, 3) {
			time.Sleep(10*time.Second + takes)
		} else {
			select {
			case <-time.After(takes):
			case <-ctx.Done():
			}
		}
		if w.fate(p, 8) {
			return w.fail(p)
		}
		return nil
	}
}

func (w *world) play() {
	t, random := w.t, w.random
	w.reg = testkit.New(t, registry.Options{})
	n := 2 + random.IntN(12)
	components := make([]registry.Component, n)
	for i := range components {
		components[i] = w.component(i)
	}
	options := startup.Options{MaxConcurrent: random.IntN(4), Batches: random.IntN(4) == 0, OnFailure: startup.Policy(random.IntN(3))}
	w.goesOn, w.told = options.OnFailure == startup.Continue, make(map[string]startup.State)
	listens := random.IntN(2) == 0
	if listens {
		options.Listen = w.listen
	}
	random.Shuffle(n, func(i, j int) { components[i], components[j] = components[j], components[i] })
	o, err := registry.NewOrchestrator(w.reg, options, components...)
	require.NoError(t, err)
	w.o = o
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if random.IntN(8) == 0 {
		time.AfterFunc(w.somewhat(8*time.Second), cancel)
	}
	var asides sync.WaitGroup
	switch random.IntN(4) {
	case 0, 1:
		_, _ = o.Start(ctx)
	case 2:
		running, end := context.WithTimeout(ctx, w.somewhat(40*time.Second))
		defer end()
		asides.Go(func() { _ = o.Run(running) })
	case 3:
		asides.Go(func() { _, _ = o.Start(ctx) })
	}
	closed := random.IntN(20) == 0
	if closed {
		closes := w.somewhat(30 * time.Second)
		asides.Go(func() {
			time.Sleep(closes)
			_ = w.reg.Close(t.Context())
		})
	}
	if random.IntN(20) == 0 {
		early := w.somewhat(30 * time.Second)
		asides.Go(func() {
			time.Sleep(early)
			_ = o.Stop(t.Context())
		})
	}
	for range random.IntN(8) {
		time.Sleep(w.somewhat(8 * time.Second))
		brief, end := context.WithTimeout(t.Context(), 1+w.somewhat(10*time.Second))
		var change func() error
		if random.IntN(2) == 0 {
			added := []registry.Component{w.component(n)}
			n++
			change = func() error { return o.Add(brief, added...) }
		} else {
			name := "c" + strconv.Itoa(random.IntN(n))
			change = func() error { return o.Remove(brief, name) }
		}
		asides.Go(func() {
			defer end()
			_ = change()
		})
	}
	time.Sleep(w.somewhat(30 * time.Second))
	if random.IntN(2) == 0 && !closed { // else what registers is restarted in vain
		w.rest(&asides)
	}
	report := o.Report()
	_, err = json.Marshal(report)
	require.NoError(t, err)
	w.check(report)
	w.mu.Lock()
	w.stopping = true
	w.mu.Unlock()
	began := time.Now()
	stopped, hurry := t.Context(), func() {}
	if random.IntN(4) == 0 {
		stopped, hurry = context.WithTimeout(stopped, w.somewhat(5*time.Second))
	}
	if random.IntN(4) == 0 {
		asides.Go(func() { _ = o.Stop(t.Context()) })
	}
	err = o.Stop(stopped)
	hurry()
	require.Less(t, time.Since(began), time.Duration(n+1)*10*time.Second, "a stop takes as long as its longest chain at most")
	asides.Wait()
	time.Sleep(2 * time.Minute)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.people {
		require.Equal(t, p.accepted, p.stops, "%s: every start is undone once; the stop returned %v", p.name, err)
		require.False(t, p.inside || p.stopping || p.workers > 0, p.name)
		if state, ok := o.State(p.name); ok {
			require.NotContains(t, []startup.State{startup.Waiting, startup.Starting, startup.Ready, startup.Stopping, startup.Restarting}, state, p.name)
		}
	}
	for name, state := range w.told {
		if now, ok := o.State(name); listens && ok {
			require.Equal(t, now, state, "what the listener was told of %s", name)
		}
	}
	require.Empty(t, slices.Collect(w.reg.All()), "what components registered has left")
	require.NoError(t, w.reg.Close(t.Context()))
}

// rest lets nothing go wrong any more: whatever waits comes to an end.
func (w *world) rest(asides *sync.WaitGroup) {
	w.mu.Lock()
	w.calm = true
	w.mu.Unlock()
	time.Sleep(5 * time.Minute)
	asides.Wait()
	for name := range w.people {
		switch state, _ := w.o.State(name); state {
		case startup.Starting, startup.Stopping, startup.Restarting:
			w.t.Errorf("%s is %v for ever", name, state)
		case startup.Waiting:
			if _, there := w.o.State(name); there {
				w.t.Errorf("%s waits for ever", name)
			}
		case startup.Ready, startup.Completed, startup.Failed, startup.Skipped, startup.Stopped, startup.Stuck:
		}
	}
}

// check looks whether a report makes sense.
func (w *world) check(report startup.Report) {
	for _, c := range report.Components {
		switch {
		case c.Ready > 0 && (c.Queued > c.Started || c.Started > c.Returned || c.Returned > c.Ready):
			w.t.Errorf("%s was queued after %v, started after %v, returned after %v and ready after %v", c.Name, c.Queued, c.Started, c.Returned, c.Ready)
		case c.Err != nil && c.Reason == "", c.State == startup.Ready && c.Err != nil, c.State == startup.Failed && c.Err == nil:
			w.t.Errorf("%s is %v because of %q, which is %v", c.Name, c.State, c.Reason, c.Err)
		}
	}
	if report.CriticalPath > report.Wall || report.CriticalPath > report.Work {
		w.t.Errorf("the critical path took %v of %v", report.CriticalPath, report.Wall)
	}
}

// person is the component of a name.
type person struct {
	name     string
	provides string
	needs    []want
	dice     *rand.Rand // guarded by the mutex of its world
	deaf     bool       // something of it does not return in time: it may be given up

	run               *startup.Run // of its last life; its own functions use it
	inside, stopping  bool
	ended             bool // this life by itself
	starts, stops     int
	accepted, workers int
	uses              map[*person]int // that were up when it started, and which of their lives
}

// up reports whether a start was accepted and is not being undone.
func (p *person) up() bool { return p.accepted > p.stops && !p.stopping }

type want struct {
	startup.Need
	members []string // nil: all of that parity, one of which is enough
}
