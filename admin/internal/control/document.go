package control

import (
	"context"
	"fmt"

	"github.com/capreg/registry/admin/action"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
)

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
	// PlanUndo returns what Undo would change.
	PlanUndo(ctx context.Context) (plan any, words string, err error)
	// Undo applies the document that was in force before the last Apply or Undo, at one moment or not at all, and returns
	// what was changed. Where there is none, or another one was applied since, the error matches registry.ErrState.
	Undo(ctx context.Context) (plan any, words string, err error)
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
	return document, tagOf(fmt.Appendf(nil, "%s %d %s", c.boot, c.documents.Load(), document)), nil
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

// PlanUndo returns what going back to the former document would change. It changes nothing.
func (c *Control) PlanUndo(ctx context.Context) (p Planned, err error) {
	manager, err := c.configuration()
	if err != nil {
		return p, err
	}
	err = fault.Run(func() (err error) { p.Plan, p.Text, err = manager.PlanUndo(ctx); return err })
	return p, refused(err)
}

// ApplyDocument applies a document at one moment or not at all, within ctx, if the one in force is what it is based on.
func (c *Control) ApplyDocument(ctx context.Context, ask Ask, text []byte) (Planned, error) {
	return c.configure(ctx, ask, func(ctx context.Context, manager Configuration) (any, string, error) { return manager.Apply(ctx, text) })
}

// UndoDocument applies the former document again, under the conditions of ApplyDocument.
func (c *Control) UndoDocument(ctx context.Context, ask Ask) (Planned, error) {
	return c.configure(ctx, ask, func(ctx context.Context, manager Configuration) (any, string, error) { return manager.Undo(ctx) })
}

// configure makes one change of the document in force at a time.
func (c *Control) configure(ctx context.Context, ask Ask, change func(context.Context, Configuration) (any, string, error)) (p Planned, err error) {
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
		if err = fault.Run(func() (err error) { p.Plan, p.Text, err = change(ctx, manager); return err }); err != nil {
			return "", err
		}
		c.documents.Add(1)
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
