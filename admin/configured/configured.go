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
	"strings"

	"github.com/capreg/registry/admin"
	"github.com/capreg/registry/config"
)

// By returns a manager's documents for [admin.Options]. The options are those that the manager was made with.
//
// Documents that are sent cannot include files. A source that the manager follows overrides what was applied here with
// its next version. It is safe for concurrent use.
func By(manager *config.Manager, options config.Options) admin.Configuration {
	return configuration{manager, options}
}

type configuration struct {
	manager *config.Manager
	options config.Options
}

// documentName stands for a document that was sent, in problems.
const documentName = "document"

// Current returns the document that was applied last: references as they were written, and other settings whose names
// speak of secrets hidden.
func (c configuration) Current() ([]byte, error) {
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
				value[name] = "[secret]"
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
func (c configuration) Check(text []byte) []admin.DocumentProblem {
	d, err := config.Parse(documentName, text)
	if err == nil {
		err = config.Check(d, c.options)
	}
	var refused *admin.ProblemsError
	switch err = refusal(err); {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return refused.Problems
	}
	return []admin.DocumentProblem{{File: documentName, Text: err.Error()}}
}

// Plan returns what a document would change.
func (c configuration) Plan(ctx context.Context, text []byte) (any, string, error) {
	return c.with(text, func(d *config.Document) (*config.Plan, error) { return c.manager.Plan(ctx, d) })
}

// Apply applies a document.
func (c configuration) Apply(ctx context.Context, text []byte) (any, string, error) {
	return c.with(text, func(d *config.Document) (*config.Plan, error) { return c.manager.Apply(ctx, d) })
}

func (configuration) with(text []byte, do func(*config.Document) (*config.Plan, error)) (any, string, error) {
	d, err := config.Parse(documentName, text)
	if err != nil {
		return nil, "", refusal(err)
	}
	plan, err := do(d)
	if err != nil {
		return nil, "", refusal(err)
	}
	return plan, plan.String(), nil
}

// Schema returns the JSON Schema of documents with the manager's kinds.
func (c configuration) Schema() ([]byte, error) { return config.Schema(c.options.Kinds...) }

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
