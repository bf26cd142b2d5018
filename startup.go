package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/ring"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/internal/tasks"
	"github.com/capreg/registry/startup"
)

// Orchestrator starts the components of a program in the order of what they need,
// each as soon as that is ready, watches over them, and stops them in reverse.
//
//	new ──Start──▶ starting ──all settled──▶ running ──Stop──▶ stopping ──▶ stopped
//	                  └── a failure, or Stop ── roll back ──────────┘
//
// It is made by [NewOrchestrator] and used once. Its methods are safe for
// concurrent use. Functions of components run under no lock, and a panic of theirs
// is an error. A component that waits has no goroutine.
type Orchestrator struct {
	registry *Registry
	options  startup.Options
	epoch    time.Time // of now
	schedule *schedule.Scheduler
	starts   attemptctx.Set // of the starts, so that they can be aborted
	stops    attemptctx.Set // of the stops

	// mu guards the fields below and the progress of every node; no user code runs
	// while it is held.
	mu         sync.Mutex
	nodes      []*node
	names      names
	anyOf      bool // a component needed, or needs, any of several
	phase      phase
	values     context.Context //nolint:containedctx // the values of the context of Start, for later starts
	starter    context.Context //nolint:containedctx // of the first start
	began      time.Duration
	wall       time.Duration
	gaveUp     bool    // err says that the context of Start ended
	rolledBack bool    // the start has failed
	err        error   // why the start failed, or the program is to end
	waiting    ranked  // whose needs are ready, and which wait for their turn
	due        []*node // whose turn it is, and which wait for a goroutine
	taken      int     // how many of these no longer do
	coming     int     // goroutines that will look at due
	active     int     // starting now, or due
	open       int     // of which it is not decided what becomes of them
	batch      int     // the present one, when batches are wanted
	batchLeft  []int   // how many of each are not decided
	up         int     // nodes that are not down: a stop waits for them
	sweeper    *schedule.Timer
	sweepAt    time.Duration
	settled    chan struct{} // closed when the start is decided, rolled back where it failed
	failed     chan struct{} // closed when the program is to end
	stopped    chan struct{} // closed when everything is down
	halt       chan struct{} // closed when a stop begins

	unread     *ring.Ring[startup.Event] // for the listener
	delivering bool
}

type phase uint8

const (
	phaseNew phase = iota
	phaseStarting
	phaseRunning
	phaseStopping
	phaseStopped
)

