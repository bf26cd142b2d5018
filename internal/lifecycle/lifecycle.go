// Package lifecycle starts components in the order of what they need, supervises them, and stops them in
// reverse.
//
// An [Engine] owns the plan, the state of every component, the contexts of their starts, runs and stops, and
// every goroutine that runs their code. It never runs code of a component, a listener or a caller's context
// while it holds its lock, and never starts a component again before all code of its last run has returned. It
// knows nothing of a registry: what a component registers is a callback that returns a [Handle].
//
// Where to read:
//
//	check.go      bounds and defaults of options and components
//	state.go      stages and goals of a component, and the one function that changes them
//	plan.go       providers of needs, batches, and what is wrong with a plan
//	needs.go      what the outcome of one component means for those that need it
//	turns.go      the order and number of starts, and the workers that call Start
//	start.go      from Start to ready, or back
//	handle.go     what a component has registered
//	stop.go       stops, and the rollback of a start
//	deadlines.go  timeouts of what does not heed its context
//	supervise.go  runs that end by themselves, and restarts
//	change.go     Add and Remove
//	manual.go     Restart
//	run.go        Run, and signals
//	report.go     events and the report
package lifecycle

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/internal/tasks"
	"github.com/capreg/registry/startup"
)

// Component is a component. [CheckComponents] fills in its defaults.
type Component struct {
	Name, Version, Kind string
	Provides            []string
	Needs               []startup.Need // nil once it is in a plan, which has copies

	Start func(ctx context.Context, run *startup.Run) error
	Stop  func(ctx context.Context) error

	Completes, Notifies bool
	Ready               func(ctx context.Context) error
	Register            []func(ctx context.Context) (Handle, error)

	StartTimeout, StopTimeout time.Duration
	NonCritical               bool
	Restart                   *startup.Restart
}

// InUseError is the refusal to remove a component that others need.
type InUseError struct {
	// Users are the names of the components that need it, sorted.
	Users []string
}

// Error names the users.
func (e *InUseError) Error() string {
	return fmt.Sprintf("%v: needed by %s", fault.ErrConflict, strings.Join(e.Users, ", "))
}

// Unwrap returns the sentinel.
func (e *InUseError) Unwrap() error { return fault.ErrConflict }

// Engine starts, supervises and stops components. Use [New] to create one. It is used once, and its methods
// are safe for concurrent use.
//
//	new ──Start──▶ starting ──all decided──▶ running ──Stop──▶ stopping ──none live─▶ stopped
//	 │                └──── failure, Stop: roll back ─────────────▲                      ▲
//	 └──────────────────────────────────Stop────────────────────────────────────────────┘
type Engine struct {
	options       startup.Options
	epoch         time.Time // of the engine's clock
	timers        *schedule.Scheduler
	startContexts attemptctx.Set
	stopContexts  attemptctx.Set
	listener      *listener // nil: none

	// mu guards the fields below and every node but for its id and component. No code of a component, of the
	// listener or of a caller's context runs while it is held. The unexported methods of Engine and node expect
	// it to be held, but for those whose comment says that they take it. What changes nodes ends with commit.
	mu    sync.Mutex
	nodes []*node
	names names
	anyOf bool // some need is satisfied by any of several
	phase phase
	now   time.Duration        // of this step, since epoch
	watch func(from, to stage) // sees every transition; for tests

	onStart, onStop func() // see Notify

	values      context.Context //nolint:containedctx // the values of the context of Start, for later starts
	starter     context.Context //nolint:containedctx // the context of Start
	began, wall time.Duration
	ctxEnded    bool  // err says that the context of Start ended
	rolledBack  bool  // the start has failed
	err         error // why the start failed, or the program is to end

	changed   []*node // nodes whose outcome their dependants have not counted
	turns     turns   // nodes that may start, and wait for their turn
	due       []*node // nodes that have their turn, from taken on
	taken     int
	runs      []componentRun // memory for the next ones
	arriving  int            // workers that are on their way to due
	launching int            // nodes that are starting or checking
	open      int            // nodes whose outcome is not decided
	live      int            // nodes of which code may run: a stop waits for them
	batch     int            // the present one, when batches are wanted
	batchOpen []int          // of each batch, how many nodes are open

	sweeper *schedule.Timer
	sweepAt time.Duration

	decided chan struct{} // closed when the start is decided, and rolled back where it failed
	failed  chan struct{} // closed when the program is to end
	halt    chan struct{} // closed when a stop begins
	stopped chan struct{} // closed when nothing is live
}

type phase uint8

const (
	phaseNew phase = iota
	phaseStarting
	phaseRunning
	phaseStopping
	phaseStopped
)

// New returns an engine of the components, which are the engine's from then on. Options and components have
// their defaults. The error is a [startup.PlanError].
func New(options startup.Options, components []Component) (*Engine, error) {
	e := &Engine{
		options: options, epoch: time.Now(), timers: schedule.New(), listener: newListener(options.Listen),
		decided: make(chan struct{}), failed: make(chan struct{}), halt: make(chan struct{}), stopped: make(chan struct{}),
	}
	e.turns.byBatch = options.Batches
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, err := e.addToPlan(components); err != nil {
		return nil, err
	}
	return e, nil
}

// Empty returns an engine without components.
func Empty() *Engine {
	options, _ := CheckedOptions(startup.Options{}) // the zero value is valid
	e, _ := New(options, nil)
	return e
}

