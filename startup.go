package registry

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/capreg/registry/internal/lifecycle"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/startup"
)

// Orchestrator starts the components of a program in the order of their needs, supervises them, and stops them in
// reverse. Each starts as soon as its needs are ready.
//
//	new ──Start──▶ starting ──all decided──▶ running ──Stop──▶ stopping ──▶ stopped
//	                  └── a failure, or Stop: roll back ──────────┘
//
// Use [NewOrchestrator] to create one. It is used once. Its methods are safe for concurrent use. Functions of
// components run under no lock, and a panic of theirs is an error. A component that waits has no goroutine.
type Orchestrator struct {
	registry *Registry
	options  startup.Options
	engine   *lifecycle.Engine
}

// NewOrchestrator returns an orchestrator of the components. Their providers are registered in reg, which is nil
// where there are none. The error is a [FieldError], or a [startup.PlanError] with everything that is wrong about
// their needs.
func NewOrchestrator(reg *Registry, options startup.Options, components ...Component) (*Orchestrator, error) {
	options, v := lifecycle.CheckedOptions(options)
	if v != nil {
		return nil, asFieldError("Options.", v)
	}
	if reg != nil && !reg.made() {
		return nil, errNotMade()
	}
	o := &Orchestrator{registry: reg, options: options}
	checked, err := o.checkComponents(components)
	if err != nil {
		return nil, err
	}
	if o.engine, err = lifecycle.New(options, checked); err != nil {
		return nil, err
	}
	if reg != nil {
		o.engine.Notify(func() { reg.orchestrate(1) }, func() { reg.orchestrate(-1) })
	}
	return o, nil
}

// Plan returns the order in which the components start, or have started. It changes nothing.
func (o *Orchestrator) Plan() startup.Plan { return o.orEmpty().Plan() }

// Start starts all components and returns when each is ready, or its start has otherwise been decided. ctx bounds
// the start, and its values reach the components; it does not bound their run.
//
// When the start fails, by [startup.Options.OnFailure], what was started has been stopped again when Start returns,
// under contexts of its own; components that ignore them are reported as stuck. The report is there in any case.
// The error is the first cause; it matches the context's error when ctx ended the start, [ErrClosed] when it was
// stopped, and [ErrState] when it had been started or stopped before.
func (o *Orchestrator) Start(ctx context.Context) (startup.Report, error) {
	if err := o.usable(ctx); err != nil {
		return startup.Report{}, err
	}
	return o.engine.Start(ctx)
}

// Run starts the components, waits until ctx ends, one of the signals arrives, or a critical component fails for
// good, and stops them. A second signal ends the contexts of the stop at once. The error is that of the start, of
// the component, or of the stop; nil after an ordinary end.
func (o *Orchestrator) Run(ctx context.Context, signals ...os.Signal) error {
	return o.ifUsable(ctx, func() error { return o.engine.Run(ctx, signals...) })
}

// Stop stops the components in reverse, each after its dependants; those that do not depend on each other stop at the
// same time. It first aborts a start in progress. Each has its stop timeout; when ctx ends, the contexts of all stops
// do. It returns when everything is down, or one second after the contexts have ended: components that are not down
// then are named by the error, which matches [ErrStuck]. Errors of stops are joined.
//
// It may be called in any state, any number of times and concurrently: every call waits for the same stop. A
// function of a component calls it in a goroutine, since it waits for that function.
func (o *Orchestrator) Stop(ctx context.Context) error {
	return o.ifUsable(ctx, func() error { return o.engine.Stop(ctx) })
}

// Add adds components. Before the start they join the plan. While the others run they are started, each when its
// needs are ready, and Add returns when their start is decided; when a critical one fails, all have been stopped
// again and removed, but for those that others have come to use. ctx bounds that start. The error is as for
// [NewOrchestrator] and [Orchestrator.Start]; nothing can be added during a start or a stop, which is [ErrState].
func (o *Orchestrator) Add(ctx context.Context, components ...Component) error {
	if err := o.usable(ctx); err != nil {
		return err
	}
	checked, err := o.checkComponents(components)
	if err != nil {
		return err
	}
	return o.engine.Add(ctx, checked)
}

// Remove stops a component and removes it from the plan. When others need it, the error matches [ErrConflict] and
// names them. An unknown name is [ErrNotRegistered]; during a start or a stop the error is [ErrState]. It returns as [Orchestrator.Stop] does.
func (o *Orchestrator) Remove(ctx context.Context, name string) error {
	if err := o.usable(ctx); err != nil {
		return err
	}
	err := o.engine.Remove(ctx, name)
	var inUse *lifecycle.InUseError
	if errors.As(err, &inUse) {
		return refuse(ErrConflict, "name", name, "a component that no other needs; needed by: "+oneline.Cut(strings.Join(inUse.Users, ", "), 200))
	}
	return err
}

// Restart stops a component and starts it again, and returns when it is ready or its start has failed; one that is
// down, since it failed, has ended or was skipped, is started. Its dependants are stopped before and started after
// it where [startup.Restart.Dependants] says so. It forgets the restarts counted so far. When ctx ends first, the
// error is the context's, and the restart goes on. An unknown name is [ErrNotRegistered]; before all have started,
// and in a stop, the error matches [ErrState].
func (o *Orchestrator) Restart(ctx context.Context, name string) error {
	return o.ifUsable(ctx, func() error { return o.engine.Restart(ctx, name) })
}

// State returns the state of the named component; false when there is none.
func (o *Orchestrator) State(name string) (startup.State, bool) { return o.orEmpty().State(name) }

// Failed returns a channel that is closed when a critical component has failed for
// good while the others ran; [Orchestrator.Run] ends then.
func (o *Orchestrator) Failed() <-chan struct{} { return o.orEmpty().Failed() }

// Report returns how the start went, or goes.
func (o *Orchestrator) Report() startup.Report { return o.orEmpty().Report() }

func (o *Orchestrator) ifUsable(ctx context.Context, do func() error) error {
	if err := o.usable(ctx); err != nil {
		return err
	}
	return do()
}

func (o *Orchestrator) usable(ctx context.Context) error {
	if o == nil || o.engine == nil {
		return invalid("Orchestrator", raw("nil or zero"), "an orchestrator made by NewOrchestrator")
	}
	if ctx == nil {
		return errNilContext()
	}
	return nil
}

// orEmpty returns the engine, or one without components for an orchestrator that was not made by NewOrchestrator.
func (o *Orchestrator) orEmpty() *lifecycle.Engine {
	if o != nil && o.engine != nil {
		return o.engine
	}
	return lifecycle.Empty()
}
