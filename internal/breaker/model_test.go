package breaker_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/breaker"
	"github.com/capreg/registry/internal/schedule"
)

// model is a breaker by the documented rules, without gobreaker, timers, generations and
// locks. Calls know the number of the period that they began in.
type model struct {
	policy   breaker.Policy
	began    time.Time
	refuses  bool // the host does
	state    breaker.State
	since    time.Time
	reason   string
	forced   bool
	until    time.Time
	number   int
	failures int // in a row
	silent   int // unanswered calls since the last success that are no failures yet
	needed   int // successes that close, as when it opened
	trials   int
	good     int // trials
	reopened int
	outcomes []outcome // for the rates
	totals   breaker.Totals
	changes  []string
}

type outcome struct {
	at        time.Duration
	bad, slow bool
}

type modelCall struct {
	number int
	trial  bool
}

func (m *model) enter(state breaker.State, at time.Time, reason string) {
	if m.state == breaker.Open {
		m.totals.TimeOpen += at.Sub(m.since)
	}
	m.changes = append(m.changes, fmt.Sprintf("%v → %v: %s", m.state, state, reason))
	m.state, m.since, m.reason, m.forced, m.until = state, at, reason, false, time.Time{}
	m.number++
	m.failures, m.silent, m.trials, m.good = 0, 0, 0, 0
	switch state {
	case breaker.Closed:
		m.totals.Closed++
		m.reopened, m.outcomes = 0, nil
	case breaker.Open:
		m.totals.Opened++
		m.needed = m.policy.SuccessThreshold
	case breaker.HalfOpen:
		m.totals.HalfOpened++
	}
}

func (m *model) open(length time.Duration, reason string) {
	m.enter(breaker.Open, time.Now(), reason)
	m.until = time.Now().Add(length)
}

// recoveryTime is what a recovery takes now; without jitter.
func (m *model) recoveryTime() time.Duration {
	length := m.policy.RecoveryTimeout
	for range m.reopened {
		if m.policy.RecoveryGrowth > 1 {
			length = min(time.Duration(float64(length)*m.policy.RecoveryGrowth), m.policy.MaxRecoveryTimeout)
		}
	}
	return length
}

func (m *model) tick() {
	if m.state == breaker.Open && time.Now().After(m.until) {
		m.enter(breaker.HalfOpen, m.until.Add(1), "the recovery time is over")
	}
}

func (m *model) admit() (call modelCall, ok bool) {
	switch m.state {
	case breaker.Closed:
		return modelCall{m.number, false}, true
	case breaker.HalfOpen:
		if m.trials < m.policy.TrialSlots {
			m.trials++
			return modelCall{m.number, true}, true
		}
	case breaker.Open:
	}
	return call, false
}

func (m *model) record(call modelCall, result breaker.Outcome, slow bool) {
	switch {
	case call.number != m.number:
	case call.trial:
		m.recordTrial(result, slow)
	case result != breaker.Neutral:
		m.recordClosed(result, slow)
	}
}

func (m *model) recordTrial(result breaker.Outcome, slow bool) {
	m.trials--
	switch {
	case result == breaker.Failure || result == breaker.Unanswered || result == breaker.Success && slow:
		m.totals.LastFailure = time.Now()
		m.reopened++
		m.open(m.recoveryTime(), "a trial failed")
	case result == breaker.Success:
		if m.good++; m.good == m.needed {
			m.enter(breaker.Closed, time.Now(), plural(m.good, "trial")+" succeeded")
		}
	}
}

func (m *model) recordClosed(result breaker.Outcome, slow bool) {
	if result == breaker.Unanswered {
		m.silent++
		m.judgeSilent()
		return
	}
	bad := result == breaker.Failure
	reason := ""
	if m.policy.FailureRate > 0 || m.policy.SlowRate > 0 {
		m.outcomes = append(m.outcomes, outcome{time.Since(m.began), bad, slow})
		if bad || slow {
			reason = m.rateReached()
		}
	}
	if bad {
		m.totals.LastFailure = time.Now()
		m.failures++
		if reason == "" && m.policy.FailureThreshold > 0 && m.failures >= m.policy.FailureThreshold {
			reason = plural(m.failures, "failure") + " in a row"
		}
	}
	switch {
	case reason != "" && !m.refuses:
		m.open(m.recoveryTime(), reason)
	case bad:
		m.judgeSilent()
	default:
		m.failures, m.silent = 0, 0
	}
}

