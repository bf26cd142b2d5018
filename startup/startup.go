// Package startup holds the vocabulary of an orchestrated start: the needs of components, the
// policies for failures, the plan, the report and the events. The engine is
// registry.Orchestrator.
package startup

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/capreg/registry/internal/jsonform"
)

// Need is a prerequisite of a component: a capability, provided by one or more other
// components, or a component by its name. By default all its providers must be ready, and the
// component stops before they do.
type Need struct {
	// Capability or Component names the prerequisite; exactly one of the two is set.
	Capability string `json:"capability,omitempty"`
	Component  string `json:"component,omitempty"`
	// Any is satisfied by the first provider that is ready, and fails only when all have
	// failed.
	Any bool `json:"any,omitempty"`
	// Optional waits for the existing providers, and goes on without those that fail or do not
	// exist; the report lists them.
	Optional bool `json:"optional,omitempty"`
	// OrderOnly only starts the component after the providers, whether or not they succeed.
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

// String returns the need, such as `"sql" (optional)`.
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

// Policy is the reaction to a component that fails to start.
type Policy uint8

// The policies.
const (
	// Abort ends the start and rolls back the started components. For a component that is not
	// critical it acts as SkipDependants.
	Abort Policy = iota
	// SkipDependants skips the components that need the failed one, and goes on.
	SkipDependants
	// Continue starts the components that need the failed one all the same.
	Continue

	policyCount
)

var policyNames = [policyCount]string{"abort", "skip dependants", "continue"} //nolint:gochecknoglobals // immutable

// String returns the name of the policy, such as "skip dependants".
func (p Policy) String() string { return jsonform.Text(policyNames[:], p, "policy") }

// MarshalText returns the name of the policy; the error of a value that is none matches registry.ErrInvalid.
func (p Policy) MarshalText() ([]byte, error) {
	return jsonform.MarshalName(policyNames[:], p, "policy")
}

// UnmarshalText accepts the name of a policy. The error of any other text matches registry.ErrInvalid and changes nothing.
func (p *Policy) UnmarshalText(text []byte) error {
	return jsonform.UnmarshalName(policyNames[:], p, text, "policy")
}

// RestartMode selects the ends of a component after which it is started again.
type RestartMode uint8

// The modes.
const (
	// Never does not restart: the orchestration has failed when the component was critical and
	// ended with an error.
	Never RestartMode = iota
	// OnFailure restarts it after an error or a panic.
	OnFailure
	// Always restarts it after any end.
	Always

	modeCount
)

var modeNames = [modeCount]string{"never", "on failure", "always"} //nolint:gochecknoglobals // immutable

// String returns the name of the mode, such as "on failure".
func (m RestartMode) String() string { return jsonform.Text(modeNames[:], m, "mode") }

// MarshalText returns the name of the mode; the error of a value that is none matches registry.ErrInvalid.
func (m RestartMode) MarshalText() ([]byte, error) {
	return jsonform.MarshalName(modeNames[:], m, "mode")
}

// UnmarshalText accepts the name of a mode. The error of any other text matches registry.ErrInvalid and changes nothing.
func (m *RestartMode) UnmarshalText(text []byte) error {
	return jsonform.UnmarshalName(modeNames[:], m, text, "mode")
}

// Restart is the restart policy of a component. The zero value never restarts. A first start
// that fails is repeated by the same policy, within the start timeout of the component.
type Restart struct {
	// Mode selects the ends that cause a restart. Default: Never.
	Mode RestartMode `json:"mode,omitempty"`
	// MaxRestarts bounds the restarts: each adds one to a count that halves every Decay, and beyond
	// MaxRestarts the component has failed for good. Default: 5.
	MaxRestarts int `json:"max_restarts,omitempty"`
	// Decay is the half-life of that count. Default: 30 s.
	Decay time.Duration `json:"decay,omitempty"`
	// FirstDelay is the delay before the first restart. It doubles with each further one, until the
	// component was ready for Decay without an end. Default: 100 ms.
	FirstDelay time.Duration `json:"first_delay,omitempty"`
	// MaxDelay bounds the delay. Default: 15 s.
	MaxDelay time.Duration `json:"max_delay,omitempty"`
	// Dependants are stopped before the restart, and started again after it.
	Dependants bool `json:"dependants,omitempty"`
}

// MarshalJSON returns the fields by their tags, with durations as text such as "1m30s".
func (r Restart) MarshalJSON() ([]byte, error) { return jsonform.Marshal(r) }

// UnmarshalJSON reads what MarshalJSON writes. Its errors name field, value and bound, match registry.ErrInvalid and change nothing.
func (r *Restart) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, r) }

