package startup

import (
	"errors"
	"fmt"
	"strings"

	"github.com/capreg/registry/internal/oneline"
)

// Plan lists the components of a start in the order of their batches.
type Plan struct {
	// Batches are the names of the components, each in the batch after the last of its needs.
	// They are a view: by default a start does not wait for whole batches.
	Batches [][]string `json:"batches"`
	// Steps are the components in that order.
	Steps []Step `json:"steps"`
}

// Step is one component of a plan.
type Step struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	// Kind names the sort of component, such as "process"; empty for functions.
	Kind string `json:"kind,omitempty"`
	// Completes reports that it is ready when its work is done.
	Completes bool `json:"completes,omitempty"`
	Batch     int  `json:"batch"`
	// After are the components that it starts after.
	After []Link `json:"after,omitempty"`
	// Absent are optional needs without a provider.
	Absent []Need `json:"absent,omitempty"`
}

// Link connects a component with one that it starts after.
type Link struct {
	// Name is the other one.
	Name string `json:"name"`
	// Need is the need that it satisfies.
	Need Need `json:"need"`
}

// String returns the batches as text, one per line, each component with those it starts after.
func (p Plan) String() string {
	var text strings.Builder
	step := 0
	for number, batch := range p.Batches {
		if number > 0 {
			text.WriteByte('\n')
		}
		fmt.Fprintf(&text, "batch %d:", number+1)
		for i := range batch {
			s := p.Steps[step]
			step++
			if i > 0 {
				text.WriteByte(',')
			}
			text.WriteString(" " + oneline.Of(s.Name))
			for at, link := range s.After {
				text.WriteString([]string{", ", " (after "}[b2i(at == 0)] + oneline.Of(link.Name))
				if at == len(s.After)-1 {
					text.WriteByte(')')
				}
			}
		}
	}
	return text.String()
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// ErrPlan is matched by every [PlanError].
var ErrPlan = errors.New("components cannot be started in any order")

// PlanError lists every fault in the needs of components.
type PlanError struct {
	// Missing are needs without a provider.
	Missing []Missing `json:"missing,omitempty"`
	// Cycles are components that wait for each other: a shortest cycle for each group of them.
	// A component that needs itself is a cycle of one.
	Cycles []Cycle `json:"cycles,omitempty"`
	// Duplicates are names that several components have.
	Duplicates []string `json:"duplicates,omitempty"`
}

// Missing is a need without a provider.
type Missing struct {
	Component string `json:"component"`
	Need      Need   `json:"need"`
	// Nearest are similar names that exist, at most three.
	Nearest []string `json:"nearest,omitempty"`
}

// Cycle is a chain of components of which each needs the next one, and the last the first.
type Cycle []Link

// String returns the cycle with the need on each edge.
func (c Cycle) String() string {
	if len(c) == 0 {
		return ""
	}
	if len(c) == 1 {
		return fmt.Sprintf("%q needs %v of itself", c[0].Name, c[0].Need)
	}
	var text strings.Builder
	for i, link := range c {
		next := c[(i+1)%len(c)].Name
		if i == 0 {
			fmt.Fprintf(&text, "%q", link.Name)
		}
		fmt.Fprintf(&text, " needs %v of %q", link.Need, next)
		if i < len(c)-1 {
			text.WriteString(", which")
		}
	}
	return text.String()
}

// Error returns every fault, in one line.
func (e *PlanError) Error() string {
	var all []string
	for _, name := range e.Duplicates {
		all = append(all, fmt.Sprintf("there are several components %q", name))
	}
	for _, missing := range e.Missing {
		text := fmt.Sprintf("%q needs %v, which no component provides", missing.Component, missing.Need)
		if len(missing.Nearest) > 0 {
			text += ": did you mean " + strings.Join(missing.Nearest, ", ") + "?"
		}
		all = append(all, text)
	}
	for _, cycle := range e.Cycles {
		all = append(all, cycle.String())
	}
	return oneline.Of("startup: " + ErrPlan.Error() + ": " + strings.Join(all, "; "))
}

// Unwrap returns ErrPlan.
func (e *PlanError) Unwrap() error { return ErrPlan }
