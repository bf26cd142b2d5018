package registrytest

import (
	"context"
	"maps"
	"sync"

	"github.com/capreg/registry/health"
)

// Health is the health of a fake: put it into one, and the registry probes it, for it
// is a [health.Checker]; a fake that holds it by value must be given as a pointer. The
// zero value is well.
//
// As every provider that is probed, the fake is picked from its first good probe on, and
// until then others are where there are any; what is set later is noticed by the next
// probe. To have either now, call [registry.Registration.CheckHealth]. For a probe with
// a script of its own, set [health.Policy.Probe] to its [Script.Play].
//
// Its methods are safe for concurrent use.
type Health struct {
	// mu guards the fields below.
	mu     sync.Mutex
	err    error
	use    map[string]float64
	checks int
}

var _ health.Checker = (*Health)(nil)

// Set says how the fake is from now on: nil is well, an error made by [health.Limp]
// degraded, another one ill.
func (h *Health) Set(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
}

// Use says how much of a resource the fake uses from now on, from 0 to 1.
func (h *Health) Use(resource string, share float64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.use == nil {
		h.use = make(map[string]float64)
	}
	h.use[resource] = share
}

// Checks returns how many times the fake has been probed.
func (h *Health) Checks() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.checks
}

// CheckHealth returns what was set.
func (h *Health) CheckHealth(ctx context.Context) error {
	h.mu.Lock()
	h.checks++
	err, use := h.err, maps.Clone(h.use)
	h.mu.Unlock()
	for resource, share := range use {
		health.Use(ctx, resource, share)
	}
	return err
}
