package lifecycle

import (
	"cmp"
	"slices"
	"time"

	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/startup"
)

// longestTimeout bounds the times of components.
const longestTimeout = 24 * time.Hour

// CheckedOptions returns the options with their defaults filled in, or the first field that is out of bounds.
func CheckedOptions(o startup.Options) (startup.Options, *check.Violation) {
	if v := (check.Range[int]{Zero: "any number"}).Check("MaxConcurrent", o.MaxConcurrent); v != nil {
		return o, v
	}
	if o.OnFailure > startup.Continue {
		return o, check.Refuse("OnFailure", o.OnFailure, "Abort, SkipDependants or Continue")
	}
	return o, cmp.Or(
		check.Range[time.Duration]{Default: 30 * time.Second, Max: longestTimeout}.Fill("StartTimeout", &o.StartTimeout),
		check.Range[time.Duration]{Default: 10 * time.Second, Max: longestTimeout}.Fill("StopTimeout", &o.StopTimeout),
	)
}

// CheckComponents checks components and fills in their defaults, among them those of checked options. Their lists of
// capabilities and needs become copies, in which a capability is once.
func CheckComponents(components []Component, options startup.Options) *check.Violation {
	lists := newLists(components)
	for i := range components {
		c := &components[i]
		if v := check.Name("Component.Name", c.Name); v != nil {
			return v
		}
		if v := cmp.Or(lists.copyProvides(c), lists.copyNeeds(c), fillComponent(c, &options)); v != nil {
			v.Field = ComponentField(c.Name, v.Field)
			return v
		}
	}
	return nil
}

// ComponentField names a field of a component.
func ComponentField(component, field string) string {
	return check.Key("Component", component) + "." + field
}

// lists has the capabilities and needs of many components: one allocation for each.
type lists struct {
	provides []string
	needs    []startup.Need
}

func newLists(components []Component) *lists {
	provides, needs := 0, 0
	for i := range components {
		provides += len(components[i].Provides)
		needs += len(components[i].Needs)
	}
	return &lists{make([]string, 0, provides), make([]startup.Need, 0, needs)}
}

func (l *lists) copyProvides(c *Component) *check.Violation {
	if v := check.Names("Provides", c.Provides); v != nil {
		return v
	}
	first := len(l.provides)
	l.provides = check.AppendOnce(l.provides, c.Provides)
	c.Provides = slices.Clip(l.provides[first:])
	return nil
}

func (l *lists) copyNeeds(c *Component) *check.Violation {
	for i := range c.Needs {
		need := &c.Needs[i]
		if (need.Capability == "") == (need.Component == "") {
			return check.Refuse(check.Item("Needs", i), need.String(), "either a Capability or a Component")
		}
		if v := check.Name("Needs", cmp.Or(need.Capability, need.Component)); v != nil {
			v.Field = check.Item("Needs", i)
			return v
		}
	}
	first := len(l.needs)
	l.needs = append(l.needs, c.Needs...)
	c.Needs = slices.Clip(l.needs[first:])
	return nil
}

// fillComponent checks the timeouts and the restart policy, and fills in their defaults.
func fillComponent(c *Component, options *startup.Options) *check.Violation {
	within := func(preset time.Duration) check.Range[time.Duration] {
		return check.Range[time.Duration]{Default: preset, Max: longestTimeout}
	}
	slowest := within(max(15*time.Second, c.Restart.FirstDelay))
	if v := cmp.Or(
		check.OptionalName("Kind", c.Kind),
		within(options.StartTimeout).Fill("StartTimeout", &c.StartTimeout),
		within(options.StopTimeout).Fill("StopTimeout", &c.StopTimeout),
		within(30*time.Second).Fill("Restart.Decay", &c.Restart.Decay),
		within(100*time.Millisecond).Fill("Restart.FirstDelay", &c.Restart.FirstDelay),
		slowest.Fill("Restart.MaxDelay", &c.Restart.MaxDelay),
		check.Range[int]{Default: 5}.Fill("Restart.MaxRestarts", &c.Restart.MaxRestarts),
	); v != nil {
		return v
	}
	if c.Restart.Mode > startup.Always {
		return check.Refuse("Restart.Mode", c.Restart.Mode, "Never, OnFailure or Always")
	}
	return nil
}
