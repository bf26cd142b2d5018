// Package health holds the words of a provider's health: the policy by which a
// registry probes it, the states it can be in, and what is told of it.
package health

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// State is how a provider is, as far as its probes and the program say. States
// marshal as their names.
//
//	          first success
//	Unknown ─────────────────────▶ Healthy ◀──▶ Degraded
//	   │ failure      ▲                │  fall failures │
//	   ▼              │ success        ▼                ▼
//	Starting ─────────┘            Unhealthy ◀──────────┘
//	   └── fall failures ──────────▶   └── rise successes ──▶ Healthy or Degraded
//
// Between Healthy and Degraded decides the score, which one failed probe lowers
// enough. A provider without a probe is healthy until the program says otherwise.
type State uint8

// The states. Providers that are Healthy or Degraded can be picked.
const (
	// Unknown is a provider whose first probe has no result yet.
	Unknown State = iota
	// Starting is one that has not been healthy yet and may still become so.
	Starting
	// Healthy is one that answers.
	Healthy
	// Degraded is one with a score below 0.8: it answers, but not as it should, or
	// has failed fewer times in a row than make it unhealthy.
	Degraded
	// Unhealthy is one that does not answer, or that the program says is unwell.
	Unhealthy
	// Draining is one that has left the registry.
	Draining

	stateCount
)

var stateNames = [stateCount]string{"unknown", "starting", "healthy", "degraded", "unhealthy", "draining"} //nolint:gochecknoglobals // immutable

// String returns the name of the state, such as "degraded".
func (s State) String() string { return nameOf(stateNames[:], s, "state") }

// MarshalText returns the name of the state.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText accepts the name of a state.
func (s *State) UnmarshalText(text []byte) error { return unmarshal(s, stateNames[:], text, "state") }

// Trend is where a provider seems to go: what its probes take and how often they
// fail, compared with what it used to be. It ejects nobody.
type Trend uint8

// The trends.
const (
	// Steady is as usual, or too early to tell: before 100 probes only failures count.
	Steady Trend = iota
	// Degrading is slower than it used to be.
	Degrading
	// AtRisk is slower than it used to be and already takes a noticeable part of
	// its time limit (3 %), or fails often (a quarter of the last probes or so).
	AtRisk

	trendCount
)

var trendNames = [trendCount]string{"steady", "degrading", "at risk"} //nolint:gochecknoglobals // immutable

// String returns the name of the trend, such as "at risk".
func (t Trend) String() string { return nameOf(trendNames[:], t, "trend") }

// MarshalText returns the name of the trend.
func (t Trend) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText accepts the name of a trend.
func (t *Trend) UnmarshalText(text []byte) error { return unmarshal(t, trendNames[:], text, "trend") }

func nameOf[T ~uint8](names []string, value T, what string) string {
	if int(value) < len(names) {
		return names[value]
	}
	return fmt.Sprintf("%s(%d)", what, value)
}

func unmarshal[T ~uint8](into *T, names []string, text []byte, what string) error {
	for i, name := range names {
		if name == string(text) {
			*into = T(i)
			return nil
		}
	}
	return fmt.Errorf("health: unknown %s %q", what, text)
}

// Probe checks something: nil is well. An error made by [Limp] is an answer, too,
// but a degraded one. ctx ends at the time limit of the probe, and when the
// provider leaves. A probe may panic; it must heed ctx, else it is told to be
// stuck, and no other probe takes its place until it returns.
type Probe func(ctx context.Context) error

// Checker is an instance that can be asked how it is. A registry probes the
// instances that implement it, unless [Policy] says otherwise.
type Checker interface {
	CheckHealth(ctx context.Context) error
}

// Policy says how a provider is probed. The zero value of each field is its
// default; without a probe nothing is done and the provider is healthy.
type Policy struct {
	// Probe checks the provider. Default: CheckHealth of an instance that is a
	// [Checker]; for one that a factory makes, from when it is made.
	Probe Probe
	// Capabilities have probes of their own: while one of them fails, the provider
	// does not count as having that capability, and goes on with the others.
	Capabilities map[string]Probe
	// Off turns probing off, of a Checker as well.
	Off bool

	// Interval is the time from the end of a probe to the next one, within ±10 %.
	// Default: 30 s.
	Interval time.Duration
	// FastInterval is the time while it starts, fails, is unhealthy or at risk.
	// Default: a sixth of Interval.
	FastInterval time.Duration
	// IdleInterval is the time for a healthy provider that was given no call since
	// the last probe. Default: twice Interval.
	IdleInterval time.Duration
	// TrustCalls lets calls stand in for probes: while a healthy provider has
	// answered some since the last probe, and failed none, it is not probed, five
	// times in a row at most.
	TrustCalls bool
	// Timeout bounds one probe. Default: 5 s.
	Timeout time.Duration

	// Fall is how many failures in a row make the provider unhealthy. Default: 3.
	Fall int
	// Rise is how many successes in a row make an unhealthy one healthy again, and
	// a degraded one. Default: 2. The first success of all is enough by itself.
	Rise int
	// StartTime is how long a provider that has not been healthy yet may fail
	// before it is called unhealthy. Default: until Fall failures.
	StartTime time.Duration
	// Expected is how long an answer of the probe usually takes. One that takes
	// more than one and a half of it is degraded. Default: anything goes.
	Expected time.Duration

	// Groups are what the provider's health counts for, such as [Readiness] and
	// [Liveness] or words of your own. Default: Readiness.
	Groups []string

	// Recover, when set, runs after the provider has become unhealthy, one at a
	// time: it may reconnect, restart or replace something. An error is tried
	// again after a delay that grows from 1 s to 1 min, until it is healthy again.
	// Its success is followed by a probe. Its context ends after RecoverTimeout,
	// and when the provider leaves. It does not run when the cause is a dependency.
	Recover func(ctx context.Context) error
	// RecoverLimit is how many times it runs before somebody else has to help, of which
	// the event of the last failure speaks. Default: 5.
	RecoverLimit int
	// RecoverTimeout bounds one run. Default: 30 s.
	RecoverTimeout time.Duration
}

// Groups that orchestrators know.
const (
	// Readiness is whether requests can be served.
	Readiness = "readiness"
	// Liveness is whether the process should go on.
	Liveness = "liveness"
)

// limp is an answer that is not as it should be.
type limp struct{ error }

func (l limp) Unwrap() error { return l.error }

// Limp makes an error for a [Probe] that got an answer, but not a good one: the
// provider is degraded for that reason and goes on. A nil err stays nil.
func Limp(err error) error {
	if err == nil {
		return nil
	}
	return limp{err}
}

// IsLimp reports whether err was made by [Limp].
func IsLimp(err error) bool {
	var l limp
	return errors.As(err, &l)
}

// usage is where a probe's context leads.
type usage struct{}

// Use is called by a probe to tell how much of a resource is in use, such as
// 0.93 of "gpu memory"; what is outside [0, 1] is cut. A provider that uses more
// than 0.88 of any is degraded. With a context that is not a probe's it does
// nothing. It must not be called after the probe has returned.
func Use(ctx context.Context, resource string, share float64) {
	if note, ok := ctx.Value(usage{}).(func(string, float64)); ok && !math.IsNaN(share) {
		note(resource, min(max(share, 0), 1))
	}
}

// WithUse returns a context whose probe tells note what it uses. Registries make
// one for each probe; others need it to run probes by themselves, as in tests.
func WithUse(ctx context.Context, note func(resource string, share float64)) context.Context {
	return context.WithValue(ctx, usage{}, note)
}
