package registry

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/lifecycle"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/startup"
)

const (
	defaultStartTimeout      = 30 * time.Second
	defaultStopTimeout       = 10 * time.Second
	defaultRestartLimit      = 5
	defaultRestartDecay      = 30 * time.Second
	defaultFirstRestartDelay = 100 * time.Millisecond
	defaultMaxRestartDelay   = 15 * time.Second
	maxComponentTimeout      = 24 * time.Hour
)

// Component is a part of a program that an [Orchestrator] starts when what it needs
// is ready, and stops before that. Only its Name has to be set.
type Component struct {
	// Name identifies the component; at most 256 bytes. Version and Description
	// describe it.
	Name, Version, Description string
	// Provides lists the capabilities that others can need.
	Provides []string
	// Needs lists what has to be ready before the component starts.
	Needs []startup.Need

	// Start starts the component and returns when that is done. ctx ends with the
	// start timeout, and when the start is aborted: it is for starting only. Work that
	// goes on takes run.Context, or run.Go. An error, a panic or the end of its
	// goroutine is a failure, after which Stop is not called.
	Start func(ctx context.Context, run *startup.Run) error
	// Stop undoes what Start did. It is called once for each Start that returned
	// without an error, also when that was too late, after the run context has
	// ended; ctx ends with the stop timeout.
	Stop func(ctx context.Context) error
	// Notifies makes the component ready only after it has called run.Ready.
	Notifies bool
	// Ready, when set, is called until it returns nil, which makes the component ready:
	// first when Start has returned and, where Notifies is set, run.Ready was called;
	// then after delays that grow by a fifth, from 1 ms to 25 ms or 5 % of the time that
	// the start has taken.
	Ready health.Probe
	// Register lists functions that register what the component provides. They are
	// called in order when it is otherwise ready, before its dependants start; the
	// registrations are removed before it stops.
	Register []func(context.Context, *Registry) (*Registration, error)

	// StartTimeout bounds the time until it is ready, StopTimeout that of its stop.
	// Default: those of [startup.Options].
	StartTimeout, StopTimeout time.Duration
	// NonCritical lets the others go on when it fails: its dependants are skipped.
	NonCritical bool
	// Restart configures what happens when it ends by itself. Default: it is not
	// restarted, and an end with an error ends [Orchestrator.Run] when the component is
	// critical.
	Restart startup.Restart
}

// From returns the component with its empty fields filled in from a definition: name,
// version, description, capabilities and needs. The rest of a definition is
// documentation.
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
	lists := newComponentLists(components)
	for i := range components {
		if err := o.checkComponent(&components[i], &checked[i], lists); err != nil {
			return nil, err
		}
	}
	return checked, nil
}

// componentLists holds the capabilities and needs of many components: one allocation
// for each.
type componentLists struct {
	provides []string
	needs    []startup.Need
}

func newComponentLists(components []Component) *componentLists {
	provides, needs := 0, 0
	for i := range components {
		provides += len(components[i].Provides)
		needs += len(components[i].Needs)
	}
	return &componentLists{make([]string, 0, provides), make([]startup.Need, 0, needs)}
}

// checkComponent validates a component and converts it.
func (o *Orchestrator) checkComponent(c *Component, checked *lifecycle.Component, lists *componentLists) (err error) {
	if err := checkName("Component.Name", c.Name); err != nil {
		return err
	}
	*checked = lifecycle.Component{
		Name: c.Name, Version: c.Version, Start: c.Start, Stop: c.Stop, Notifies: c.Notifies, Ready: c.Ready,
		StartTimeout: c.StartTimeout, StopTimeout: c.StopTimeout, NonCritical: c.NonCritical, Restart: c.Restart,
	}
	if checked.Provides, err = lists.checkProvides(c); err != nil {
		return err
	}
	if checked.Needs, err = lists.checkNeeds(c); err != nil {
		return err
	}
	if err := checkTimes(checked, &o.options); err != nil {
		return err
	}
	checked.Register, err = o.checkRegister(c)
	return err
}

// checkProvides returns the capabilities of a component, each once.
func (l *componentLists) checkProvides(c *Component) ([]string, error) {
	first := len(l.provides)
	for i, word := range c.Provides {
		if checkName("", word) != nil {
			return nil, checkName(componentField(c.Name, fmt.Sprintf("Provides[%d]", i)), word)
		}
		if !slices.Contains(l.provides[first:], word) {
			l.provides = append(l.provides, word)
		}
	}
	return slices.Clip(l.provides[first:]), nil
}

