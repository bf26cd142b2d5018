// Package health holds the vocabulary of a provider's health: the policy by which a registry
// probes it, its states and its reports.
package health

import (
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/capreg/registry/internal/errtree"
	"github.com/capreg/registry/internal/jsonform"
)

// State is the health of a provider according to its probes and to the program. States
// marshal as their names.
//
//	          first success
//	Unknown ─────────────────────▶ Healthy ◀──▶ Degraded
//	   │ failure      ▲                │  fall failures │
//	   ▼              │ success        ▼                ▼
//	Starting ─────────┘            Unhealthy ◀──────────┘
//	   └── fall failures ──────────▶   └── rise successes ──▶ Healthy or Degraded
//
// The score decides between Healthy and Degraded; one failed probe lowers it enough. A
// provider without a probe is healthy until the program marks it otherwise.
type State uint8

// The states. Providers that are Healthy or Degraded can be picked.
const (
	// Unknown is a provider whose first probe has no result yet.
	Unknown State = iota
	// Starting is a provider that has not been healthy yet and may still become so.
	Starting
	// Healthy is a provider that answers.
	Healthy
	// Degraded is a provider with a score below 0.8: it answers, but not as expected, or has
	// failed fewer times in a row than make it unhealthy.
	Degraded
	// Unhealthy is a provider that does not answer, or that the program marked as unhealthy.
	Unhealthy
	// Draining is a provider that has left the registry.
	Draining

	stateCount
)

var stateNames = [stateCount]string{"unknown", "starting", "healthy", "degraded", "unhealthy", "draining"} //nolint:gochecknoglobals // immutable

// String returns the name of the state, such as "degraded".
func (s State) String() string { return jsonform.Text(stateNames[:], s, "state") }

// MarshalText returns the name of the state; the error of a value that is none matches registry.ErrInvalid.
func (s State) MarshalText() ([]byte, error) {
	return jsonform.MarshalName(stateNames[:], s, "state")
}

// UnmarshalText accepts the name of a state. The error of any other text matches registry.ErrInvalid and changes nothing.
func (s *State) UnmarshalText(text []byte) error {
	return jsonform.UnmarshalName(stateNames[:], s, text, "state")
}

// Trend compares how long the latest probes take, and how often they fail, with their history.
// A trend does not eject a provider.
type Trend uint8

// The trends.
const (
	// Steady is as usual, or too early to tell: before 100 probes only failures count.
	Steady Trend = iota
	// Degrading is slower than usual.
	Degrading
	// AtRisk is slower than usual and already takes a noticeable part of the time limit (3 %),
	// or fails often (about a quarter of the last probes).
	AtRisk

	trendCount
)

var trendNames = [trendCount]string{"steady", "degrading", "at risk"} //nolint:gochecknoglobals // immutable

// String returns the name of the trend, such as "at risk".
func (t Trend) String() string { return jsonform.Text(trendNames[:], t, "trend") }

// MarshalText returns the name of the trend; the error of a value that is none matches registry.ErrInvalid.
func (t Trend) MarshalText() ([]byte, error) {
	return jsonform.MarshalName(trendNames[:], t, "trend")
}

// UnmarshalText accepts the name of a trend. The error of any other text matches registry.ErrInvalid and changes nothing.
func (t *Trend) UnmarshalText(text []byte) error {
	return jsonform.UnmarshalName(trendNames[:], t, text, "trend")
}

// Probe checks a provider; nil means healthy. An error made by [Limp] counts as an answer of a
// degraded provider, one made by [Out] as a failure that counts at once. ctx ends at the time limit of the probe, and when the provider leaves. A
// probe may panic. It must heed ctx: one that does not is reported as stuck, and no other probe
// of the provider runs until it returns.
type Probe func(ctx context.Context) error

// Checker is an instance with a health check of its own. A registry probes the instances that
// implement it, unless [Policy] says otherwise.
type Checker interface {
	CheckHealth(ctx context.Context) error
}

