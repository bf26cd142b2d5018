package config

import (
	"fmt"
	"slices"
	"strings"
)

// Action is a way to change one thing.
type Action string

// The actions of a plan.
const (
	// Add registers a provider.
	Add Action = "add"
	// Alter changes settings in place: nothing is drained, and all state is kept.
	Alter Action = "alter"
	// Replace makes a new instance, which takes the place of the old one when it has proven itself.
	Replace Action = "replace"
	// Remove removes a provider; its calls in flight are drained.
	Remove Action = "remove"
	// Keep leaves a provider as it is.
	Keep Action = "keep"
)

// Field is a change of one field. Texts from references are shown as they were written, and secrets as "[secret]".
type Field struct {
	// Name is the field of the document, such as "breaker.failure_threshold".
	Name string `json:"name"`
	// From and To are the values as text; empty: the default.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}

// String returns the change in words.
func (f Field) String() string {
	return fmt.Sprintf("%s %s → %s", f.Name, orDefault(f.From), orDefault(f.To))
}

func orDefault(text string) string {
	if text == "" {
		return "(default)"
	}
	return text
}

// Change is the change of one provider, group, domain or selection policy.
type Change struct {
	// Path is the place in the document, such as "services.llm.providers[primary]".
	Path   string `json:"path"`
	Action Action `json:"action"`
	// Service and Provider are set for a provider.
	Service  string `json:"service,omitempty"`
	Provider string `json:"provider,omitempty"`
	// Fields are those that change; none for Add, Remove and Keep.
	Fields []Field `json:"fields,omitempty"`
	// Why names the fields of a Replace that cannot change in place.
	Why string `json:"why,omitempty"`
	// Keeps names the state that is kept.
	Keeps string `json:"keeps,omitempty"`
}

// String returns the change in one line.
func (c Change) String() string {
	marks := map[Action]string{Add: "+", Alter: "~", Replace: "±", Remove: "-", Keep: " "}
	line := marks[c.Action] + " " + c.Path + ": " + string(c.Action)
	if len(c.Fields) > 0 {
		fields := make([]string, len(c.Fields))
		for i, f := range c.Fields {
			fields[i] = f.String()
		}
		line += " " + strings.Join(fields, ", ")
	}
	if c.Why != "" {
		line += "; not in place: " + c.Why
	}
	if c.Keeps != "" && c.Action != Keep {
		line += "; keeps " + c.Keeps
	}
	return line
}

// Pick tells which providers a query of the document is given to, before and after. Where a strategy takes turns these
// are all that take part, else it is one. The plan takes those that are new to be healthy.
type Pick struct {
	Query  string   `json:"query"`
	Before []string `json:"before"`
	After  []string `json:"after"`
}

// String returns the pick in one line.
func (p Pick) String() string {
	if slices.Equal(p.Before, p.After) {
		return p.Query + ": " + orNone(p.After)
	}
	return p.Query + ": " + orNone(p.Before) + " → " + orNone(p.After)
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "(none)"
	}
	return strings.Join(names, ", ")
}

// Plan lists all that a document would change, or has changed. It holds no secret that came from a reference.
type Plan struct {
	// Changes has an entry for each provider, kept ones included, and for each group, domain and selection policy
	// that changes.
	Changes []Change `json:"changes"`
	// Picks has an entry for each query of the document.
	Picks []Pick `json:"picks,omitempty"`
	// Warnings name what is allowed and perhaps not meant.
	Warnings []string `json:"warnings,omitempty"`
}

// Empty reports whether the plan changes nothing.
func (p *Plan) Empty() bool {
	return !slices.ContainsFunc(p.Changes, func(c Change) bool { return c.Action != Keep })
}

// Count returns the number of changes of that action.
func (p *Plan) Count(action Action) (count int) {
	for _, c := range p.Changes {
		if c.Action == action {
			count++
		}
	}
	return count
}

// String returns the plan in lines: the changes, a summary, the picks and the warnings.
func (p *Plan) String() string {
	var b strings.Builder
	for _, c := range p.Changes {
		if c.Action != Keep {
			fmt.Fprintln(&b, c)
		}
	}
	fmt.Fprintf(&b, "%d to add, %d to alter, %d to replace, %d to remove, %d kept\n",
		p.Count(Add), p.Count(Alter), p.Count(Replace), p.Count(Remove), p.Count(Keep))
	for _, pick := range p.Picks {
		fmt.Fprintln(&b, "picked for", pick)
	}
	for _, warning := range p.Warnings {
		fmt.Fprintln(&b, "warning:", warning)
	}
	return b.String()
}