// checkNeeds returns the needs of a component.
func (l *componentLists) checkNeeds(c *Component) ([]startup.Need, error) {
	for i := range c.Needs {
		need := &c.Needs[i]
		if (need.Capability == "") == (need.Component == "") {
			return nil, invalid(componentField(c.Name, fmt.Sprintf("Needs[%d]", i)), need.String(), "either a Capability or a Component")
		}
		if name := cmp.Or(need.Capability, need.Component); checkName("", name) != nil {
			return nil, checkName(componentField(c.Name, fmt.Sprintf("Needs[%d]", i)), name)
		}
	}
	first := len(l.needs)
	l.needs = append(l.needs, c.Needs...)
	return slices.Clip(l.needs[first:]), nil
}

// checkTimes fills in the defaults of timeouts and of the restart policy.
func checkTimes(c *lifecycle.Component, options *startup.Options) error {
	for _, d := range [...]struct {
		name   string
		value  *time.Duration
		preset time.Duration
	}{
		{"StartTimeout", &c.StartTimeout, options.StartTimeout},
		{"StopTimeout", &c.StopTimeout, options.StopTimeout},
		{"Restart.Decay", &c.Restart.Decay, defaultRestartDecay},
		{"Restart.FirstDelay", &c.Restart.FirstDelay, defaultFirstRestartDelay},
		{"Restart.MaxDelay", &c.Restart.MaxDelay, max(defaultMaxRestartDelay, c.Restart.FirstDelay)},
	} {
		if *d.value < 0 || *d.value > maxComponentTimeout {
			return invalid(componentField(c.Name, d.name), *d.value, fmt.Sprintf("0 (default %v) to %v", d.preset, maxComponentTimeout))
		}
		if *d.value == 0 {
			*d.value = d.preset
		}
	}
	switch {
	case c.Restart.Limit < 0:
		return invalid(componentField(c.Name, "Restart.Limit"), c.Restart.Limit, fmt.Sprintf("0 (default %d) or more", defaultRestartLimit))
	case c.Restart.Mode > startup.Always:
		return invalid(componentField(c.Name, "Restart.Mode"), c.Restart.Mode, "Never, OnFailure or Always")
	}
	c.Restart.Limit = cmp.Or(c.Restart.Limit, defaultRestartLimit)
	return nil
}

// checkRegister returns the callbacks with which the engine registers what a component provides.
func (o *Orchestrator) checkRegister(c *Component) ([]func(context.Context) (lifecycle.Handle, error), error) {
	if len(c.Register) == 0 {
		return nil, nil
	}
	reg := o.registry
	if reg == nil {
		return nil, invalid(componentField(c.Name, "Register"), raw("set"), "nothing without a registry")
	}
	callbacks := make([]func(context.Context) (lifecycle.Handle, error), len(c.Register))
	for i, register := range c.Register {
		if register == nil {
			return nil, invalid(componentField(c.Name, fmt.Sprintf("Register[%d]", i)), raw("nil"), "a function")
		}
		callbacks[i] = func(ctx context.Context) (lifecycle.Handle, error) {
			registration, err := register(ctx, reg)
			if err != nil || registration == nil {
				return nil, err
			}
			return registration, nil
		}
	}
	return callbacks, nil
}

// componentField names a field for an error. It is not made before there is one: most
// of the time of a plan would go into that.
func componentField(component, field string) string {
	return fmt.Sprintf("Component[%q].%s", oneline.Cut(component, 64), field)
}

// checkStartup returns the options with their defaults.
func checkStartup(o startup.Options) (startup.Options, error) {
	switch {
	case o.MaxConcurrent < 0:
		return o, invalid("Options.MaxConcurrent", o.MaxConcurrent, "0 (any number) or more")
	case o.OnFailure > startup.Continue:
		return o, invalid("Options.OnFailure", o.OnFailure, "Abort, SkipDependants or Continue")
	case o.StartTimeout < 0 || o.StartTimeout > maxComponentTimeout:
		return o, invalid("Options.StartTimeout", o.StartTimeout, fmt.Sprintf("0 (default %v) to %v", defaultStartTimeout, maxComponentTimeout))
	case o.StopTimeout < 0 || o.StopTimeout > maxComponentTimeout:
		return o, invalid("Options.StopTimeout", o.StopTimeout, fmt.Sprintf("0 (default %v) to %v", defaultStopTimeout, maxComponentTimeout))
	}
	o.StartTimeout = cmp.Or(o.StartTimeout, defaultStartTimeout)
	o.StopTimeout = cmp.Or(o.StopTimeout, defaultStopTimeout)
	return o, nil
}
