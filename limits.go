package registry

import (
	"cmp"
	"fmt"
	"math"
	"time"
)

// LimitPolicy configures the limits of a provider, or of all providers of its [Provider.Domain] together. The
// zero value limits nothing.
//
// A call that finds no free place moves on to the next provider, which costs it nothing. Only when no
// provider has a free place does it queue, at all of them at once, first come first served. When its turn
// comes it checks again whether the provider admits it. If the provider is replaced, queued calls move to its
// successor's queue; within a shared domain that is the same queue, and they keep their position.
type LimitPolicy struct {
	// Bulkhead bounds the attempts and leases in progress. Setting one of the next four fields does so as well.
	Bulkhead bool `json:"bulkhead,omitempty"`
	// MaxConcurrent bounds those in progress at once. Default: 10.
	MaxConcurrent int `json:"max_concurrent,omitempty"`
	// MaxQueue bounds the calls that wait for a place. Default: 50.
	MaxQueue int `json:"max_queue,omitempty"`
	// NoQueue lets no call wait.
	NoQueue bool `json:"no_queue,omitempty"`
	// MaxWait bounds the time that a call waits, in all queues together. Default: 30 s.
	MaxWait time.Duration `json:"max_wait,omitempty"`

	// Rate bounds the attempts a second of each caller in the long run; zero: any number. See [Caller] for what
	// counts as one caller.
	Rate float64 `json:"rate,omitempty"`
	// Burst bounds those that come at once. Default: Rate, rounded up.
	Burst int `json:"burst,omitempty"`
}

const (
	defaultConcurrency = 10
	defaultQueue       = 50
	defaultQueueWait   = 30 * time.Second
)

// withDefaults returns a checked copy with its defaults filled in.
func (p LimitPolicy) withDefaults() (LimitPolicy, error) {
	for _, n := range []struct {
		field string
		value int
		usual int
	}{
		{"Limits.MaxConcurrent", p.MaxConcurrent, defaultConcurrency},
		{"Limits.MaxQueue", p.MaxQueue, defaultQueue},
		{"Limits.Burst", p.Burst, 0},
	} {
		if n.value < 0 || n.value > math.MaxInt32 {
			return p, invalid(n.field, n.value, fmt.Sprintf("0 (default %d) to %d", n.usual, math.MaxInt32))
		}
	}
	switch {
	case p.MaxWait < 0:
		return p, invalid("Limits.MaxWait", p.MaxWait, "0 (default 30s) or more")
	case p.NoQueue && (p.MaxQueue > 0 || p.MaxWait > 0):
		return p, invalid("Limits.NoQueue", true, "false together with MaxQueue or MaxWait")
	case math.IsNaN(p.Rate) || p.Rate < 0 || p.Rate > math.MaxInt32:
		return p, invalid("Limits.Rate", p.Rate, fmt.Sprintf("0 (any rate) to %d a second", math.MaxInt32))
	case p.Burst > 0 && p.Rate == 0:
		return p, invalid("Limits.Burst", p.Burst, "0 without a Rate")
	}
	if p.Bulkhead || p.MaxConcurrent > 0 || p.MaxQueue > 0 || p.NoQueue || p.MaxWait > 0 {
		p.Bulkhead = true
		p.MaxConcurrent = cmp.Or(p.MaxConcurrent, defaultConcurrency)
		if !p.NoQueue {
			p.MaxQueue = cmp.Or(p.MaxQueue, defaultQueue)
			p.MaxWait = cmp.Or(p.MaxWait, defaultQueueWait)
		}
	}
	if p.Rate > 0 {
		p.Burst = cmp.Or(p.Burst, int(math.Ceil(p.Rate)))
	}
	return p, nil
}
