package registry

import (
	"context"
	"fmt"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/lazy"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/internal/typed"
)

// factoryHost is the host of the instance that a provider's factory makes. The instance's lock comes before
// Registry.mu.
type factoryHost struct{ provider *provider }

func newLazyInstance(p *provider, build typed.Builder) *lazy.Instance[*typed.Instance] {
	return lazy.New[*typed.Instance](factoryHost{p}, build)
}

func (h factoryHost) Life() context.Context { return h.provider.registry.life }

func (h factoryHost) Go(f func()) bool {
	return h.provider.registry.probing.Start(fmt.Sprintf("factory of provider %q", h.provider.id()), f)
}

func (h factoryHost) After(d time.Duration, f func()) (stop func() bool) {
	return h.provider.registry.schedule.After(d, f).Stop
}

func (h factoryHost) Ready(made *typed.Instance) {
	h.provider.instance.Store(made)
	h.setNotReady(lazy.Failure{}, &event.Event{Kind: event.Ready})
	h.provider.watchMade()
}

func (h factoryHost) NotReady(f lazy.Failure) {
	h.setNotReady(f, &event.Event{Kind: event.NotReady, Err: f.Err, Reason: f.Text, Until: f.Until})
}

func (h factoryHost) Retry() { h.setNotReady(lazy.Failure{}, nil) }

func (h factoryHost) Discard(made *typed.Instance) error {
	if made.Closer == nil {
		return nil
	}
	return made.Closer.Close()
}

// setNotReady keeps calls away while the factory has failed, and lets them in when f is zero.
func (h factoryHost) setNotReady(f lazy.Failure, change *event.Event) {
	p := h.provider
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	p.notReady = f
	if f.Err != nil {
		p.changeGateLocked(0, refusal.NotReady, change)
	} else {
		p.changeGateLocked(refusal.NotReady, 0, change)
	}
}
