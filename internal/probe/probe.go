// Package probe watches the health of providers.
//
// A [Machine] is the health of one provider as a value: results of probes go in, its state and the changes to
// publish come out. A [Queue] decides when each probe runs, and how many at once. A [Watch] is what both know of
// one provider: its policy, its probes, its machine and its recovery hook.
//
// The package owns the goroutines of probes and recovery hooks while they run, and nothing else of a provider: the
// [Host] has the clock and the lock, a [Subject] publishes what changes. It must never run a probe, a recovery hook
// or a method of their errors while the lock of the host is held, and never decide whether a provider is picked.
package probe

import (
	"sync"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/schedule"
)

// Host is the owner of a [Queue], as far as the queue needs it. Its lock guards the queue, every watch made by it and what subjects
// publish, so that a change and its event are one step. Now, After, Go and Publish may be called while it is held.
type Host interface {
	sync.Locker

	// Now returns the time on a monotonic clock that all providers share.
	Now() time.Duration
	// After calls run once, after d, without the lock.
	After(d time.Duration, run func()) *schedule.Timer
	// Go runs f in a goroutine that the host waits for. It returns false, and runs nothing, once the host is closing.
	Go(name string, f func()) bool
	// Publish publishes a change that concerns no single provider.
	Publish(change event.Event)
}

// Subject is a provider as a [Watch] sees it. Its methods are called with the lock of the host held, and may call
// methods of the watch.
type Subject interface {
	// Left reports whether the provider has left: nothing it does counts any more.
	Left() bool
	// Totals returns the counts of the provider's calls.
	Totals() Totals
	// Publish publishes a change of the provider.
	Publish(change event.Event)
	// HealthChanged is called after each result: state, score and reasons may differ from what was published.
	HealthChanged()
	// ProbePlanned is called when the time of a next probe is known.
	ProbePlanned()
	// RecoveryNeed reports whether the recovery hook is to run now.
	RecoveryNeed() RecoveryNeed
}

// Identity tells one provider from others.
type Identity struct {
	// Name of the provider.
	Name string
	// Domain names what the provider shares with others, such as a host; empty: nothing.
	Domain string
	// Generation differs for each provider.
	Generation uint64
}

// Totals counts the calls of a provider.
type Totals struct {
	Attempts, Successes, Failures uint64
}

// RecoveryNeed says what a [Subject] needs of its recovery hook.
type RecoveryNeed uint8

// The needs.
const (
	// RecoveryNotNeeded: the provider is not published as unhealthy.
	RecoveryNotNeeded RecoveryNeed = iota
	// RecoveryPostponed: the cause is another provider, and the need is asked for later.
	RecoveryPostponed
	// RecoveryNeeded: the hook runs now, unless it runs already.
	RecoveryNeeded
)

// StuckGrace is the time that a probe has to return after its context has ended, before it counts as stuck.
const StuckGrace = 100 * time.Millisecond

// Needed reports whether the policy asks for anything: a probe, or a recovery hook. own is the probe of the provider
// itself, or nil.
func Needed(policy health.Policy, own health.Probe) bool {
	probed := !policy.Off && (own != nil || len(policy.Capabilities) > 0)
	return probed || policy.Recover != nil
}