// Options configure an orchestration. The zero value of each field is its default. Their JSON form leaves out Listen.
type Options struct {
	// MaxConcurrent bounds the number of components that start at once; those on the longest
	// path come first. Default: no bound.
	MaxConcurrent int `json:"max_concurrent,omitempty"`
	// Batches starts batch by batch, each when the one before is ready. Default: each component
	// as soon as its own needs are ready, which takes no longer than the longest chain.
	Batches bool `json:"batches,omitempty"`
	// OnFailure is the reaction to a component that fails to start. Default: Abort.
	OnFailure Policy `json:"on_failure,omitempty"`
	// StartTimeout bounds the start of each component without a bound of its own, until it is
	// ready. Default: 30 s.
	StartTimeout time.Duration `json:"start_timeout,omitempty"`
	// StopTimeout bounds the stop of each component. Default: 10 s.
	StopTimeout time.Duration `json:"stop_timeout,omitempty"`
	// Last is the report of an earlier start, from whose durations the longest path is
	// computed. Default: every component counts the same.
	Last *Report `json:"last,omitempty"`
	// Listen gets the events in order, from one goroutine and under no lock. Start, Run and Stop
	// return after it has heard of everything, but do not wait for a listener that takes ten
	// seconds for one event, such as one that calls Stop itself. One that falls behind by 65,536
	// events loses the oldest; [Event.Lost] counts them. See [Progress]. Default: none.
	Listen func(Event) `json:"-"`
}

// MarshalJSON returns the fields by their tags, with durations as text such as "1m30s".
func (o Options) MarshalJSON() ([]byte, error) { return jsonform.Marshal(o) }

// UnmarshalJSON reads what MarshalJSON writes. Its errors name field, value and bound, match registry.ErrInvalid and change nothing.
func (o *Options) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, o) }

// State is the progress of a component.
type State uint8

// The states of a component.
const (
	// Waiting is before the start: for its needs, or for its turn.
	Waiting State = iota
	// Starting is while Start runs, and until the component is ready.
	Starting
	// Ready is running.
	Ready
	// Completed is ready in the sense of those that need it: its work is done, and nothing of it runs any more.
	Completed
	// Failed is a failed start, or an end by itself with an error and without another restart.
	Failed
	// Skipped is not started, because of a failed need or because the start was aborted.
	Skipped
	// Restarting is between an end and the next start.
	Restarting
	// Stopping is while Stop runs.
	Stopping
	// Stopped is after a regular stop, or an end by itself without an error.
	Stopped
	// Stuck is a start or a stop that has not returned although its time is over.
	Stuck

	stateCount
)

var stateNames = [stateCount]string{ //nolint:gochecknoglobals // immutable
	"waiting", "starting", "ready", "completed", "failed", "skipped", "restarting", "stopping", "stopped", "stuck",
}

// String returns the name of the state, such as "ready".
func (s State) String() string { return jsonform.Text(stateNames[:], s, "state") }

// MarshalText returns the name of the state; the error of a value that is none matches registry.ErrInvalid.
func (s State) MarshalText() ([]byte, error) {
	return jsonform.MarshalName(stateNames[:], s, "state")
}

// UnmarshalText accepts the name of a state. The error of any other text matches registry.ErrInvalid and changes nothing.
func (s *State) UnmarshalText(text []byte) error {
	return jsonform.UnmarshalName(stateNames[:], s, text, "state")
}

