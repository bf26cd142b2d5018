package testkit

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
)

// ProbeTarget is something to probe. It gives the result that a test has set, and records the times of the
// probes.
type ProbeTarget struct {
	Err   error         // the result; nil for healthy
	Takes time.Duration // the duration of a probe

	mu     sync.Mutex
	probed []time.Time
	inside int
	most   int
}

// Probe is the [health.Probe] of the target.
func (p *ProbeTarget) Probe(ctx context.Context) error {
	p.mu.Lock()
	p.probed = append(p.probed, time.Now())
	p.inside++
	p.most = max(p.most, p.inside)
	takes := p.Takes
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.inside--
	}()
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.Err
}

// SetErr sets the result of the probes to come.
func (p *ProbeTarget) SetErr(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Err = err
}

// SetTakes sets the duration of the probes to come.
func (p *ProbeTarget) SetTakes(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Takes = d
}

// Times returns the times at which probes began.
func (p *ProbeTarget) Times() []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.probed)
}

// MostInside returns the largest number of probes that ran at the same time.
func (p *ProbeTarget) MostInside() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.most
}

// Next advances the fake time until n more probes have run.
func (p *ProbeTarget) Next(n int) {
	for want := len(p.Times()) + n; len(p.Times()) < want; {
		Pass(50 * time.Millisecond)
	}
	synctest.Wait()
}

// AddProbed registers a provider with the target's probe and waits for the first result.
func AddProbed(
	tb testing.TB, reg *registry.Registry, name string, of *ProbeTarget, policy health.Policy,
) *registry.Registration {
	tb.Helper()
	policy.Probe = of.Probe
	registration := Add(tb, reg, Provider{Name: name, Health: policy})
	synctest.Wait()
	return registration
}
