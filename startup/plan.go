package startup

import (
	"errors"
	"fmt"
	"strings"

	"github.com/capreg/registry/internal/oneline"
)

// Plan is what a start would do: the components in the order of their batches.
type Plan struct {
	// Batches are the names of the components, each in the batch after the last of
	// its needs. They are a view: unless asked to, a start does not wait for them.
	Batches [][]string `json:"batches"`
	// Steps are the components in that order.
	Steps []Step `json:"steps"`
}

// Step is one component of a plan.
type Step struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Batch   int    `json:"batch"`
	// After is who it comes after.
	After []Link `json:"after,omitempty"`
	// Absent are optional needs that nobody satisfies.
	Absent []Need `json:"absent,omitempty"`
}

// Link is why one component comes after another.
type Link struct {
	// Name is the other one.
	Name string `json:"name"`
	// Need is the need that it satisfies.
	Need Need `json:"need"`
}

// String returns the batches as text, one a line, with what each component comes
// after.
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

// ErrPlan is what every [PlanError] matches.
var ErrPlan = errors.New("components cannot be started in any order")

// PlanError is all that is wrong with what components need of each other.
type PlanError struct {
	// Missing are needs that nobody satisfies.
	Missing []Missing `json:"missing,omitempty"`
	// Cycles are components that wait for each other: for each knot of them a
	// shortest one. A component that needs itself is a cycle of one.
	Cycles []Cycle `json:"cycles,omitempty"`
	// Duplicates are names that several components have.
	Duplicates []string `json:"duplicates,omitempty"`
}

// Missing is a need that nobody satisfies.
type Missing struct {
	Component string `json:"component"`
	Need      Need   `json:"need"`
	// Nearest are similar names that exist, at most three.
	Nearest []string `json:"nearest,omitempty"`
}

// Cycle is some components of which each needs the next one, and the last the first.
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

// Error names everything that is wrong, in one line.
func (e *PlanError) Error() string {
	var all []string
	for _, name := range e.Duplicates {
		all = append(all, fmt.Sprintf("there are several components %q", name))
	}
	for _, missing := range e.Missing {
		text := fmt.Sprintf("%q needs %v, which nobody provides", missing.Component, missing.Need)
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
