package registry

import (
	"time"

	"github.com/capreg/registry/internal/limit"
)

// LimitPolicy configures the limits of a provider, or of all providers of its [Provider.Domain] together. The
// zero value limits nothing.
//
// A call that finds no free place moves on to the next provider, which costs it nothing. Only when no provider
// has a free place does it queue, at all of them at once. Callers ([Caller]) take turns in a queue, and the
// calls of one caller are served in the order in which they came. In a full queue a caller that has more calls
// than the newcomer's makes room: its last call fails or moves on.
//
// A call keeps its turn while it queues. If the provider is replaced, queued calls move to its successor's queue in
// their order; within a shared domain that is the same queue. When its turn comes it checks again whether the provider
// admits it. If that is blocked meanwhile (its breaker is open, it cools down, it is unhealthy), the call keeps its
// turn as long as it waits for another provider too, and goes on waiting with [WaitForCooldown]; else it fails.
type LimitPolicy struct {
	// Bulkhead bounds the attempts and leases in progress. Default: only where one of the next four fields is set.
	Bulkhead bool `json:"bulkhead,omitempty"`
	// MaxConcurrent bounds those in progress at once. Default: 10 where Bulkhead or one of the next three is set, else no bound.
	MaxConcurrent int `json:"max_concurrent,omitempty"`
	// MaxQueue bounds the calls that wait for a place, of all callers together. Default: 50.
	MaxQueue int `json:"max_queue,omitempty"`
	// NoQueue lets no call wait. Default: up to MaxQueue calls wait.
	NoQueue bool `json:"no_queue,omitempty"`
	// MaxWait bounds the time that a call spends in queues, in all of them together. Waiting for the end of a
	// cooldown does not count. Default: 30 s.
	MaxWait time.Duration `json:"max_wait,omitempty"`

	// Rate bounds the attempts a second of each caller in the long run; zero: any number. See [Caller] for what
	// counts as one caller. An attempt beyond it moves on to the next provider, fails at once, or waits with
	// [WaitForCooldown].
	Rate float64 `json:"rate,omitempty"`
	// Burst bounds those that come at once. Default: Rate, rounded up.
	Burst int `json:"burst,omitempty"`
}

// withDefaults returns a checked copy with its defaults filled in.
func (p LimitPolicy) withDefaults() (LimitPolicy, error) {
	checked, v := limit.Policy(p).Checked()
	return LimitPolicy(checked), asFieldError("Limits.", v)
}
