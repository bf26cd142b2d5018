package control

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/capreg/registry/admin/action"
	"github.com/capreg/registry/internal/fault"
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

// Configuration is a manager of documents, as package admin takes one. Its texts are YAML or JSON.
type Configuration interface {
	// Current returns the document that was applied last, as JSON with references as they were written; nil: none was.
	Current() (document []byte, err error)
	// Check returns what is wrong with a document, a line for each; none where nothing is.
	Check(text []byte) (problems []DocumentProblem)
	// Plan returns what a document would change, and the same in words.
	Plan(ctx context.Context, text []byte) (plan any, words string, err error)
	// Apply applies a document at one moment or not at all, and returns what was changed.
	Apply(ctx context.Context, text []byte) (plan any, words string, err error)
	// Schema returns the JSON Schema of documents.
	Schema() ([]byte, error)
}

// DocumentProblem is one thing that is wrong with a document.
type DocumentProblem struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Path    string `json:"path,omitempty"`
	Text    string `json:"text"`
	Nearest string `json:"nearest,omitempty"`
}

// ProblemsError is a document that is refused.
type ProblemsError struct{ Problems []DocumentProblem }

// Error returns the number of the problems with the first of them.
func (e *ProblemsError) Error() string {
	if len(e.Problems) == 0 {
		return "the document is refused"
	}
	return oneline.Plural(len(e.Problems), "problem") + " in the document, the first: " + oneline.Short(e.Problems[0].Text, 512)
}

// configuration returns the manager of documents.
func (c *Control) configuration() (Configuration, error) {
	if c.options.Configuration == nil {
		return nil, &Error{Kind: NotFound, Text: "the program has given no configuration"}
	}
	return c.options.Configuration, nil
}

// Document returns the document in force as JSON, and its tag; "null" before the first.
func (c *Control) Document() (document []byte, tag string, err error) {
	manager, err := c.configuration()
	if err == nil {
		document, err = manager.Current()
	}
	if err != nil {
		return nil, "", refused(err)
	}
	if document == nil {
		document = []byte("null")
	}
	return document, tagOf(append([]byte(c.boot), document...)), nil
}

// Lint returns what is wrong with a document.
func (c *Control) Lint(text []byte) ([]DocumentProblem, error) {
	manager, err := c.configuration()
	if err != nil {
		return nil, err
	}
	var problems []DocumentProblem
	if err := fault.Run(func() error { problems = manager.Check(text); return nil }); err != nil {
		return nil, refused(err)
	}
	if problems == nil {
		problems = []DocumentProblem{}
	}
	return problems, nil
}

// Planned lists the changes of a document.
type Planned struct {
	Plan any    `json:"plan"`
	Text string `json:"text"`
	Tag  string `json:"-"`
}

// PlanDocument returns what a document would change. It changes nothing.
func (c *Control) PlanDocument(ctx context.Context, text []byte) (p Planned, err error) {
	manager, err := c.configuration()
	if err != nil {
		return p, err
	}
	err = fault.Run(func() (err error) { p.Plan, p.Text, err = manager.Plan(ctx, text); return err })
	return p, refused(err)
}

// ApplyDocument applies a document at one moment or not at all, within ctx, if the one in force is what it is based on.
func (c *Control) ApplyDocument(ctx context.Context, ask Ask, text []byte) (p Planned, err error) {
	err = c.doSlowly(ctx, ask, action.Action{Verb: action.Configure}, func(ctx context.Context, _ string) (string, error) {
		manager, err := c.configuration()
		if err != nil {
			return "", err
		}
		select {
		case c.configuring <- struct{}{}:
			defer func() { <-c.configuring }()
		case <-ctx.Done():
			return "", ctx.Err()
		}
		_, tag, err := c.Document()
		if err == nil {
			err = ask.matches(tag)
		}
		if err != nil {
			return "", err
		}
		if err = fault.Run(func() (err error) { p.Plan, p.Text, err = manager.Apply(ctx, text); return err }); err != nil {
			return "", err
		}
		_, p.Tag, err = c.Document()
		return p.Text, err
	})
	return p, err
}

// Schema returns the JSON Schema of documents.
func (c *Control) Schema() ([]byte, error) {
	manager, err := c.configuration()
	if err != nil {
		return nil, err
	}
	text, err := manager.Schema()
	return text, refused(err)
}

// refused returns the error as a refusal; nil for none.
func refused(err error) error {
	if refusal := refusalOf(err); refusal != nil {
		return refusal
	}
	return nil
}
