// Package configured lets the control API show, check and apply documents of package config:
//
//	manager, err := config.New(reg, options)
//	...
//	handler, err := admin.New(reg, admin.Options{Configuration: configured.By(manager, options), …})
//
// Who may configure may have settings filled from every file and environment variable that the program can read, and have
// them sent to every address: give that right to those alone who may read these.
package configured

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin"
	"github.com/capreg/registry/config"
)

// By returns a manager's documents for [admin.Options]. The options are those that the manager was made with.
//
// Documents that are sent cannot include files. A source that the manager follows overrides what was applied here with
// its next version. It is safe for concurrent use.
func By(manager *config.Manager, options config.Options) admin.Configuration {
	return &configuration{manager: manager, options: options}
}

type configuration struct {
	manager *config.Manager
	options config.Options

	mu      sync.Mutex       // guards what follows; nothing waits under it
	applied *config.Document // the one that was applied here last; nil: none was
	former  *config.Document // the one that was in force before it; nil: none was
}

// documentName stands for a document that was sent, in problems.
const documentName = "document"

// Current returns the document that was applied last: references as they were written, and other settings whose names
// speak of secrets hidden.
func (c *configuration) Current() ([]byte, error) {
	d := c.manager.Current()
	if d == nil {
		return nil, nil
	}
	text, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, err
	}
	hideIn(value, false)
	return json.Marshal(value)
}

// hidden stands for a secret that is not shown.
const hidden = "[secret]"

// hideIn hides the secrets in the settings of providers, in place.
func hideIn(value any, inSettings bool) {
	switch value := value.(type) {
	case []any:
		for _, one := range value {
			hideIn(one, inSettings)
		}
	case map[string]any:
		for name, one := range value {
			text, is := one.(string)
			if inSettings && is && isSecret(name) && !strings.HasPrefix(text, "${") {
				value[name] = hidden
				continue
			}
			hideIn(one, inSettings || name == "settings")
		}
	}
}

// isSecret reports whether a setting of that name may hold a secret.
func isSecret(name string) bool {
	name = strings.ToLower(name)
	for _, word := range []string{"key", "token", "secret", "password", "passwd", "credential", "authorization", "dsn"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}

// Check returns what is wrong with a document.
func (c *configuration) Check(text []byte) []admin.DocumentProblem {
	d, err := parse(text)
	if err == nil {
		err = refusal(config.Check(d, c.options))
	}
	var refused *admin.ProblemsError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return refused.Problems
	}
	return []admin.DocumentProblem{{File: documentName, Text: err.Error()}}
}

// parse reads a document that was sent. One that has the word for a secret that is not shown is refused: it was read here, and
// would replace the secret by that word.
func parse(text []byte) (*config.Document, error) {
	d, err := config.Parse(documentName, text)
	if err != nil {
		return nil, refusal(err)
	}
	var problems []admin.DocumentProblem
	for _, service := range slices.Sorted(maps.Keys(d.Services)) {
		for _, p := range d.Services[service].Providers {
			var settings any
			text, err := json.Marshal(p.Settings)
			if err == nil {
				err = json.Unmarshal(text, &settings)
			}
			if err != nil {
				continue // the check of the document says it
			}
			problems = hiddenIn(problems, fmt.Sprintf("services.%s.providers[%s].settings", service, p.Name), settings)
		}
	}
	if problems != nil {
		return nil, &admin.ProblemsError{Problems: problems}
	}
	return d, nil
}

// hiddenIn adds a problem for each secret that is not shown.
func hiddenIn(problems []admin.DocumentProblem, path string, value any) []admin.DocumentProblem {
	switch value := value.(type) {
	case []any:
		for i, one := range value {
			problems = hiddenIn(problems, fmt.Sprintf("%s[%d]", path, i), one)
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(value)) {
			problems = hiddenIn(problems, path+"."+name, value[name])
		}
	case string:
		if value == hidden {
			problems = append(problems, admin.DocumentProblem{
				File: documentName, Path: path, Text: "the secret is not shown here: write it, or better a reference such as ${env:NAME}",
			})
		}
	}
	return problems
}

// Plan returns what a document would change.
func (c *configuration) Plan(ctx context.Context, text []byte) (any, string, error) {
	d, err := parse(text)
	if err != nil {
		return nil, "", err
	}
	return result(c.manager.Plan(ctx, d))
}

// Apply applies a document.
func (c *configuration) Apply(ctx context.Context, text []byte) (any, string, error) {
	d, err := parse(text)
	if err != nil {
		return nil, "", err
	}
	return result(c.replace(ctx, d))
}

// PlanUndo returns what Undo would change.
func (c *configuration) PlanUndo(ctx context.Context) (any, string, error) {
	d, err := c.before()
	if err != nil {
		return nil, "", err
	}
	return result(c.manager.Plan(ctx, d))
}

// Undo applies the document that was in force before the last one that was applied here.
func (c *configuration) Undo(ctx context.Context) (any, string, error) {
	d, err := c.before()
	if err != nil {
		return nil, "", err
	}
	return result(c.replace(ctx, d))
}

// replace applies a document, and remembers the one before it.
func (c *configuration) replace(ctx context.Context, d *config.Document) (*config.Plan, error) {
	former := c.manager.Current()
	plan, err := c.manager.Apply(ctx, d)
	if err != nil {
		return nil, err
	}
	applied := c.manager.Current()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.former, c.applied = former, applied
	return plan, nil
}

// before returns the document that was in force before the last one that was applied here.
func (c *configuration) before() (*config.Document, error) {
	current := c.manager.Current()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.applied == nil:
		return nil, fmt.Errorf("no document was applied here so far: %w", registry.ErrState)
	case current != c.applied:
		return nil, fmt.Errorf("another document was applied since by the program: %w", registry.ErrState)
	case c.former == nil:
		return nil, fmt.Errorf("no document was in force before the first: %w", registry.ErrState)
	}
	return c.former, nil
}

// result returns what was planned, with its words.
func result(plan *config.Plan, err error) (any, string, error) {
	if err != nil {
		return nil, "", refusal(err)
	}
	return plan, plan.String(), nil
}

// Schema returns the JSON Schema of documents with the manager's kinds.
func (c *configuration) Schema() ([]byte, error) { return config.Schema(c.options.Kinds...) }

// refusal returns the error of a document that is refused in the words of package admin; others as they are.
func refusal(err error) error {
	var refused *config.Error
	if !errors.As(err, &refused) {
		return err
	}
	all := make([]admin.DocumentProblem, len(refused.Problems))
	for i, p := range refused.Problems {
		all[i] = admin.DocumentProblem{File: p.File, Line: p.Line, Column: p.Column, Path: p.Path, Text: p.Text, Nearest: p.Nearest}
	}
	return &admin.ProblemsError{Problems: all}
}