// Policy configures the probes of a provider. The zero value of each field is its default; a
// provider without a probe is healthy. Its JSON form leaves out the functions.
type Policy struct {
	// Probe checks the provider. Default: CheckHealth of an instance that is a
	// [Checker]; for one that a factory makes, from when it is made.
	Probe Probe `json:"-"`
	// Capabilities have probes of their own: while one of them fails, the provider does not
	// count as having that capability, and keeps the others.
	Capabilities map[string]Probe `json:"-"`
	// Off turns probing off, also for a [Checker].
	Off bool `json:"off,omitempty"`

	// Interval is the time from the end of a probe to the next one, within ±10 %.
	// Default: 30 s.
	Interval time.Duration `json:"interval,omitempty"`
	// FastInterval replaces Interval while the provider starts, fails, is unhealthy or at risk.
	// Default: a sixth of Interval.
	FastInterval time.Duration `json:"fast_interval,omitempty"`
	// IdleInterval replaces Interval for a healthy provider that got no call since the last
	// probe. Default: twice Interval.
	IdleInterval time.Duration `json:"idle_interval,omitempty"`
	// TrustCalls lets calls replace probes: while a healthy provider has answered some since
	// the last probe and failed none, it is not probed, at most five times in a row.
	TrustCalls bool `json:"trust_calls,omitempty"`
	// Timeout bounds one probe. Default: 5 s.
	Timeout time.Duration `json:"timeout,omitempty"`

	// Fall is the number of failures in a row that make the provider unhealthy. Default: 3.
	Fall int `json:"fall,omitempty"`
	// Rise is the number of successes in a row after which an unhealthy or degraded provider is
	// healthy. Default: 2. The first success of all is enough by itself. For one that falls
	// again within 40 Intervals it doubles each time, up to 64 fold, and a longer time with Rise
	// successes at its end is enough, too: an Interval that doubles, up to 64 of them.
	Rise int `json:"rise,omitempty"`
	// StartTime is the time for which a provider that has not been healthy yet may fail before
	// it is unhealthy. Default: until Fall failures.
	StartTime time.Duration `json:"start_time,omitempty"`
	// Expected is the usual time of an answer of the probe. A provider that takes more than one
	// and a half times as long is degraded. Default: no expectation.
	Expected time.Duration `json:"expected,omitempty"`

	// Groups are the groups that the provider's health counts for, such as [Readiness] and
	// [Liveness] or words of your own. Default: Readiness.
	Groups []string `json:"groups,omitempty"`

	// Recover, when set, runs after the provider has become unhealthy, one run at a time: it
	// may reconnect, restart or replace something. After an error it runs again, with a delay
	// that grows from 1 s to 1 min, until the provider is healthy. A success is followed by a
	// probe. Its context ends after RecoverTimeout, and when the provider leaves. It does not
	// run when the cause is a dependency.
	Recover func(ctx context.Context) error `json:"-"`
	// RecoverLimit bounds the number of runs in a row; the event of the last failure reports that
	// no more will follow. Default: 5.
	RecoverLimit int `json:"recover_limit,omitempty"`
	// RecoverTimeout bounds one run. Default: 30 s.
	RecoverTimeout time.Duration `json:"recover_timeout,omitempty"`
}

// Clone returns a copy that shares no map or list with p.
func (p Policy) Clone() Policy {
	p.Capabilities, p.Groups = maps.Clone(p.Capabilities), slices.Clone(p.Groups)
	return p
}

// MarshalJSON returns the fields by their tags, with durations as text such as "1m30s".
func (p Policy) MarshalJSON() ([]byte, error) { return jsonform.Marshal(p) }

// UnmarshalJSON reads what MarshalJSON writes. Its errors name field, value and bound, match registry.ErrInvalid and change nothing.
func (p *Policy) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, p) }

// Groups that orchestrators know.
const (
	// Readiness is the group of providers without which requests cannot be served.
	Readiness = "readiness"
	// Liveness is the group of providers without which the process should be restarted.
	Liveness = "liveness"
)

// limp is the error of a degraded answer.
type limp struct{ error }

func (l limp) Unwrap() error { return l.error }

// Limp makes an error for a [Probe] that got an answer, but not a good one: the provider is
// degraded for that reason and stays eligible. A nil err stays nil.
func Limp(err error) error {
	if err == nil {
		return nil
	}
	return limp{err}
}

// IsLimp reports whether err was made by [Limp].
func IsLimp(err error) bool {
	var l limp
	return errors.As(errtree.Bound(err), &l)
}

// out is the error of a probe that takes its provider out at once.
type out struct{ error }

func (o out) Unwrap() error { return o.error }

// Out makes an error for a [Probe] that knows that the provider takes no more calls, such as one
// that drains or is going away: it is unhealthy at once, whatever [Policy.Fall]. A nil err stays
// nil.
func Out(err error) error {
	if err == nil {
		return nil
	}
	return out{err}
}

// IsOut reports whether err was made by [Out].
func IsOut(err error) bool {
	var o out
	return errors.As(errtree.Bound(err), &o)
}

// usage is the key of the reporting function in a probe's context.
type usage struct{}

// Use reports that a share of a resource is in use, such as 0.93 of "gpu memory"; values
// outside [0, 1] are clipped. Probes call it with their context. A provider that uses more than
// 0.88 of any resource is degraded. With a context that is not a probe's it does nothing. It
// must not be called after the probe has returned.
func Use(ctx context.Context, resource string, share float64) {
	if ctx == nil {
		return
	}
	if note, ok := ctx.Value(usage{}).(func(string, float64)); ok && !math.IsNaN(share) {
		note(resource, min(max(share, 0), 1))
	}
}

// WithUse returns a context for a probe, in which [Use] calls note. Registries make one for
// each probe; other code needs it to run probes by itself, as in tests.
func WithUse(ctx context.Context, note func(resource string, share float64)) context.Context {
	return context.WithValue(ctx, usage{}, note)
}
