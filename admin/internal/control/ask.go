package control

import (
	"context"
	"fmt"
	"slices"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/selection"
)

// Selection explains a concrete look-up, with the numbers of its service so far.
type Selection struct {
	Explanation registry.Explanation `json:"explanation"`
	Analytics   selection.Analytics  `json:"analytics"`
	// Text is the explanation as a table.
	Text string `json:"text"`
}

// Explain tells which provider a call of the service would be given to now, and why not the others. A caller is the one
// that rates are counted for; empty: the handler.
func (c *Control) Explain(ctx context.Context, service string, q registry.Query, caller string) (s Selection, err error) {
	analytics, known := c.registry.Analytics(service)
	if !known {
		return s, &Error{Kind: NotFound, Text: fmt.Sprintf("there is no service %q", oneline.Short(service, longestName))}
	}
	var options []registry.CallOption
	if caller != "" {
		options = append(options, registry.Caller(caller))
	}
	s.Analytics, s.Explanation = analytics, c.registry.Explain(ctx, service, q, options...)
	if s.Explanation.Err != nil && len(s.Explanation.Candidates) == 0 {
		if refusal := refusalOf(s.Explanation.Err); refusal.Kind == Invalid || refusal.Kind == Closed {
			return s, refusal
		}
	}
	if s.Explanation.Candidates == nil {
		s.Explanation.Candidates = []registry.Candidate{}
	}
	s.Text = s.Explanation.String()
	return s, nil
}

// WhatIf is the answer to a look-up now, and to the same one with some providers taken away.
type WhatIf struct {
	Now     registry.Explanation `json:"now"`
	Without registry.Explanation `json:"without"`
	// Changed reports that another provider would be picked, or none any more.
	Changed bool `json:"changed"`
	// Message says so in words.
	Message string `json:"message"`
}

// WhatIf explains a look-up now and without the named providers. It changes nothing.
func (c *Control) WhatIf(ctx context.Context, service string, q registry.Query, caller string, without []string) (w WhatIf, err error) {
	now, err := c.Explain(ctx, service, q, caller)
	if err != nil {
		return w, err
	}
	q.Where = q.Where.Clone()
	q.Where.Exclude = slices.Concat(q.Where.Exclude, without)
	then, err := c.Explain(ctx, service, q, caller)
	if err != nil {
		return w, err
	}
	w = WhatIf{Now: now.Explanation, Without: then.Explanation, Changed: now.Explanation.Winner != then.Explanation.Winner}
	switch {
	case w.Without.Winner == "":
		w.Message = "no provider would be picked"
	case w.Changed:
		w.Message = fmt.Sprintf("%s would be picked instead of %s", w.Without.Winner, nameOr(w.Now.Winner))
	default:
		w.Message = w.Now.Winner + " would be picked as now"
	}
	return w, nil
}

func nameOr(name string) string {
	if name == "" {
		return "none"
	}
	return name
}

// Decisions returns the latest picks of a service, newest first, at most limit; an empty service stands for all.
func (c *Control) Decisions(service string, limit int) []selection.Decision {
	all := c.registry.Decisions()
	found := make([]selection.Decision, 0, min(limit, len(all)))
	for i := len(all) - 1; i >= 0 && len(found) < limit; i-- {
		if service == "" || all[i].Service == service {
			found = append(found, all[i])
		}
	}
	return found
}
