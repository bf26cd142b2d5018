package startup

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/capreg/registry/internal/jsonform"
	"github.com/capreg/registry/internal/oneline"
)

// Report describes a start. Times are from its beginning.
type Report struct {
	// Began is the beginning of the start, and Wall its duration.
	Began time.Time     `json:"began"`
	Wall  time.Duration `json:"wall"`
	// Work is the sum of all durations, and CriticalPath the longest chain of them.
	Work         time.Duration `json:"work"`
	CriticalPath time.Duration `json:"critical_path"`
	// Efficiency is CriticalPath / Wall: 1 when only faster components could have made the
	// start faster.
	Efficiency float64 `json:"efficiency"`
	// Chain are the components of the critical path, in order.
	Chain []string `json:"chain"`
	// Components are in the order of the plan.
	Components []Component `json:"components"`
	// RolledBack reports that the started components were stopped again.
	RolledBack bool `json:"rolled_back,omitempty"`
	// Err is the error of a failed start.
	Err error `json:"error,omitempty"`
}

// Component describes one component in a start.
type Component struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	// Kind names the sort of component, such as "process"; empty for functions.
	Kind string `json:"kind,omitempty"`
	// Detail has the words of the component about its last run, such as the number of its process.
	Detail string `json:"detail,omitempty"`
	State  State  `json:"state"`
	Batch  int    `json:"batch"`
	// Queued is the time at which its needs were ready, Started that of the beginning of its Start, Returned that of its end,
	// and Ready the time at which it was ready. A step that took place at once, or never, is zero.
	Queued   time.Duration `json:"queued"`
	Started  time.Duration `json:"started"`
	Returned time.Duration `json:"returned"`
	Ready    time.Duration `json:"ready"`
	// Probes is the number of readiness probes.
	Probes int `json:"probes,omitempty"`
	// BlockedBy is the need that was ready last.
	BlockedBy string `json:"blocked_by,omitempty"`
	// Absent are optional needs without a provider, or whose providers failed.
	Absent []string `json:"absent,omitempty"`
	// Late reports that its start returned after its time limit, and was undone.
	Late bool `json:"late,omitempty"`
	// Restarts is the number of its restarts.
	Restarts int `json:"restarts,omitempty"`
	// Reason explains its failure or why it was skipped.
	Reason string `json:"reason,omitempty"`
	// Err is the cause.
	Err error `json:"error,omitempty"`
}

// Took returns the time from the start of the component until it was ready.
func (c Component) Took() time.Duration {
	if c.Ready < c.Started {
		return 0
	}
	return c.Ready - c.Started
}

// MarshalJSON returns the fields by their tags, with durations as text such as "1m30s" and Err as its text.
func (r Report) MarshalJSON() ([]byte, error) { return jsonform.Marshal(r) }

// UnmarshalJSON reads what MarshalJSON writes. Its errors name field, value and bound, match registry.ErrInvalid and change nothing.
func (r *Report) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, r) }

// MarshalJSON returns the fields by their tags, with durations as text such as "1m30s" and Err as its text.
func (c Component) MarshalJSON() ([]byte, error) { return jsonform.Marshal(c) }

// UnmarshalJSON reads what MarshalJSON writes. Its errors name field, value and bound, match registry.ErrInvalid and change nothing.
func (c *Component) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, c) }

// deepest bounds the indentation of a chain, whose text would otherwise grow with the square of
// its length.
const deepest = 40

// String returns the critical chain, the longest component last, as `systemd-analyze
// critical-chain` does: the start time of each follows @, its duration follows +. Below it are
// the components that did not become ready.
func (r Report) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%d components in %v, critical path %v, efficiency %.0f %%",
		len(r.Components), round(r.Wall), round(r.CriticalPath), 100*r.Efficiency)
	byName := make(map[string]Component, len(r.Components))
	for _, c := range r.Components {
		byName[c.Name] = c
	}
	for depth, name := range slices.Backward(r.Chain) {
		c := byName[name]
		indent := strings.Repeat("  ", min(len(r.Chain)-1-depth, deepest))
		fmt.Fprintf(&text, "\n%s%s @%v +%v%s", indent, oneline.Of(name), round(c.Started), round(c.Took()), c.remark())
	}
	for _, c := range r.Components {
		if c.State != Ready && c.State != Completed && c.State != Stopped || c.Reason != "" {
			fmt.Fprintf(&text, "\n%s: %v", oneline.Of(c.Name), c.State)
			if c.Reason != "" {
				text.WriteString(": " + oneline.Of(c.Reason))
			}
		}
		if len(c.Absent) > 0 {
			fmt.Fprintf(&text, "\n%s: goes without %s", oneline.Of(c.Name), strings.Join(c.Absent, ", "))
		}
	}
	return text.String()
}

// remark returns what stands behind a component of the chain: its kind, what it says about itself, and that it
// has completed.
func (c Component) remark() string {
	var words []string
	if c.Detail != "" {
		words = append(words, oneline.Of(c.Detail))
	} else if c.Kind != "" {
		words = append(words, oneline.Of(c.Kind))
	}
	if c.State == Completed {
		words = append(words, "completed")
	}
	if len(words) == 0 {
		return ""
	}
	return " (" + strings.Join(words, ", ") + ")"
}

func round(d time.Duration) time.Duration {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(time.Microsecond)
}
