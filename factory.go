package registry

import (
	"context"
	"fmt"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/lazy"
)

// factoryHost is the host of the instance that a provider's factory makes. The instance's lock comes before
// Registry.mu.
type factoryHost struct{ provider *provider }

func newLazyInstance(p *provider, build func(context.Context) (*instance, error)) *lazy.Instance[*instance] {
	return lazy.New[*instance](factoryHost{p}, build)
}

func (h factoryHost) Life() context.Context { return h.provider.registry.life }

func (h factoryHost) Go(f func()) bool {
	return h.provider.registry.probing.Start(fmt.Sprintf("factory of provider %q", h.provider.name()), f)
}

func (h factoryHost) After(d time.Duration, f func()) (stop func() bool) {
	return h.provider.registry.schedule.After(d, f).Stop
}

func (h factoryHost) Ready(made *instance) {
	h.provider.instance.Store(made)
	h.setNotReady(lazy.Failure{}, &event.Event{Kind: event.Ready})
	h.provider.watchMade()
}

func (h factoryHost) NotReady(f lazy.Failure) {
	h.setNotReady(f, &event.Event{Kind: event.NotReady, Err: f.Err, Reason: f.Text, Until: f.Until})
}

func (h factoryHost) Retry() { h.setNotReady(lazy.Failure{}, nil) }

func (h factoryHost) Discard(made *instance) error {
	if made.closer == nil {
		return nil
	}
	return made.closer.Close()
}

// setNotReady keeps calls away while the factory has failed, and lets them in when f is zero.
func (h factoryHost) setNotReady(f lazy.Failure, change *event.Event) {
	p := h.provider
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	p.notReady = f
	if f.Err != nil {
		p.changeGateLocked(0, gateNotReady, change)
	} else {
		p.changeGateLocked(gateNotReady, 0, change)
	}
}