// Notify sets what is called when a start begins, and at the first moment of the stop that follows. The functions must
// be the host's, and must not call the engine, whose lock is held. It is called before anything else.
func (e *Engine) Notify(onStart, onStop func()) { e.onStart, e.onStop = onStart, onStop }

// lock takes mu for a step that changes something, and reads the clock once for all of it.
func (e *Engine) lock() {
	e.mu.Lock()
	e.now = time.Since(e.epoch)
}

// ending reports whether everything is being stopped, or was.
func (e *Engine) ending() bool { return e.phase == phaseStopping || e.phase == phaseStopped }

// Plan returns what a start would do, or did.
func (e *Engine) Plan() startup.Plan {
	e.mu.Lock()
	defer e.mu.Unlock()
	return describe(e.nodes)
}

// Start starts all components and returns when the outcome of each is decided, and rolled back where the start
// failed. ctx bounds the start only; its values reach the components.
func (e *Engine) Start(ctx context.Context) (startup.Report, error) {
	ended := endOf(ctx) // a context's methods may be a user's: outside the lock
	e.lock()
	if e.phase != phaseNew {
		e.mu.Unlock()
		return e.Report(), fmt.Errorf("registry: the orchestrator has been started or stopped before: %w", fault.ErrState)
	}
	e.phase = phaseStarting
	if e.onStart != nil {
		e.onStart()
	}
	e.values, e.starter = context.WithoutCancel(ctx), ctx
	e.began = e.now
	e.wait(e.nodes)
	if len(ended) > 0 { // then nothing is started
		e.ctxEnded = true
		e.rollback(startError(ended), errStopping.Error())
	}
	e.commit()
	e.mu.Unlock()
	select {
	case <-e.decided:
	case <-ctx.Done():
		e.abortWithContext(startError(fault.OfContext(ctx)))
		<-e.decided
	}
	limit := tasks.WithGrace(ctx)
	defer limit.Stop()
	e.listener.await(limit.Over)
	ended = endOf(ctx)
	e.mu.Lock()
	var err error
	if e.rolledBack { // else an error is one of the run, which began meanwhile
		if len(ended) > 0 && !e.ctxEnded {
			e.err = startError(append(ended, e.err))
		}
		err = e.err
	}
	e.mu.Unlock()
	return e.Report(), err
}

// abortWithContext rolls a start back whose context has ended. It takes mu.
func (e *Engine) abortWithContext(err error) {
	e.lock()
	defer e.mu.Unlock()
	if e.phase == phaseStarting {
		e.ctxEnded = true
		e.rollback(err, errStopping.Error())
		e.commit()
	}
}

// endOf returns the errors of a context that has ended, none for another.
func endOf(ctx context.Context) []error {
	if ctx.Err() == nil {
		return nil
	}
	return fault.OfContext(ctx)
}

func startError(causes []error) error { return fault.Join("registry: start: ", causes) }

func stopError(causes []error) error { return fault.Join("registry: stop: ", causes) }

// Stop stops the components, each after those that use it, and first aborts a start in progress. It returns
// when everything is down, or a grace after ctx has ended. Every call waits for the same stop.
func (e *Engine) Stop(ctx context.Context) error {
	e.lock()
	switch e.phase {
	case phaseNew:
		e.phase = phaseStopped
		close(e.decided)
		close(e.stopped)
		close(e.halt)
	case phaseStarting:
		e.rollback(fmt.Errorf("registry: start: stopped: %w", fault.ErrClosed), errStopping.Error())
	case phaseRunning:
		e.stopAll(errStopping.Error())
	case phaseStopping, phaseStopped:
	}
	e.commit()
	e.mu.Unlock()
	limit := tasks.WithGrace(ctx)
	defer limit.Stop()
	select {
	case <-e.stopped:
	case <-ctx.Done():
		e.stopContexts.Cancel(stopError(fault.OfContext(ctx)))
		e.startContexts.Cancel(stopError(fault.OfContext(ctx)))
		select {
		case <-e.stopped:
		case <-limit.Over:
		}
	}
	e.listener.await(limit.Over)
	return e.stopErrors(ctx)
}

// stopErrors names what is not down, and what went wrong. It takes mu.
func (e *Engine) stopErrors(ctx context.Context) error {
	ended := endOf(ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	var stuck []string
	var causes []error
	for _, n := range e.nodes {
		if n.calls > 0 || n.stage.live() || n.state() == startup.Stuck {
			stuck = append(stuck, fmt.Sprintf("component %q", n.c.Name))
		}
		if err := n.stopErr(); err != nil {
			causes = append(causes, fault.Wrap(fmt.Sprintf("component %q: ", n.c.Name), err))
		}
	}
	if len(stuck) > 0 {
		slices.Sort(stuck)
		first := fmt.Errorf("%s: %w", strings.Join(stuck, ", "), fault.ErrStuck)
		causes = append(append([]error{first}, ended...), causes...)
	}
	if len(causes) == 0 {
		return nil
	}
	return stopError(causes)
}

// State returns the state of the named component; false when there is none.
func (e *Engine) State(name string) (startup.State, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n, ok := e.named(name)
	if !ok {
		return 0, false
	}
	return n.state(), true
}

// Failed returns a channel that is closed when a critical component has failed while the others ran.
func (e *Engine) Failed() <-chan struct{} { return e.failed }

// named returns the node of that name.
func (e *Engine) named(name string) (*node, bool) {
	if at := e.names[name].component; at > 0 {
		return e.nodes[at-1], true
	}
	return nil, false
}