// NewOrchestrator returns an orchestrator of the components, which register what
// they provide in reg; nil where none does. The error is a [FieldError], or a
// [startup.PlanError] with everything that is wrong about their needs.
func NewOrchestrator(reg *Registry, options startup.Options, components ...Component) (*Orchestrator, error) {
	options, err := checkStartup(options)
	if err != nil {
		return nil, err
	}
	if reg != nil && !reg.made() {
		return nil, errNotMade()
	}
	o := &Orchestrator{
		registry: reg, options: options, epoch: time.Now(), schedule: schedule.New(),
		settled: make(chan struct{}), failed: make(chan struct{}), stopped: make(chan struct{}), halt: make(chan struct{}),
	}
	o.waiting.batches = options.Batches
	if options.Listen != nil {
		o.unread = ring.New[startup.Event](logBuffer)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	_, err = o.join(components)
	return o, err
}

func (o *Orchestrator) now() time.Duration { return time.Since(o.epoch) }

// join adds the components to the plan; on an error nothing has changed. Caller
// holds mu.
func (o *Orchestrator) join(components []Component) (added []*node, err error) {
	components = slices.Clone(components)
	lists := newComponentLists(components)
	for i := range components {
		c := &components[i]
		if err := checkComponent(c, &o.options, lists); err != nil {
			return nil, err
		}
		if len(c.Register) > 0 && o.registry == nil {
			return nil, invalid(componentField(c, "Register"), raw("set"), "nothing without a registry")
		}
	}
	nodes := append(slices.Clip(o.nodes), make([]*node, len(components))...)
	added = nodes[len(o.nodes):]
	made := make([]node, len(components))
	for i := range components {
		made[i].c = &components[i]
		added[i] = &made[i]
	}
	names, err := planNodes(nodes, added, o.options.MaxConcurrent > 0, o.options.Last)
	if err != nil {
		return nil, err
	}
	o.nodes, o.names = nodes, names
	for _, n := range added {
		o.anyOf = o.anyOf || slices.ContainsFunc(n.c.Needs, func(need startup.Need) bool { return need.Any })
	}
	return added, nil
}

// Plan returns what a start would do, or did. It changes nothing.
func (o *Orchestrator) Plan() startup.Plan {
	o.mu.Lock()
	defer o.mu.Unlock()
	return describe(o.nodes)
}

// Start starts all components and returns when each is ready, or its start has
// otherwise been decided. ctx bounds the start, and its values reach the
// components; it does not bound their life.
//
// When the start fails, by [startup.Options.OnFailure], what was started has been
// stopped again when Start returns, under contexts of its own; whoever ignores them
// is told to be stuck. The report is there in any case. The error is the first
// cause; it matches the context's error when ctx ended the start, and [ErrClosed]
// when it was stopped or had been started before.
func (o *Orchestrator) Start(ctx context.Context) (startup.Report, error) {
	if ctx == nil {
		return startup.Report{}, invalid("ctx", raw("nil"), "a context")
	}
	over := ctx.Err() != nil // then nothing is started
	o.mu.Lock()
	if o.phase != phaseNew {
		o.mu.Unlock()
		return o.Report(), fmt.Errorf("registry: orchestrator was started or stopped before: %w", ErrClosed)
	}
	o.phase = phaseStarting
	o.values, o.starter = context.WithoutCancel(ctx), ctx
	o.began = o.now()
	if over {
		for _, n := range o.nodes {
			o.reopen(n)
		}
	} else {
		o.queueAll(o.nodes)
		o.armAll()
	}
	o.mu.Unlock()
	if over {
		o.abort(fault.Join("registry: start: ", fault.OfContext(ctx)))
	}
	select {
	case <-o.settled:
	case <-ctx.Done():
		o.abort(fault.Join("registry: start: ", fault.OfContext(ctx)))
		<-o.settled
	}
	var ended []error // a context's methods may be a user's: outside the lock
	if ctx.Err() != nil {
		ended = fault.OfContext(ctx)
	}
	o.mu.Lock()
	var err error
	if o.rolledBack { // else an error is one of the run, which began meanwhile
		if len(ended) > 0 && !o.gaveUp {
			o.err = fault.Join("registry: start: ", append(ended, o.err))
		}
		err = o.err
	}
	o.mu.Unlock()
	return o.Report(), err
}

// Run starts the components, waits until ctx ends, one of the signals arrives, or a
// critical component is given up, and stops them. A second signal ends the stop: what
// has not stopped is told to at once. The error is that of the start, of the
// component, or of the stop; nil after an ordinary end.
func (o *Orchestrator) Run(ctx context.Context, signals ...os.Signal) error {
	if ctx == nil {
		return invalid("ctx", raw("nil"), "a context")
	}
	arrived := make(chan os.Signal, 2)
	if len(signals) > 0 {
		signal.Notify(arrived, signals...)
		defer signal.Stop(arrived)
	}
	starting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	started := make(chan error, 1)
	go func() {
		_, err := o.Start(starting)
		started <- err
	}()
	told := false
	var err error
	select {
	case err = <-started:
	case <-arrived:
		told = true
		cancel(errSignal)
		select {
		case err = <-started:
		case <-arrived: // nor does the rollback take its time
			o.stops.Cancel(fault.Join("registry: stop: ", []error{context.Canceled, errSignal}))
			err = <-started
		}
	}
	if err != nil {
		return err
	}
	var cause error
	if !told { // else the signal came as the start had just succeeded
		cause = o.untilOver(ctx, arrived)
	}
	stopping, abort := context.WithCancelCause(context.WithoutCancel(ctx))
	defer abort(nil)
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-arrived:
			abort(errSignal)
		case <-over:
		}
	}()
	return errors.Join(append(fault.List(cause), fault.List(o.Stop(stopping))...)...)
}

