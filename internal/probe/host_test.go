package probe_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/probe"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/internal/tasks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	errDown = errors.New("down")
	errGone = errors.New("gone")
)

// policy has the defaults that the registry fills in.
func policy() health.Policy {
	return health.Policy{
		Interval: 30 * time.Second, FastInterval: 5 * time.Second, IdleInterval: 30 * time.Second, Timeout: 5 * time.Second,
		Fall: 3, Rise: 2, RecoverLimit: 5, RecoverTimeout: 30 * time.Second,
	}
}

// host is a host with a clock of its own, whose timers can be late.
type host struct {
	sync.Mutex
	queue     *probe.Queue
	scheduler *schedule.Scheduler
	tasks     tasks.Group
	epoch     time.Time
	timers    atomic.Int64 // those that were set

	// The mutex guards the fields below.
	lag       time.Duration // of timers
	closing   bool
	started   int // goroutines
	published []event.Event
	subjects  int
}

func (h *host) Now() time.Duration { return time.Since(h.epoch) }

func (h *host) After(d time.Duration, run func()) *schedule.Timer {
	h.timers.Add(1)
	return h.scheduler.After(d+h.lag, run)
}

func (h *host) Go(name string, f func()) bool {
	if h.closing {
		return false
	}
	h.started++
	return h.tasks.Start(name, f)
}

func (h *host) Publish(change event.Event) { h.published = append(h.published, change) }

// locked runs f with the lock of the host.
func (h *host) locked(f func()) {
	h.Lock()
	defer h.Unlock()
	f()
}

// inBubble runs a test with a host in a bubble of fake time.
func inBubble(t *testing.T, limit int, test func(t *testing.T, h *host)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := &host{scheduler: schedule.New(), epoch: time.Now()}
		life, end := context.WithCancel(t.Context())
		h.queue = probe.NewQueue(life, h, limit)
		pass(time.Second) // so that no time is zero
		test(t, h)
		end()
		h.scheduler.Close()
		wait := tasks.WithGrace(life)
		defer wait.Stop()
		require.NoError(t, h.tasks.Wait(wait))
	})
}

// pass lets time go by and what is due happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// subject is a provider that publishes each state, as the registry does.
type subject struct {
	host  *host
	watch *probe.Watch

	// The host's lock guards the fields below.
	left      bool
	totals    probe.Totals
	published health.State
	states    []health.State
	changes   []event.Event
	dependent bool // a dependency is the cause of its failures
	planned   int  // probes
}

func (s *subject) Left() bool                 { return s.left }
func (s *subject) Totals() probe.Totals       { return s.totals }
func (s *subject) Publish(change event.Event) { s.changes = append(s.changes, change) }

func (s *subject) ProbePlanned() { s.planned++ }

func (s *subject) HealthChanged() {
	state, _, _ := s.watch.State()
	s.publish(state)
}

func (s *subject) publish(state health.State) {
	before := s.published
	if state == before {
		return
	}
	s.published = state
	s.states = append(s.states, state)
	if before == health.Unhealthy {
		s.watch.ResetRecovery()
	}
	if state == health.Unhealthy {
		s.watch.Recover()
	}
}

func (s *subject) RecoveryNeed() probe.RecoveryNeed {
	switch {
	case s.published != health.Unhealthy:
		return probe.RecoveryNotNeeded
	case s.dependent:
		return probe.RecoveryPostponed
	}
	return probe.RecoveryNeeded
}

// provider returns a subject that is watched by nothing yet.
func (h *host) provider(id probe.Identity) *subject {
	s := &subject{host: h}
	h.locked(func() {
		h.subjects++
		id.Generation = uint64(h.subjects)
		s.watch = h.queue.NewWatch(s, id)
	})
	return s
}

// watched returns a provider that is probed by the policy.
func (h *host) watched(name string, policy health.Policy, own health.Probe) *subject {
	s := h.provider(probe.Identity{Name: name})
	s.configure(policy, own)
	synctest.Wait()
	return s
}

func (s *subject) configure(policy health.Policy, own health.Probe) {
	var end func(error)
	s.host.locked(func() { end = s.watch.Configure(policy, own, health.Unknown) })
	end(errGone)
}

func (s *subject) stop() {
	var end func(error)
	s.host.locked(func() { s.left = true; end = s.watch.Stop() })
	end(errGone)
}

func (s *subject) status() (status health.Status) {
	s.host.locked(func() { status = s.watch.Status() })
	return status
}

func (s *subject) count(totals probe.Totals) {
	s.host.locked(func() { s.totals = totals })
}

func (s *subject) history() (states []health.State) {
	s.host.locked(func() { states = slices.Clone(s.states) })
	return states
}

// check makes the probes due and waits for their results.
func (s *subject) check() {
	var results []<-chan struct{}
	s.host.locked(func() { results = s.watch.CheckNow() })
	for _, result := range results {
		<-result
	}
}

func (s *subject) kinds() (kinds []event.Kind) {
	s.host.locked(func() {
		for _, change := range s.changes {
			kinds = append(kinds, change.Kind)
		}
	})
	return kinds
}

// target is something to probe: it answers as told, and notes when.
type target struct {
	mu       sync.Mutex
	err      error
	takes    time.Duration
	wait     time.Duration   // whatever the context says
	deaf     <-chan struct{} // the probe ignores its context until this is closed; nil: it does not
	probed   []time.Time
	inside   int
	most     int
	canceled []error
}

func (p *target) probe(ctx context.Context) error {
	takes, deaf := p.enter()
	defer p.exit()
	time.Sleep(p.waits())
	if deaf != nil {
		<-deaf
	}
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			p.mu.Lock()
			defer p.mu.Unlock()
			p.canceled = append(p.canceled, context.Cause(ctx))
			return ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *target) enter() (takes time.Duration, deaf <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.probed = append(p.probed, time.Now())
	p.inside++
	p.most = max(p.most, p.inside)
	return p.takes, p.deaf
}

func (p *target) waits() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wait
}

func (p *target) exit() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inside--
}

func (p *target) mostInside() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.most
}

func (p *target) causes() []error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.canceled)
}

func (p *target) set(err error, takes time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err, p.takes = err, takes
}

func (p *target) ignoreContext(until <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = until
}

func (p *target) times() []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.probed)
}