// judgeSilent makes failures of the unanswered calls when they and the failures in a row are as many as the threshold, or five.
func (m *model) judgeSilent() {
	all, enough := m.silent+m.failures, m.policy.FailureThreshold
	if enough == 0 {
		enough = 5
	}
	if m.silent == 0 || all < enough {
		return
	}
	m.totals.LastFailure = time.Now()
	for ; m.silent > 0; m.silent-- {
		if m.policy.FailureRate > 0 || m.policy.SlowRate > 0 {
			m.outcomes = append(m.outcomes, outcome{time.Since(m.began), true, false})
			if reason := m.rateReached(); reason != "" && !m.refuses {
				m.open(m.recoveryTime(), reason)
				return
			}
		}
		m.failures++
		if m.policy.FailureThreshold > 0 && m.failures >= m.policy.FailureThreshold && !m.refuses {
			m.open(m.recoveryTime(), plural(all, "call")+" in a row without an answer")
			return
		}
	}
}

func (m *model) rateReached() string {
	slice := m.policy.Window / 10
	total, bad, slow := 0, 0, 0
	for _, o := range m.outcomes {
		if o.at/slice <= time.Since(m.began)/slice-10 {
			continue
		}
		total++
		if o.bad {
			bad++
		}
		if o.slow {
			slow++
		}
	}
	switch {
	case total < m.policy.MinimumCalls:
	case m.policy.FailureRate > 0 && float64(bad) >= m.policy.FailureRate*float64(total):
		return fmt.Sprintf("%d of %d outcomes failures within %v", bad, total, m.policy.Window)
	case m.policy.SlowRate > 0 && float64(slow) >= m.policy.SlowRate*float64(total):
		return fmt.Sprintf("%d of %d outcomes slow within %v", slow, total, m.policy.Window)
	}
	return ""
}

func (m *model) forceOpen(length time.Duration) {
	m.totals.ForcedOpen++
	m.open(length, "forced")
	m.forced = true
}

func (m *model) reset() {
	if m.state == breaker.Closed {
		m.number++
		m.failures, m.silent, m.reopened, m.outcomes = 0, 0, 0, nil
		return
	}
	m.totals.Resets++
	m.enter(breaker.Closed, time.Now(), "reset")
}

func (m *model) configure(p breaker.Policy) {
	if p.Window != m.policy.Window {
		m.outcomes = nil
	}
	m.policy = p
}