// untilOver waits for the end of a run, and returns the error of a component that was
// given up.
func (o *Orchestrator) untilOver(ctx context.Context, arrived <-chan os.Signal) error {
	select {
	case <-ctx.Done():
	case <-arrived:
	case <-o.halt: // somebody else stops it
	case <-o.failed:
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.err
	}
	return nil
}

var errSignal = errors.New("told to stop by a signal")

// Stop stops the components, each after those that use it and at the same time as
// the others that may. It first aborts a start in progress. Each has its stop
// timeout; when ctx ends, the contexts of all stops do. It returns when everything
// is down, or has not come down a second after it was told to: those are named by
// the error, which matches [ErrStuck]. Errors of stops are joined. It may be called
// in any state, any number of times and concurrently: every call waits for the same
// stop. A function of a component calls it in a goroutine, since it waits for that
// function.
func (o *Orchestrator) Stop(ctx context.Context) error {
	if ctx == nil {
		return invalid("ctx", raw("nil"), "a context")
	}
	o.mu.Lock()
	switch o.phase {
	case phaseNew:
		o.phase = phaseStopped
		close(o.settled)
		close(o.stopped)
		close(o.halt)
	case phaseStarting:
		o.abortLocked(fmt.Errorf("registry: start: stopped: %w", ErrClosed))
	case phaseRunning:
		o.stopAll()
	case phaseStopping, phaseStopped:
	}
	o.mu.Unlock()
	limit := tasks.WithGrace(ctx)
	defer limit.Stop()
	select {
	case <-o.stopped:
	case <-ctx.Done():
		o.stops.Cancel(fault.Join("registry: stop: ", fault.OfContext(ctx)))
		o.starts.Cancel(fault.Join("registry: stop: ", fault.OfContext(ctx)))
		select {
		case <-o.stopped:
		case <-limit.Over:
		}
	}
	return o.stopErrors(ctx)
}

// stopErrors names what is not down, and what went wrong.
func (o *Orchestrator) stopErrors(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var stuck []string
	var causes []error
	for _, n := range o.nodes {
		if n.calls > 0 || n.up || n.state == startup.Stuck {
			stuck = append(stuck, fmt.Sprintf("component %q", n.c.Name))
		}
		if err := n.stopErr(); err != nil {
			causes = append(causes, fault.Wrap(fmt.Sprintf("component %q: ", n.c.Name), err))
		}
	}
	if len(stuck) > 0 {
		slices.Sort(stuck)
		causes = append([]error{fmt.Errorf("%s: %w", strings.Join(stuck, ", "), ErrStuck)}, append(fault.OfContext(ctx), causes...)...)
	}
	if len(causes) == 0 {
		return nil
	}
	return fault.Join("registry: stop: ", causes)
}

