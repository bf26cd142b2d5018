package lazy_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/capreg/registry/internal/lazy"
)

type product struct{ closed int }

// host records what the instance reports.
type host struct {
	life      context.Context //nolint:containedctx // what Life returns
	refuses   bool
	discard   func(*product) error
	running   sync.WaitGroup
	discarded atomic.Int64

	mu       sync.Mutex
	reports  []string
	failures []lazy.Failure
	timers   int // pending
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{life: t.Context()}
	t.Cleanup(h.running.Wait)
	return h
}

func (h *host) Life() context.Context { return h.life }

func (h *host) Go(f func()) bool {
	if h.refuses {
		return false
	}
	h.running.Go(f)
	return true
}

func (h *host) After(d time.Duration, f func()) func() bool {
	h.count(1)
	timer := time.AfterFunc(d, func() {
		h.count(-1)
		f()
	})
	return func() bool {
		stopped := timer.Stop()
		if stopped {
			h.count(-1)
		}
		return stopped
	}
}

func (h *host) count(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.timers += n
}

func (h *host) report(what string, f ...lazy.Failure) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reports = append(h.reports, what)
	h.failures = append(h.failures, f...)
}

func (h *host) Ready(*product)          { h.report("ready") }
func (h *host) NotReady(f lazy.Failure) { h.report("not ready", f) }
func (h *host) Retry()                  { h.report("retry") }

func (h *host) Discard(p *product) error {
	h.discarded.Add(1)
	if h.discard != nil {
		return h.discard(p)
	}
	return nil
}

func (h *host) seen() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reports
}

func (h *host) last() lazy.Failure {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failures[len(h.failures)-1]
}

func (h *host) pendingTimers() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.timers
}
