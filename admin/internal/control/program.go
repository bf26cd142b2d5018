package control

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/capreg/registry/admin/action"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/startup"
)

// Startup reports how the components of the program were started, and their present states.
type Startup struct {
	Plan   startup.Plan   `json:"plan"`
	Report startup.Report `json:"report"`
	// States are the present states, by component.
	States map[string]startup.State `json:"states"`
	// Text is the critical chain of the start.
	Text string `json:"text"`
	// Tag is that of the states and restarts, for a restart that is based on them.
	Tag string `json:"-"`
}

func errNoOrchestrator() error {
	return &Error{Kind: NotFound, Text: "the program has given no orchestrator"}
}

// Startup returns plan, report and states of the orchestrator.
func (c *Control) Startup() (s Startup, err error) {
	o := c.options.Orchestrator
	if o == nil {
		return s, errNoOrchestrator()
	}
	s = Startup{Plan: o.Plan(), Report: o.Report(), States: make(map[string]startup.State)}
	for _, step := range s.Plan.Steps {
		if state, ok := o.State(step.Name); ok {
			s.States[step.Name] = state
		}
	}
	s.Text = s.Report.String()
	restarts := make(map[string]int, len(s.Report.Components))
	for _, component := range s.Report.Components {
		restarts[component.Name] = component.Restarts
	}
	text, _ := json.Marshal([]any{c.boot, s.States, restarts}) // plain data
	s.Tag = tagOf(text)
	return s, nil
}

// Restart restarts a component and waits until it is ready, within ctx.
func (c *Control) Restart(ctx context.Context, ask Ask, component string) (state startup.State, err error) {
	a := action.Action{Verb: action.Restart, Component: oneline.Short(component, longestName)}
	err = c.doSlowly(ctx, ask, a, func(ctx context.Context, _ string) (string, error) {
		o := c.options.Orchestrator
		if o == nil {
			return "", errNoOrchestrator()
		}
		was, known := o.State(component)
		if !known {
			return "", &Error{Kind: NotFound, Text: fmt.Sprintf("there is no component %q", a.Component)}
		}
		now, err := c.Startup()
		if err == nil {
			err = ask.matches(now.Tag)
		}
		if err != nil {
			return "", err
		}
		err = o.Restart(ctx, component)
		state, _ = o.State(component)
		return fmt.Sprintf("%s was %s and is %s", a.Component, was, state), err
	})
	return state, err
}