// Add adds components. Before the start they join the plan. While the others run
// they are started, each when its needs are ready, and Add returns when their start
// is decided; when it fails they have been stopped again and removed, unless they
// are not critical. ctx bounds that start. The error is as for [NewOrchestrator] and
// [Orchestrator.Start]; nothing can be added during a start or a stop, which is
// [ErrClosed].
func (o *Orchestrator) Add(ctx context.Context, components ...Component) error {
	if ctx == nil {
		return invalid("ctx", raw("nil"), "a context")
	}
	over := ctx.Err() != nil
	o.mu.Lock()
	if o.phase != phaseNew && o.phase != phaseRunning {
		o.mu.Unlock()
		return fmt.Errorf("registry: components cannot be added while others start or stop: %w", ErrClosed)
	}
	added, err := o.join(components)
	if err == nil && over && o.phase == phaseRunning {
		o.forget(added)
		err = fault.Join("registry: start: ", fault.OfContext(ctx))
	}
	if err != nil || o.phase == phaseNew {
		o.mu.Unlock()
		return err
	}
	var decided []<-chan struct{}
	for _, n := range added {
		n.more().decided = make(chan struct{})
		decided = append(decided, n.extras.decided)
	}
	o.queueAll(added)
	o.armAll()
	o.mu.Unlock()
	for _, one := range decided {
		select {
		case <-one:
		case <-ctx.Done():
			o.giveUp(added, fault.Join("registry: start: ", fault.OfContext(ctx)))
			<-one
		}
	}
	return o.keep(added)
}

// Remove stops a component and forgets it. Others that use it are in the way: the
// error matches [ErrConflict] and names them. An unknown name is [ErrNotRegistered].
// It returns as [Orchestrator.Stop] does.
func (o *Orchestrator) Remove(ctx context.Context, name string) error {
	if ctx == nil {
		return invalid("ctx", raw("nil"), "a context")
	}
	o.mu.Lock()
	n, ok := o.named(name)
	if !ok {
		o.mu.Unlock()
		return fmt.Errorf("registry: component %q: %w", oneline.Cut(name, 64), ErrNotRegistered)
	}
	if users := o.usersOf(n); len(users) > 0 {
		o.mu.Unlock()
		return refuse(ErrConflict, "name", name, "a component that nobody needs; these need it: "+oneline.Cut(strings.Join(users, ", "), 200))
	}
	if o.phase != phaseNew && o.phase != phaseRunning || n.undecided && !n.wasReady {
		o.mu.Unlock()
		return fmt.Errorf("registry: component %q cannot be removed while it starts, or everything does, or stops: %w", oneline.Cut(name, 64), ErrClosed)
	}
	down := o.takeDown(n)
	o.mu.Unlock()
	limit := tasks.WithGrace(ctx)
	defer limit.Stop()
	if down != nil {
		select {
		case <-down:
		case <-ctx.Done():
			o.hurry(n)
			select {
			case <-down:
			case <-limit.Over:
			}
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if n.up || n.calls > 0 {
		return fmt.Errorf("registry: component %q: %w", oneline.Cut(name, 64), ErrStuck)
	}
	o.forget([]*node{n})
	if n.stopErr() == nil {
		return nil
	}
	return fault.Wrap(fmt.Sprintf("registry: component %q: ", oneline.Cut(name, 64)), n.stopErr())
}

// usersOf names the components that need n. Caller holds mu.
func (o *Orchestrator) usersOf(n *node) (names []string) {
	for _, f := range n.feeds {
		if f.keeps() {
			names = append(names, f.node.c.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// forget takes nodes out of the plan. Caller holds mu.
func (o *Orchestrator) forget(gone []*node) {
	disconnect(gone)
	left := make(map[*node]bool, len(gone))
	for _, n := range gone {
		left[n] = true
	}
	o.nodes = slices.DeleteFunc(slices.Clone(o.nodes), func(n *node) bool { return left[n] })
	p := newPlanner(o.nodes)
	p.layer() // those that only came after it are in earlier batches now
	o.names = p.names
}

// named returns the node of that name. Caller holds mu.
func (o *Orchestrator) named(name string) (*node, bool) {
	if at := o.names[name].component; at > 0 {
		return o.nodes[at-1], true
	}
	return nil, false
}

// State returns how far the named component is; false when there is none.
func (o *Orchestrator) State(name string) (startup.State, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, ok := o.named(name)
	if !ok {
		return 0, false
	}
	return n.state, true
}

// Failed returns a channel that is closed when a critical component was given up
// while the others ran; [Orchestrator.Run] ends then.
func (o *Orchestrator) Failed() <-chan struct{} { return o.failed }
