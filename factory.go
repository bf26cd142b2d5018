package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/schedule"
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

	// mu guards the fields below. No code of a user runs while it is held. Lock
	// order: maker.mu, then Registry.mu.
	mu        sync.Mutex
	build     func(context.Context) (*instance, error) // nil when made or abandoned
	running   chan struct{}                            // closed when the present run has a result; nil between runs
	deserted  chan struct{}                            // closed when nobody is to wait for the present run any longer
	ended     chan struct{}                            // closed when nothing of the last run goes on; nil before the first
	cancel    context.CancelCauseFunc                  // of the factory's context, while it runs and while its product serves
	waiting   bool                                     // after a failure, until the delay is over
	abandoned bool
	delays    *backoff.ExponentialBackOff // made at the first failure
	retrying  *schedule.Timer
	late      error // of closing a product that came too late; readable when ended is closed
}

func newMaker(p *provider, build func(context.Context) (*instance, error)) *maker {
	return &maker{provider: p, build: build}
}

// wait returns the instance, running the factory when nobody else does; nil
// when there is none to be had within ctx. It waits for one run at most.
func (m *maker) wait(ctx context.Context) *instance {
	if run, deserted := m.ensureRunning(); run != nil {
		select {
		case <-run:
		case <-deserted:
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), ErrAttemptTimeout) {
				m.hangs(run)
			}
		}
	}
	return m.provider.instance.Load()
}

// ensureRunning returns the channels of the present run; nil when there is none
// to wait for.
func (m *maker) ensureRunning() (running, deserted <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running != nil || m.build == nil || m.waiting || m.abandoned {
		return m.running, m.deserted
	}
	ctx, cancel := context.WithCancelCause(m.provider.registry.life)
	m.running, m.deserted, m.ended, m.cancel = make(chan struct{}), make(chan struct{}), make(chan struct{}), cancel
	build, ended := m.build, m.ended
	if !m.provider.registry.tasks.Start(fmt.Sprintf("factory of provider %q", m.provider.name()), func() { m.run(ctx, build, ended) }) {
		cancel(ErrClosed)
		close(m.ended)
		m.running, m.cancel, m.build = nil, nil, nil
		return nil, nil
	}
	return m.running, m.deserted
}

var errFactoryRunning = errors.New("its factory takes longer than an attempt may")

// hangs keeps further calls from waiting for a run that has already cost one of
// them its time; the end of the run lets them in again.
func (m *maker) hangs(run <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running == run && !m.abandoned {
		m.provider.setUnready(unready{err: errFactoryRunning, text: errFactoryRunning.Error()},
			&event.Event{Kind: event.NotReady, Err: errFactoryRunning, Reason: errFactoryRunning.Error()})
	}
}

func (m *maker) run(ctx context.Context, build func(context.Context) (*instance, error), ended chan struct{}) {
	defer close(ended)
	var made *instance
	err := error(&PanicError{}) // what remains when the factory exits its goroutine
	defer func() { m.finish(made, err) }()
	err = fault.Run(func() (err error) {
		made, err = build(ctx)
		return err
	})
}

func (m *maker) finish(made *instance, err error) {
	text := ""
	if err != nil {
		text = oneline.Cut(fault.Text(err), 300) // a user's method: outside the lock
	}
	if discarded := m.settle(made, err, text); discarded != nil && discarded.closer != nil {
		// Nobody waits for this one any more; the goroutine is the registry's.
		if err := fault.Run(discarded.closer.Close); err != nil {
			m.late = fault.Wrap(fmt.Sprintf("closing provider %q: ", m.provider.name()), err)
		}
	}
}

// settle publishes the result of a run, and returns an instance that came too late.
func (m *maker) settle(made *instance, err error, text string) (discarded *instance) {
	m.mu.Lock()
	defer m.mu.Unlock()
	// Last of all: whoever waits for the run looks at what it left behind.
	defer close(m.running)
	m.running = nil
	if m.abandoned {
		m.build = nil
		return made
	}
	p := m.provider
	if err == nil {
		m.build = nil
		p.instance.Store(made)
		p.setUnready(unready{}, &event.Event{Kind: event.Ready})
		p.watchMade()
		return nil
	}
	m.cancel(nil)
	m.cancel = nil
	if m.delays == nil {
		m.delays = backoff.NewExponentialBackOff(backoff.WithInitialInterval(firstRebuild),
			backoff.WithMultiplier(2), backoff.WithMaxInterval(lastRebuild), backoff.WithMaxElapsedTime(0))
	}
	delay := m.delays.NextBackOff()
	m.waiting = true
	until := time.Now().Add(delay)
	p.setUnready(unready{err: err, text: text, until: until},
		&event.Event{Kind: event.NotReady, Err: err, Reason: text, Until: until})
	m.retrying = p.registry.schedule.After(delay, m.retry)
	return nil
}

// retry makes the provider eligible again: the next need runs the factory.
func (m *maker) retry() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiting = false
	if !m.abandoned {
		m.provider.setUnready(unready{}, nil)
	}
}

// abandon ends a run in progress, for which nobody may wait any longer, and lets
// no other begin. What was made goes on.
func (m *maker) abandon() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running != nil && !m.abandoned {
		close(m.deserted)
	}
	m.abandoned = true
	if m.retrying != nil {
		m.retrying.Stop()
	}
	if m.running != nil {
		m.cancel(m.over())
	} else {
		m.build = nil
	}
}

// release ends the context of what was made. The channel, unless it is nil, is
// closed when nothing of the last run goes on.
func (m *maker) release() <-chan struct{} {
	m.abandon()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cancel != nil {
		m.cancel(m.over())
	}
	return m.ended
}

func (m *maker) over() error {
	return fmt.Errorf("registry: provider %q: %w", m.provider.name(), ErrClosed)
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
		p.changeGateLocked(0, gateNotReady, change)
	} else {
		p.changeGateLocked(gateNotReady, 0, change)
	}
}
