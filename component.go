package registry

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/startup"
)

const (
	defaultStartTimeout  = 30 * time.Second
	defaultStopTimeout   = 10 * time.Second
	defaultRestartLimit  = 5
	defaultRestartDecay  = 30 * time.Second
	defaultFirstRestart  = 100 * time.Millisecond
	defaultLongestPause  = 15 * time.Second
	longestComponentWait = 24 * time.Hour
)

// Component is a part of a program that an [Orchestrator] starts, once what it
// needs is ready, and stops before that. Only its Name has to be set.
type Component struct {
	// Name identifies the component; at most 256 bytes. Version and Description
	// describe it.
	Name, Version, Description string
	// Provides are the capabilities that others can need.
	Provides []string
	// Needs is what has to be there before it starts.
	Needs []startup.Need

	// Start starts the component and returns when that is done. ctx ends with the
	// start timeout, and when the start is aborted: it is for starting only. What
	// goes on takes run.Context, or run.Go. An error, a panic or the end of its
	// goroutine is a failure, after which Stop is not called.
	Start func(ctx context.Context, run *startup.Run) error
	// Stop undoes what Start did. It is called once for each Start that returned
	// without an error, also where that was too late, after the run context has
	// ended; ctx ends with the stop timeout.
	Stop func(ctx context.Context) error
	// Notifies says that the component tells when it is ready, with run.Ready.
	Notifies bool
	// Ready, when set, is asked whether the component is ready: when Start has
	// returned and it was notified where Notifies is set; then again after delays
	// that grow by a fifth, from 1 ms to 25 ms or 5 % of the time it has taken.
	Ready health.Probe
	// Register is what is registered in the registry when the component is ready,
	// in order, and removed before it stops: its dependants start after that.
	Register []func(context.Context, *Registry) (*Registration, error)

	// StartTimeout bounds the time until it is ready, StopTimeout that of its stop.
	// Default: those of [startup.Options].
	StartTimeout, StopTimeout time.Duration
	// NonCritical lets the others go on when it fails: what needs it is skipped.
	NonCritical bool
	// Restart is what happens when it ends by itself. Default: it is not started
	// again, and when it is critical and ended with an error, that ends
	// [Orchestrator.Run].
	Restart startup.Restart
}

// From returns the component with what the definition says, where it says nothing
// itself: name, version, description, capabilities and needs. The rest of a
// definition is for readers.
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

// componentLists holds the words and needs of many components: one allocation for
// each.
type componentLists struct {
	words []string
	needs []startup.Need
}

func newComponentLists(components []Component) *componentLists {
	words, needs := 0, 0
	for i := range components {
		words += len(components[i].Provides)
		needs += len(components[i].Needs)
	}
	return &componentLists{make([]string, 0, words), make([]startup.Need, 0, needs)}
}

// checkComponent fills in the defaults, and makes the lists the component's own.
func checkComponent(c *Component, options *startup.Options, lists *componentLists) error {
	if err := checkName("Component.Name", c.Name); err != nil {
		return err
	}
	first := len(lists.words)
	for i, word := range c.Provides {
		if checkName("", word) != nil {
			return checkName(componentField(c, fmt.Sprintf("Provides[%d]", i)), word)
		}
		if !slices.Contains(lists.words[first:], word) {
			lists.words = append(lists.words, word)
		}
	}
	c.Provides = slices.Clip(lists.words[first:])
	first = len(lists.needs)
	lists.needs = append(lists.needs, c.Needs...)
	c.Needs = slices.Clip(lists.needs[first:])
	for i := range c.Needs {
		need := &c.Needs[i]
		if (need.Capability == "") == (need.Component == "") {
			return invalid(componentField(c, fmt.Sprintf("Needs[%d]", i)), need.String(), "either a Capability or a Component")
		}
		if checkName("", cmp.Or(need.Capability, need.Component)) != nil {
			return checkName(componentField(c, fmt.Sprintf("Needs[%d]", i)), cmp.Or(need.Capability, need.Component))
		}
	}
	for _, d := range [...]struct {
		name  string
		value *time.Duration
		usual time.Duration
	}{
		{"StartTimeout", &c.StartTimeout, options.StartTimeout},
		{"StopTimeout", &c.StopTimeout, options.StopTimeout},
		{"Restart.Decay", &c.Restart.Decay, defaultRestartDecay},
		{"Restart.FirstDelay", &c.Restart.FirstDelay, defaultFirstRestart},
		{"Restart.MaxDelay", &c.Restart.MaxDelay, max(defaultLongestPause, c.Restart.FirstDelay)},
	} {
		if *d.value < 0 || *d.value > longestComponentWait {
			return invalid(componentField(c, d.name), *d.value, fmt.Sprintf("0 (default %v) to %v", d.usual, longestComponentWait))
		}
		if *d.value == 0 {
			*d.value = d.usual
		}
	}
	if c.Restart.Limit < 0 {
		return invalid(componentField(c, "Restart.Limit"), c.Restart.Limit, fmt.Sprintf("0 (default %d) or more", defaultRestartLimit))
	}
	if c.Restart.Mode > startup.Always {
		return invalid(componentField(c, "Restart.Mode"), c.Restart.Mode, "Never, OnFailure or Always")
	}
	c.Restart.Limit = cmp.Or(c.Restart.Limit, defaultRestartLimit)
	c.Register = slices.Clone(c.Register)
	for i, register := range c.Register {
		if register == nil {
			return invalid(componentField(c, fmt.Sprintf("Register[%d]", i)), raw("nil"), "a function")
		}
	}
	return nil
}

// componentField names a field for an error. It is not made before there is one: most
// of the time of a plan would go into that.
func componentField(c *Component, name string) string {
	return fmt.Sprintf("Component[%q].%s", oneline.Cut(c.Name, 64), name)
}

// checkStartup returns the options with their defaults.
func checkStartup(o startup.Options) (startup.Options, error) {
	switch {
	case o.MaxConcurrent < 0:
		return o, invalid("Options.MaxConcurrent", o.MaxConcurrent, "0 (any number) or more")
	case o.OnFailure > startup.Continue:
		return o, invalid("Options.OnFailure", o.OnFailure, "Abort, SkipDependants or Continue")
	case o.StartTimeout < 0 || o.StartTimeout > longestComponentWait:
		return o, invalid("Options.StartTimeout", o.StartTimeout, fmt.Sprintf("0 (default %v) to %v", defaultStartTimeout, longestComponentWait))
	case o.StopTimeout < 0 || o.StopTimeout > longestComponentWait:
		return o, invalid("Options.StopTimeout", o.StopTimeout, fmt.Sprintf("0 (default %v) to %v", defaultStopTimeout, longestComponentWait))
	}
	o.StartTimeout = cmp.Or(o.StartTimeout, defaultStartTimeout)
	o.StopTimeout = cmp.Or(o.StopTimeout, defaultStopTimeout)
	return o, nil
}
