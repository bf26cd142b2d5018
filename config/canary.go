package config

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/capreg/registry"
)

// Canary configures how the error rate is watched after a document was applied. The zero value of each field is its
// default.
type Canary struct {
	// For is the time of the watch. Default: 1 min.
	For time.Duration
	// Every is the time between two looks. Default: a tenth of For.
	Every time.Duration
	// Worse is the growth of the share of failed attempts, from 0 to 1, with which a document is taken back. The share
	// before is that of all attempts on the service's providers until then. Default: 0.1.
	Worse float64
	// Attempts is the number of attempts on a service below which its share says nothing. Default: 20.
	Attempts uint64
}

func (c Canary) withDefaults() (Canary, error) {
	if c.For < 0 || c.Every < 0 || c.Worse < 0 || c.Worse > 1 {
		return c, fmt.Errorf("config: Canary is %+v: want no negative field, and Worse up to 1: %w", c, registry.ErrInvalid)
	}
	if c.For == 0 {
		c.For = time.Minute
	}
	if c.Every == 0 {
		c.Every = max(c.For/10, time.Millisecond)
	}
	if c.Worse == 0 {
		c.Worse = 0.1
	}
	if c.Attempts == 0 {
		c.Attempts = 20
	}
	return c, nil
}

// WorseError is a document that was applied and taken back.
type WorseError struct {
	// Service is the service whose attempts failed more often, Before and After are the shares of failures.
	Service       string
	Before, After float64
	// Attempts is the number of attempts that were watched.
	Attempts uint64
}

// Error returns the shares in one line.
func (e *WorseError) Error() string {
	return fmt.Sprintf("config: taken back: of %d attempts on service %q %.1f %% failed, %.1f %% before",
		e.Attempts, e.Service, 100*e.After, 100*e.Before)
}

// ApplyCanary applies the document as [Manager.Apply] does, and then watches the attempts on its services. When their
// failures have grown too much, it applies the document of before again, tells of that by an event of kind [Reverted]
// and returns a [WorseError]. It blocks for the time of the watch. When ctx ends during the watch, the document stays.
//
// The first document of all is not watched, as there is nothing to go back to, nor is one that changes nothing.
func (m *Manager) ApplyCanary(ctx context.Context, d *Document, canary Canary) (*Plan, error) {
	if _, err := canary.withDefaults(); err != nil {
		return nil, err
	}
	plan, err := m.Apply(ctx, d)
	if err != nil || plan.Empty() {
		return plan, err
	}
	return plan, m.watchCanary(ctx, "", canary)
}

// share counts the attempts on a service and those that failed.
type share struct{ attempts, failures uint64 }

func (s share) rate() float64 { return float64(s.failures) / float64(max(s.attempts, 1)) }

// shares returns the counts of all services. Those of providers that have left are gone, so that counts may shrink.
func (m *Manager) shares() map[identity]share {
	all := make(map[identity]share)
	for info := range m.registry.All() {
		all[shareOf(&info)] = share{info.Attempts, info.Failures}
	}
	return all
}

// shareOf tells the share of one registration apart from that of the next of its name.
func shareOf(info *registry.Info) identity {
	return identity{info.Service, info.Name + "#" + strconv.FormatUint(info.Generation, 10)}
}

// since returns what was counted for each service since the counts of before.
func since(before, after map[identity]share) map[string]share {
	grown := make(map[string]share)
	for id, now := range after {
		s, was := grown[id.service], before[id]
		grown[id.service] = share{s.attempts + now.attempts - was.attempts, s.failures + now.failures - was.failures}
	}
	return grown
}

// watchCanary watches the document that was applied last.
func (m *Manager) watchCanary(ctx context.Context, source string, canary Canary) error {
	canary, err := canary.withDefaults()
	m.mu.Lock()
	now, previous, before := m.applied, m.before, since(nil, m.sharesBefore)
	m.mu.Unlock()
	if err != nil || previous == nil || len(previous.specs) == 0 {
		return err
	}
	began := m.shares()
	end := time.NewTimer(canary.For)
	defer end.Stop()
	look := time.NewTicker(canary.Every)
	defer look.Stop()
	for last := false; !last; {
		select {
		case <-ctx.Done():
			return nil
		case <-end.C:
			last = true
		case <-look.C:
		}
		for service, s := range since(began, m.shares()) {
			if s.attempts >= canary.Attempts && s.rate() > before[service].rate()+canary.Worse {
				return m.revert(ctx, source, now, previous, &WorseError{service, before[service].rate(), s.rate(), s.attempts})
			}
		}
	}
	return nil
}

// revert applies the document of before again, unless another one was applied meanwhile.
func (m *Manager) revert(ctx context.Context, source string, from, to *prepared, why *WorseError) error {
	release, err := m.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	if m.current() != from {
		return nil
	}
	plan, err := m.apply(ctx, to.Document)
	if err != nil {
		err = fmt.Errorf("%w; the document of before is refused: %w", why, err)
		m.tell(Event{Kind: Refused, Source: source, Plan: plan, Err: err})
		return err
	}
	m.tell(Event{Kind: Reverted, Source: source, Plan: plan, Err: why})
	return why
}