func (m *model) stats() breaker.Stats {
	s := breaker.Stats{
		State: m.state, Since: m.since, Reason: m.reason, Forced: m.forced, ConsecutiveFailures: m.failures,
		TrialSuccesses: m.good, TrialsInFlight: m.trials, Totals: m.totals, Policy: m.policy,
	}
	if m.state == breaker.Open {
		s.RetryIn = time.Until(m.until)
		s.TimeOpen += time.Since(m.since)
	}
	return s
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// randomPolicy returns a policy without jitter, which is within the bounds.
func randomPolicy(random *rand.Rand) breaker.Policy {
	p := breaker.Policy{
		FailureThreshold: 1 + random.IntN(4), RecoveryTimeout: time.Duration(1+random.IntN(20)) * time.Second,
		SuccessThreshold: 1 + random.IntN(3),
	}
	p.TrialSlots = 1 + random.IntN(p.SuccessThreshold)
	if random.IntN(2) == 0 {
		p.RecoveryGrowth, p.MaxRecoveryTimeout = 2, 100*time.Second
	}
	if random.IntN(2) == 0 {
		p.FailureThreshold = random.IntN(8)
		p.Window, p.MinimumCalls = time.Duration(10+10*random.IntN(3))*time.Second, 2+random.IntN(6)
		p.FailureRate = 0.5
		if random.IntN(2) == 0 {
			p.FailureRate, p.SlowRate, p.SlowAfter = 0, 0.4, time.Second
		}
	}
	return p
}

// walk drives a breaker and its model through the same random steps.
type walk struct {
	*rig

	model  *model
	random *rand.Rand
	open   []walkCall // without an outcome so far
}

type walkCall struct {
	generation uint64
	model      modelCall
}

// step takes one step, and returns its name.
func (w *walk) step() string {
	switch at := w.random.IntN(100); {
	case at < 40:
		generation, trial, ok := w.Admit()
		call, admitted := w.model.admit()
		require.Equal(w.t, admitted, ok)
		require.Equal(w.t, call.trial, trial)
		if ok {
			w.open = append(w.open, walkCall{generation, call})
		}
		return "admit"
	case at < 80 && len(w.open) > 0:
		i := w.random.IntN(len(w.open))
		call := w.open[i]
		w.open = append(w.open[:i], w.open[i+1:]...)
		result, slow := breaker.Outcome(w.random.IntN(4)), w.random.IntN(4) == 0
		unaffected := w.Unaffected(call.generation)
		before := w.Stats()
		w.Record(call.generation, result, slow)
		w.model.record(call.model, result, slow)
		if unaffected && !result.Blames() {
			require.Equal(w.t, before, w.Stats(), "nothing was to change")
		}
		return fmt.Sprint("record ", result, slow)
	case at < 92:
		d := time.Duration(w.random.IntN(8000)) * time.Millisecond
		if retryIn := w.Stats().RetryIn; retryIn > 0 && w.random.IntN(2) == 0 {
			d = retryIn + time.Duration(w.random.IntN(3)) - 1
		}
		pass(d)
		w.model.tick()
		return fmt.Sprint("pass ", d)
	case at < 94:
		d := time.Duration(1+w.random.IntN(10)) * time.Second
		w.ForceOpen(d, "forced")
		w.model.forceOpen(d)
		return fmt.Sprint("force open ", d)
	case at < 95:
		w.Reset()
		w.model.reset()
		return "reset"
	case at < 98:
		p := randomPolicy(w.random)
		require.Equal(w.t, w.model.policy, w.Configure(p))
		w.model.configure(p)
		return fmt.Sprintf("configure %+v", p)
	default:
		w.model.refuses = !w.model.refuses
		w.host.refuse(w.model.refuses)
		return "host changes its mind"
	}
}

func TestRandomWalk_AgreesWithAModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		p := randomPolicy(random)
		bubble(t, p, func(t *testing.T, b *rig) {
			w := &walk{rig: b, model: &model{policy: p, began: time.Now(), since: time.Now()}, random: random}
			for i := range 3000 {
				step := w.step()
				require.Equal(t, w.model.stats(), b.Stats(), "seed %d, step %d: %s", seed, i, step)
				changes := b.host.changed()
				require.Len(t, changes, len(w.model.changes))
				if n := len(changes); n > 0 {
					c := changes[n-1]
					require.Equal(t, w.model.changes[n-1], fmt.Sprintf("%v → %v: %s", c.From, c.To, c.Reason))
				}
				full := w.model.state == breaker.HalfOpen && w.model.trials >= w.model.policy.TrialSlots
				require.Equal(t, full, b.host.isFull(), "seed %d, step %d: %s", seed, i, step)
			}
			require.Greater(t, b.Stats().Closed, uint64(10))
			require.Greater(t, b.Stats().HalfOpened, uint64(10))
		})
	}
}

// Goroutines do everything at once, on the real clock: trials never exceed their slots, each
// change begins where the last one ended, and nothing is left in flight.
func TestBreaker_SurvivesConcurrentUse(t *testing.T) {
	t.Parallel()
	timers := schedule.New()
	defer timers.Close()
	b := &rig{t: t}
	p := with(func(p *breaker.Policy) {
		p.RecoveryTimeout, p.SuccessThreshold, p.TrialSlots = 10*time.Microsecond, 3, 2
		p.FailureRate, p.Window, p.MinimumCalls = 0.8, time.Millisecond, 4
	})
	b.Init(&b.host, timers, p)
	var done sync.WaitGroup
	var trials atomic.Int64
	for worker := range uint64(8) {
		done.Go(func() {
			random := rand.New(rand.NewPCG(worker, 2))
			for i := 0; i < 3000 || trials.Load() == 0; i++ {
				switch random.IntN(200) {
				case 0:
					b.Reset()
				case 1:
					b.ForceOpen(time.Microsecond, "test")
				case 2:
					b.Configure(p)
				case 3:
					b.Configure(with(func(q *breaker.Policy) { *q, q.FailureRate, q.Window = p, 0, 0 }))
				case 4:
					stats := b.Stats()
					if stats.TrialsInFlight < 0 || stats.TrialsInFlight > 2 || stats.RetryIn > time.Second {
						t.Errorf("%+v", stats)
					}
				default:
					generation, trial, ok := b.Admit()
					if !ok {
						continue
					}
					if trial {
						trials.Add(1)
					}
					outcome, slow := breaker.Outcome(random.IntN(4)), b.Slow(math.MaxInt64)
					if outcome.Blames() || !b.Unaffected(generation) {
						b.Record(generation, outcome, slow)
					}
				}
			}
		})
	}
	done.Wait()
	require.Positive(t, trials.Load())
	b.StopRecovery()
	require.Zero(t, b.Stats().TrialsInFlight)
	state := breaker.Closed
	for _, c := range b.host.changed() {
		require.Equal(t, state, c.From)
		state = c.To
	}
	require.Equal(t, state, b.state())
}