// Event is one change of one component. The last event of a start, and of a stop, has no
// component.
type Event struct {
	// Time is the moment of the change.
	Time time.Time `json:"time"`
	// Component is the name of the component, and State its new state.
	Component string `json:"component,omitempty"`
	State     State  `json:"state"`
	// Took is the time that the component was starting or stopping.
	Took time.Duration `json:"took,omitempty"`
	// Settled and Total count the components whose start is decided, and all.
	Settled int `json:"settled"`
	Total   int `json:"total"`
	// Reason explains a failure or why the component was skipped.
	Reason string `json:"reason,omitempty"`
	// Lost counts the events that were dropped just before this one.
	Lost uint64 `json:"lost,omitempty"`
}

// MarshalJSON returns the fields by their tags, with durations as text such as "1m30s".
func (e Event) MarshalJSON() ([]byte, error) { return jsonform.Marshal(e) }

// UnmarshalJSON reads what MarshalJSON writes. Its errors name field, value and bound, match registry.ErrInvalid and change nothing.
func (e *Event) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, e) }

// Supervisor receives the reports of a [Run]. Orchestrators implement it.
type Supervisor interface {
	// RunContext returns the context of the component's life.
	RunContext() context.Context
	// ComponentReady is called when the component reports that it is ready.
	ComponentReady()
	// ComponentEnded is called when the component has ended by itself.
	ComponentEnded(err error)
	// ComponentGo runs f in a goroutine of the component.
	ComponentGo(f func(context.Context) error)
	// ComponentDetail is called with what the report is to say about the run.
	ComponentDetail(text string)
}

// Run is the handle that a component gets at its start, for as long as it runs. Its methods are
// safe for concurrent use.
type Run struct {
	supervisor Supervisor
	ended      uint32 //nolint:modernize // no atomic.Bool: orchestrators copy a new Run into a struct of theirs
}

// NewRun returns a Run that reports to the supervisor; for orchestrators, and for tests of
// components.
func NewRun(s Supervisor) *Run { return &Run{supervisor: s} }

// Context returns the context of the component's life: it ends when the component is stopped.
// The context of Start ends with the start instead.
func (r *Run) Context() context.Context { return r.supervisor.RunContext() }

// Ready reports that the component is ready, for components that announce it. It may be called
// before Start returns and more than once.
func (r *Run) Ready() { r.supervisor.ComponentReady() }

// Go runs f for as long as the component lives, in a goroutine that the stop waits for. When f
// returns earlier, the component has ended, with its error, and its restart policy applies; a
// panic counts as an error.
func (r *Run) Go(f func(ctx context.Context) error) { r.supervisor.ComponentGo(f) }

// Detail sets what the report and its pictures say about this run, such as "process 4711": one line, cut to
// 256 bytes. A later call replaces it; those of an earlier run count for nothing.
func (r *Run) Detail(text string) { r.supervisor.ComponentDetail(text) }

// Ended reports that the component has ended by itself, with an error or nil. Only the first
// report counts.
func (r *Run) Ended(err error) {
	if atomic.CompareAndSwapUint32(&r.ended, 0, 1) {
		r.supervisor.ComponentEnded(err)
	}
}

// Definition describes a service as documents do. Its names map onto a component: see the
// method From of registry.Component. Endpoints are its addresses by their purpose, such as
// "primary", "health" and "metrics".
type Definition struct {
	Name             string            `json:"name"`
	Version          string            `json:"version,omitempty"`
	Description      string            `json:"description,omitempty"`
	Endpoints        map[string]string `json:"endpoints,omitempty"`
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

// MarshalJSON returns the fields by their tags, with durations as text such as "1m30s".
func (d Definition) MarshalJSON() ([]byte, error) { return jsonform.Marshal(d) }

// UnmarshalJSON reads what MarshalJSON writes. Its errors name field, value and bound, match registry.ErrInvalid and change nothing.
func (d *Definition) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, d) }
