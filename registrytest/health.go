package registrytest

import (
	"context"
	"maps"
	"sync"

	"github.com/capreg/registry/health"
)

// Health is the health of a fake. Embed it in a fake, and the registry probes it, as it
// implements [health.Checker]; a fake that holds it by value must be given as a pointer. The
// zero value is healthy.
//
// Like every provider with a probe, the fake is picked from its first good probe on, and until
// then only if there is no other provider; a later change takes effect with the next probe. To
// have either now, call [registry.Registration.CheckHealth]. For a probe with a script of its
// own, set [health.Policy.Probe] to its [Script.Play].
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

// Set sets the result of later probes: nil is healthy, an error made by [health.Limp] degraded,
// any other error unhealthy.
func (h *Health) Set(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
}

// Use sets the share of a resource that later probes report, from 0 to 1.
func (h *Health) Use(resource string, share float64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.use == nil {
		h.use = make(map[string]float64)
	}
	h.use[resource] = share
}

// Checks returns the number of probes so far.
func (h *Health) Checks() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.checks
}

// CheckHealth returns the error of [Health.Set] and reports the usage.
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
