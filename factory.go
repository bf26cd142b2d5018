package registry

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/capreg/registry/event"
)

// The wait before a factory that failed is tried again, at the first need.
const (
	firstRebuild = time.Second
	lastRebuild  = time.Minute
)

// maker runs a provider's factory: at first need, one at a time, in a goroutine
// of its own, so that no caller's context can end it for the others.
type maker struct {
	provider *provider

	// mu guards the fields below. It is not held while the factory runs. Lock
	// order: maker.mu, then Registry.mu.
	mu        sync.Mutex
	build     func(context.Context) (*instance, error) // nil when made or abandoned
	running   chan struct{}                            // closed when the present run ends; nil between runs
	cancel    context.CancelCauseFunc                  // of the present run
	failure   error                                    // of the last run
	waiting   bool                                     // after a failure, until the delay is over
	abandoned bool
	delays    *backoff.ExponentialBackOff // made at the first failure
}

func newMaker(p *provider, build func(context.Context) (*instance, error)) *maker {
	return &maker{provider: p, build: build}
}

// wait returns the instance, running the factory when nobody else does. It
// waits for one run at most.
func (m *maker) wait(ctx context.Context) (*instance, error) {
	run, err := m.ensureRunning()
	if err != nil {
		return nil, err
	}
	if run != nil {
		select {
		case <-run:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: its factory is still running: %w", ErrNotReady, context.Cause(ctx))
		}
	}
	if made := m.provider.instance.Load(); made != nil {
		return made, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return nil, m.reason()
}

// ensureRunning returns the channel of the present run; nil when the instance
// is there.
func (m *maker) ensureRunning() (<-chan struct{}, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.provider.instance.Load() != nil:
		return nil, nil //nolint:nilnil // nothing to wait for
	case m.build == nil || m.waiting:
		return nil, m.reason()
	case m.running != nil:
		return m.running, nil
	}
	ctx, cancel := context.WithCancelCause(m.provider.registry.life)
	m.running, m.cancel = make(chan struct{}), cancel
	build := m.build
	if !m.provider.registry.tasks.start(fmt.Sprintf("factory of provider %q", m.provider.name()), func() { m.run(ctx, build) }) {
		cancel(ErrClosed)
		m.running, m.cancel, m.build = nil, nil, nil
		return nil, fmt.Errorf("registry: %w", ErrClosed)
	}
	return m.running, nil
}

// reason says why there is no instance. Caller holds mu.
func (m *maker) reason() error {
	if m.abandoned || m.failure == nil {
		return fmt.Errorf("registry: provider %q: %w", m.provider.name(), ErrClosed)
	}
	return fmt.Errorf("%w: %w", ErrNotReady, m.failure)
}

func (m *maker) run(ctx context.Context, build func(context.Context) (*instance, error)) {
	var made *instance
	err := error(&PanicError{}) // what remains when the factory exits its goroutine
	defer func() { m.finish(made, err) }()
	err = guard(func() (err error) {
		made, err = build(ctx)
		return err
	})
}

func (m *maker) finish(made *instance, err error) {
	text := ""
	if err != nil {
		text = cut(errorText(err), 300) // a user's method: outside the lock
	}
	if discarded := m.settle(made, err, text); discarded != nil && discarded.closer != nil {
		// Nobody waits for this one any more; the goroutine is the registry's.
		_ = guard(discarded.closer.Close)
	}
}

// settle publishes the result of a run, and returns an instance that came too late.
func (m *maker) settle(made *instance, err error, text string) (discarded *instance) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cancel(nil)
	// Last of all: whoever waits for the run looks at what it left behind.
	defer close(m.running)
	m.running, m.cancel = nil, nil
	if m.abandoned {
		m.build = nil
		return made
	}
	p := m.provider
	if err == nil {
		m.build, m.failure = nil, nil
		p.instance.Store(made)
		p.setUnready(unready{}, &event.Event{Kind: event.Ready})
		return nil
	}
	if m.delays == nil {
		m.delays = backoff.NewExponentialBackOff(backoff.WithInitialInterval(firstRebuild),
			backoff.WithMultiplier(2), backoff.WithMaxInterval(lastRebuild), backoff.WithMaxElapsedTime(0))
	}
	delay := m.delays.NextBackOff()
	m.failure, m.waiting = err, true
	until := time.Now().Add(delay)
	p.setUnready(unready{err: err, text: text, until: until},
		&event.Event{Kind: event.NotReady, Err: err, Reason: text, Until: until})
	p.registry.schedule.After(delay, m.retry)
	return nil
}

// retry makes the provider eligible again: the next need runs the factory.
func (m *maker) retry() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiting = false
	m.provider.setUnready(unready{}, nil)
}

// unready is why a provider's factory has made nothing, and when it is tried again.
type unready struct {
	err   error // nil: nothing is wrong
	text  string
	until time.Time
}

func (p *provider) setUnready(now unready, change *event.Event) {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	p.unready = now
	if now.err != nil {
		p.shiftLocked(0, gateNotReady, change)
	} else {
		p.shiftLocked(gateNotReady, 0, change)
	}
}

// abandon cancels a run in progress and lets no other begin.
func (m *maker) abandon() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.abandoned = true
	if m.cancel != nil {
		m.cancel(fmt.Errorf("registry: provider %q: %w", m.provider.name(), ErrClosed))
	} else {
		m.build = nil
	}
}
