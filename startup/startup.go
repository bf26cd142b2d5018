// Package startup holds the words of an orchestrated start: what components need,
// what is done when one fails, the plan, the report and the events. What acts on
// them is registry.Orchestrator.
package startup

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// Need is something that has to be there before a component starts: a capability,
// provided by one or more other components, or a component by its name. The zero
// value of the other fields is the ordinary need: all providers must be ready, and
// the component stops before they do.
type Need struct {
	// Capability is what is needed, or Component who; one of the two.
	Capability string `json:"capability,omitempty"`
	Component  string `json:"component,omitempty"`
	// Any is satisfied by the first provider that is ready, and fails only when
	// all have failed.
	Any bool `json:"any,omitempty"`
	// Optional waits for the providers that there are, and goes on without those
	// that fail or do not exist; the report says so.
	Optional bool `json:"optional,omitempty"`
	// OrderOnly only comes after them, whatever becomes of them.
	OrderOnly bool `json:"order_only,omitempty"`
}

// Capabilities returns a need for each of the capabilities.
func Capabilities(capabilities ...string) []Need {
	needs := make([]Need, len(capabilities))
	for i, capability := range capabilities {
		needs[i] = Need{Capability: capability}
	}
	return needs
}

// String returns what is needed, such as `"sql" (optional)`.
func (n Need) String() string {
	words := []string{fmt.Sprintf("%q", n.Capability)}
	if n.Component != "" {
		words[0] = fmt.Sprintf("component %q", n.Component)
	}
	for _, kind := range []struct {
		is   bool
		word string
	}{{n.Any, "(any)"}, {n.Optional, "(optional)"}, {n.OrderOnly, "(order only)"}} {
		if kind.is {
			words = append(words, kind.word)
		}
	}
	return strings.Join(words, " ")
}

// Policy says what is done when a component fails to start.
type Policy uint8

// The policies.
const (
	// Abort ends the start and rolls back what was started, unless the component
	// is not critical: then it is as with SkipDependants.
	Abort Policy = iota
	// SkipDependants leaves out what needs the component, and goes on.
	SkipDependants
	// Continue starts what needs the component all the same.
	Continue
)

// RestartMode says when a component that ended by itself is started again.
type RestartMode uint8

// The modes.
const (
	// Never leaves it: the orchestration has failed when it was critical and ended
	// with an error.
	Never RestartMode = iota
	// OnFailure starts it again after an error or a panic.
	OnFailure
	// Always starts it again however it ended.
	Always
)

// Restart is the restart policy of a component. The zero value never restarts.
type Restart struct {
	// Mode says after what. Default: Never.
	Mode RestartMode
	// Limit is how many restarts are borne: each adds one to a count that halves
	// every Decay, and beyond Limit the component is given up. Default: 5.
	Limit int
	// Decay is that time. Default: 30 s.
	Decay time.Duration
	// FirstDelay is the delay before the first restart, MaxDelay the longest; in
	// between it doubles. Default: 100 ms and 15 s.
	FirstDelay, MaxDelay time.Duration
	// Dependants are stopped before, and started again after it.
	Dependants bool
}

// Options are the settings of an orchestration. The zero value is the default of
// each.
type Options struct {
	// MaxConcurrent bounds how many start at once; those on the longest path come
	// first. Default: any number.
	MaxConcurrent int
	// Batches starts batch by batch, each when the one before is ready. Default:
	// each component as soon as its own needs are ready, which takes no longer than
	// the longest chain.
	Batches bool
	// OnFailure is what happens when a component fails to start. Default: Abort.
	OnFailure Policy
	// StartTimeout bounds the start of each component that has no own bound, until
	// it is ready. Default: 30 s.
	StartTimeout time.Duration
	// StopTimeout bounds the stop of each. Default: 10 s.
	StopTimeout time.Duration
	// Last is the report of an earlier start, whose durations tell which path is
	// the longest. Default: every component counts the same.
	Last *Report
	// Listen gets the events in order, from one goroutine and under no lock; one
	// that falls behind loses the oldest and is told how many. See [Progress].
	Listen func(Event)
}

// State is how far a component is.
type State uint8

