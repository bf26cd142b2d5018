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
// capabilities become copies, in which a capability is once, and so do their policies of restarts.
func CheckComponents(components []Component, options startup.Options) *check.Violation {
	f := newFiller(components, &options)
	for i := range components {
		c := &components[i]
		if v := check.Name("Component.Name", c.Name); v != nil {
			return v
		}
		if v := cmp.Or(f.copyProvides(c), checkNeeds(c.Needs), f.fill(c)); v != nil {
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

// filler fills in the defaults of many components, with one allocation for all lists, and one for all policies that are
// the default.
type filler struct {
	options  *startup.Options
	provides []string
	restart  *startup.Restart
}

func newFiller(components []Component, options *startup.Options) *filler {
	provides := 0
	for i := range components {
		provides += len(components[i].Provides)
	}
	preset := &startup.Restart{}
	_ = fillRestart(preset) // the zero value is valid
	return &filler{options, make([]string, 0, provides), preset}
}

func (f *filler) copyProvides(c *Component) *check.Violation {
	if v := check.Names("Provides", c.Provides); v != nil {
		return v
	}
	first := len(f.provides)
	f.provides = check.AppendOnce(f.provides, c.Provides)
	c.Provides = slices.Clip(f.provides[first:])
	return nil
}

func checkNeeds(needs []startup.Need) *check.Violation {
	for i := range needs {
		need := &needs[i]
		if (need.Capability == "") == (need.Component == "") {
			return check.Refuse(check.Item("Needs", i), need.String(), "either a Capability or a Component")
		}
		if v := check.Name("Needs", cmp.Or(need.Capability, need.Component)); v != nil {
			v.Field = check.Item("Needs", i)
			return v
		}
	}
	return nil
}

// within returns the bounds of a time, zero of which is the preset.
func within(preset time.Duration) check.Range[time.Duration] {
	return check.Range[time.Duration]{Default: preset, Max: longestTimeout}
}

// fill checks the timeouts and the restart policy, and fills in their defaults.
func (f *filler) fill(c *Component) *check.Violation {
	if v := cmp.Or(
		check.OptionalName("Kind", c.Kind),
		within(f.options.StartTimeout).Fill("StartTimeout", &c.StartTimeout),
		within(f.options.StopTimeout).Fill("StopTimeout", &c.StopTimeout),
	); v != nil {
		return v
	}
	if c.Restart == nil || *c.Restart == (startup.Restart{}) {
		c.Restart = f.restart
		return nil
	}
	restart := *c.Restart
	c.Restart = &restart
	return fillRestart(c.Restart)
}

func fillRestart(r *startup.Restart) *check.Violation {
	if v := cmp.Or(
		within(30*time.Second).Fill("Restart.Decay", &r.Decay),
		within(100*time.Millisecond).Fill("Restart.FirstDelay", &r.FirstDelay),
		within(max(15*time.Second, r.FirstDelay)).Fill("Restart.MaxDelay", &r.MaxDelay),
		check.Range[int]{Default: 5}.Fill("Restart.MaxRestarts", &r.MaxRestarts),
	); v != nil {
		return v
	}
	if r.Mode > startup.Always {
		return check.Refuse("Restart.Mode", r.Mode, "Never, OnFailure or Always")
	}
	return nil
}
