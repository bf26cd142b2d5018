package registry

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/lifecycle"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/startup"
)

// Component is a part of a program that an [Orchestrator] starts and stops. It starts when its needs are ready, and
// stops before they do. Only its Name has to be set.
type Component struct {
	// Name identifies the component; at most 256 bytes. Version and Description describe it. Kind names its sort, such as
	// "process", for plans, reports and pictures. Default: none, for functions.
	Name, Version, Description, Kind string
	// Provides lists the capabilities that others can need.
	Provides []string
	// Needs lists the prerequisites that have to be ready before the component starts.
	Needs []startup.Need

	// Start starts the component and returns when that is done. ctx ends with the start timeout, and when the start
	// is aborted: it is for starting only. Work that goes on takes run.Context, or run.Go. An error, a panic or the
	// end of its goroutine is a failure, after which Stop is not called.
	Start func(ctx context.Context, run *startup.Run) error
	// Stop undoes what Start did. It is called once for each Start that returned without an error, also when that
	// was too late, after the run context has ended; ctx ends with the stop timeout.
	Stop func(ctx context.Context) error
	// Completes makes the component ready when its work is done, as that of a migration: Start, and each function that it
	// gave to run.Go, has returned without an error. It is completed then, until it stops with the others.
	Completes bool
	// Notifies makes the component ready only after it has called run.Ready.
	Notifies bool
	// Ready, when set, is called until it returns nil, which makes the component ready: first when Start has
	// returned and, where Notifies is set, run.Ready was called; then after delays that grow by a fifth, from 1 ms
	// to 25 ms or 5 % of the time that the start has taken.
	Ready health.Probe
	// Register lists functions that register what the component provides. They are called in order when it is
	// otherwise ready; the component is ready, and its dependants start, when calls can be given to every provider,
	// such as after its first good probe. The registrations are removed before it stops. The end of a crashed
	// component does not wait for calls in flight: these are cancelled.
	Register []func(context.Context, *Registry) (*Registration, error)

	// StartTimeout bounds the time until it is ready, StopTimeout bounds its stop.
	// Default: those of [startup.Options].
	StartTimeout, StopTimeout time.Duration
	// NonCritical lets the others go on when it fails: its dependants are skipped.
	NonCritical bool
	// Restart configures what happens when it ends by itself, or its first start fails. Default: it is not
	// restarted, and an end with an error ends [Orchestrator.Run] when the component is critical. One that has
	// ended is not ready any more: what it registered is withdrawn, and it stops with the others.
	Restart startup.Restart
}

// From returns the component with its empty fields filled in from a definition: name, version, description,
// capabilities and needs. The rest of a definition is documentation.
func (c Component) From(d startup.Definition) Component {
	c.Name, c.Version, c.Description = cmp.Or(c.Name, d.Name), cmp.Or(c.Version, d.Version), cmp.Or(c.Description, d.Description)
	if len(c.Provides) == 0 {
		c.Provides = slices.Clone(d.Capabilities)
	}
	if len(c.Needs) == 0 {
		c.Needs = startup.Capabilities(d.Requires...)
	}
	return c
}

// checkComponents validates components and converts them for the engine, which owns the
// result: with their defaults, and with lists of their own.
func (o *Orchestrator) checkComponents(components []Component) ([]lifecycle.Component, error) {
	checked := make([]lifecycle.Component, len(components))
	for i := range components {
		c := &components[i]
		checked[i] = lifecycle.Component{
			Name: c.Name, Version: c.Version, Kind: c.Kind, Provides: c.Provides, Needs: c.Needs, Start: c.Start, Stop: c.Stop,
			Completes: c.Completes, Notifies: c.Notifies, Ready: c.Ready, StartTimeout: c.StartTimeout, StopTimeout: c.StopTimeout,
			NonCritical: c.NonCritical, Restart: &c.Restart,
		}
	}
	if v := lifecycle.CheckComponents(checked, o.options); v != nil {
		return nil, asInvalid(v)
	}
	for i := range components {
		var v *check.Violation
		if checked[i].Register, v = o.callbacks(components[i].Register); v != nil {
			return nil, asFieldError(lifecycle.ComponentField(components[i].Name, ""), v)
		}
	}
	return checked, nil
}

// callbacks returns the functions with which the engine registers what a component provides.
func (o *Orchestrator) callbacks(
	register []func(context.Context, *Registry) (*Registration, error),
) ([]func(context.Context) (lifecycle.Handle, error), *check.Violation) {
	if len(register) > 0 && o.registry == nil {
		return nil, check.Refuse("Register", raw("set"), "nothing without a registry")
	}
	callbacks := make([]func(context.Context) (lifecycle.Handle, error), len(register))
	for i, f := range register {
		if f == nil {
			return nil, check.Refuse(check.Item("Register", i), raw("nil"), "a function")
		}
		callbacks[i] = func(ctx context.Context) (lifecycle.Handle, error) {
			registration, err := f(ctx, o.registry)
			switch {
			case err != nil || registration == nil:
				return nil, err
			case registration.provider == nil:
				return nil, invalid("Registration", raw("zero"), "one that a registry returned")
			}
			return componentHandle{registration}, nil
		}
	}
	return callbacks, nil
}

// componentHandle lets the engine wait for, and remove, a provider that a component has registered.
type componentHandle struct{ *Registration }

// Name returns the name of the provider with that of its service.
func (h componentHandle) Name() string { return h.orLeft().id().String() }

// AwaitEligible waits until the provider can be given a call. What a test or a policy of mocks hides is not waited for.
func (h componentHandle) AwaitEligible(ctx context.Context) error {
	r := h.provider.registry
	return lifecycle.Await(ctx, h, func() (eligible bool, changed <-chan struct{}) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return h.current().gateNow()&refusal.Blocked&^refusal.Hidden == 0, r.changedLocked()
	})
}

// Why states what keeps calls away.
func (h componentHandle) Why() string { return h.Info().Reason }

// Withdraw removes the provider and cancels the calls in flight, without waiting for them.
func (h componentHandle) Withdraw() {
	quiesceAll(h.provider.registry.unregister(h.provider, "its component has crashed"))
	h.provider.drain.CancelCalls()
}