// The states of a component.
const (
	// Waiting is for its needs, or for its turn.
	Waiting State = iota
	// Starting is while Start runs, and until it is ready.
	Starting
	// Ready is up.
	Ready
	// Failed is not started, or ended by itself and given up.
	Failed
	// Skipped is not started because of what it needs, or because the start was
	// aborted.
	Skipped
	// Restarting is between its end and its next start.
	Restarting
	// Stopping is while Stop runs.
	Stopping
	// Stopped is down, as it should be.
	Stopped
	// Stuck is a start or a stop that does not return although its time is over.
	Stuck

	stateCount
)

var stateNames = [stateCount]string{ //nolint:gochecknoglobals // immutable
	"waiting", "starting", "ready", "failed", "skipped", "restarting", "stopping", "stopped", "stuck",
}

// String returns the name of the state.
func (s State) String() string {
	if s < stateCount {
		return stateNames[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// MarshalText returns the name of the state.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText accepts the name of a state.
func (s *State) UnmarshalText(text []byte) error {
	for i, name := range stateNames {
		if name == string(text) {
			*s = State(i)
			return nil
		}
	}
	return fmt.Errorf("startup: unknown state %q", text)
}

// Event is one change of one component. The last one of a start, and of a stop, is
// of no component.
type Event struct {
	// Time is when it happened.
	Time time.Time `json:"time"`
	// Component is whose state it is, and State what it is now.
	Component string `json:"component,omitempty"`
	State     State  `json:"state"`
	// Took is how long the component was starting or stopping.
	Took time.Duration `json:"took,omitempty"`
	// Settled and Total count the components whose start is decided.
	Settled int `json:"settled"`
	Total   int `json:"total"`
	// Reason says why it failed or was skipped.
	Reason string `json:"reason,omitempty"`
	// Lost counts the events that were dropped just before this one.
	Lost uint64 `json:"lost,omitempty"`
}

// Supervisor is what a [Run] tells: an orchestrator.
type Supervisor interface {
	// RunContext returns the context of the component's life.
	RunContext() context.Context
	// ComponentReady is called when the component says that it is ready.
	ComponentReady()
	// ComponentEnded is called when the component has ended by itself.
	ComponentEnded(err error)
	// ComponentGo runs f in a goroutine of the component's.
	ComponentGo(f func(context.Context) error)
}

// Run is what a component is given at its start, for as long as it runs. Its
// methods are safe for concurrent use.
type Run struct {
	supervisor Supervisor
	ended      atomic.Bool
}

// NewRun returns a Run that tells the supervisor; for orchestrators, and for tests
// of components.
func NewRun(s Supervisor) *Run { return &Run{supervisor: s} }

// Context returns the context of the component's life: it ends when the component
// is stopped. The context that Start is given ends with the start instead.
func (r *Run) Context() context.Context { return r.supervisor.RunContext() }

// Ready says that the component is ready, where it has said that it would. It may
// be called before Start returns and more than once.
func (r *Run) Ready() { r.supervisor.ComponentReady() }

// Go runs f for as long as the component lives, in a goroutine that is waited for
// when it stops. When f returns before, the component has ended, with its error, and
// its restart policy decides what follows; a panic is an error.
func (r *Run) Go(f func(ctx context.Context) error) { r.supervisor.ComponentGo(f) }

// Ended says that the component has ended by itself, with that error or without
// one. Only the first such report counts.
func (r *Run) Ended(err error) {
	if r.ended.CompareAndSwap(false, true) {
		r.supervisor.ComponentEnded(err)
	}
}

// Definition is a service as documents describe it. Its names map onto a
// component: see the method From of registry.Component.
type Definition struct {
	Name             string            `json:"name"`
	Version          string            `json:"version,omitempty"`
	Description      string            `json:"description,omitempty"`
	Endpoints        []string          `json:"endpoints,omitempty"`
	Capabilities     []string          `json:"capabilities,omitempty"`
	Requires         []string          `json:"required_capabilities,omitempty"`
	ExpectedResponse time.Duration     `json:"expected_response_time,omitempty"`
	Concurrency      int               `json:"concurrency,omitempty"`
	Instances        int               `json:"instances,omitempty"`
	Resources        map[string]string `json:"resources,omitempty"`
	Tags             []string          `json:"tags,omitempty"`
	Team             string            `json:"team,omitempty"`
	Documentation    string            `json:"documentation,omitempty"`
}
