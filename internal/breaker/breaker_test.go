package breaker_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/breaker"
	"github.com/capreg/registry/internal/schedule"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeHost records what it is told.
type fakeHost struct {
	mu       sync.Mutex
	refusing bool // does not let the breaker open
	asked    int  // calls of MayOpen
	changes  []breaker.Change
	full     bool // as TrialsFull was last called in this state

	locked func() // runs once while the breaker's lock is held; nil: none
}

func (h *fakeHost) MayOpen() bool {
	h.runLocked()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked++
	return !h.refusing
}

func (h *fakeHost) StateChanged(c breaker.Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes = append(h.changes, c)
	h.full = false
}

func (h *fakeHost) TrialsFull(full bool) {
	h.runLocked()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.full = full
}

func (h *fakeHost) runLocked() {
	if f := h.locked; f != nil {
		h.locked = nil
		f()
	}
}

func (h *fakeHost) refuse(refuses bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refusing = refuses
}

func (h *fakeHost) timesAsked() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked
}

func (h *fakeHost) changed() []breaker.Change {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clip(h.changes)
}

func (h *fakeHost) isFull() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.full
}

// rig is a breaker and its host.
type rig struct {
	breaker.Breaker

	t    *testing.T
	host fakeHost
}

// policy has no rate, a threshold of 3, a minute of recovery and 2 trials, one at once.
var policy = breaker.Policy{FailureThreshold: 3, RecoveryTimeout: time.Minute, SuccessThreshold: 2, TrialSlots: 1}

// with returns policy with a change.
func with(change func(*breaker.Policy)) breaker.Policy {
	p := policy
	change(&p)
	return p
}

// bubble runs test with a closed breaker, on fake time.
func bubble(t *testing.T, p breaker.Policy, test func(t *testing.T, b *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		timers := schedule.New()
		defer timers.Close()
		b := &rig{t: t}
		b.Init(&b.host, timers, p)
		test(t, b)
	})
}

// pass lets time go by, and the timers that are due run.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// admit admits a call, which must be a trial or not, and returns its generation.
func (b *rig) admit(trial bool) uint64 {
	b.t.Helper()
	generation, isTrial, ok := b.Admit()
	require.True(b.t, ok)
	require.Equal(b.t, trial, isTrial)
	return generation
}

// call admits a call and records its outcome.
func (b *rig) call(outcome breaker.Outcome) { b.slowCall(outcome, false) }

func (b *rig) slowCall(outcome breaker.Outcome, slow bool) {
	b.t.Helper()
	generation, _, ok := b.Admit()
	require.True(b.t, ok)
	b.Record(generation, outcome, slow)
}

func (b *rig) refused() bool {
	_, _, ok := b.Admit()
	return !ok
}

func (b *rig) state() breaker.State { return b.Stats().State }

// trip opens the closed breaker by failures in a row.
func (b *rig) trip() {
	b.t.Helper()
	for b.state() == breaker.Closed {
		b.call(breaker.Failure)
	}
}

// toHalfOpen opens the breaker, and lets its recovery time pass.
func (b *rig) toHalfOpen() {
	b.t.Helper()
	b.trip()
	pass(b.Stats().RetryIn + 1)
	require.Equal(b.t, breaker.HalfOpen, b.state())
}

// arrangements brings a closed breaker into each state.
var arrangements = map[breaker.State]func(*rig){
	breaker.Closed:   func(*rig) {},
	breaker.Open:     (*rig).trip,
	breaker.HalfOpen: (*rig).toHalfOpen,
}

// The rows of the table in states.go.
func TestBreaker_FollowsItsTableOfTransitions(t *testing.T) {
	t.Parallel()
	rated := with(func(p *breaker.Policy) {
		p.FailureRate, p.SlowRate, p.SlowAfter, p.Window, p.MinimumCalls = 0.5, 0.5, time.Second, time.Minute, 2
	})
	for name, row := range map[string]struct {
		policy breaker.Policy
		from   breaker.State
		event  func(*rig)
		to     breaker.State
		reason string // "": no transition
	}{
		"closed, success":        {policy, breaker.Closed, func(b *rig) { b.call(breaker.Success) }, breaker.Closed, ""},
		"closed, neutral":        {policy, breaker.Closed, func(b *rig) { b.call(breaker.Neutral) }, breaker.Closed, ""},
		"closed, failures below": {policy, breaker.Closed, func(b *rig) { b.call(breaker.Failure); b.call(breaker.Failure) }, breaker.Closed, ""},
		"closed, failures in a row": {policy, breaker.Closed, func(b *rig) {
			b.call(breaker.Failure)
			b.call(breaker.Neutral)
			b.call(breaker.Failure)
			b.call(breaker.Failure)
		}, breaker.Open, "3 failures in a row"},
		"closed, failures with a success between": {policy, breaker.Closed, func(b *rig) {
			b.call(breaker.Failure)
			b.call(breaker.Failure)
			b.call(breaker.Success)
			b.call(breaker.Failure)
			b.call(breaker.Failure)
		}, breaker.Closed, ""},
		"closed, unanswered below": {policy, breaker.Closed, func(b *rig) {
			b.call(breaker.Unanswered)
			b.call(breaker.Failure)
			b.call(breaker.Neutral)
		}, breaker.Closed, ""},
		"closed, unanswered in a row": {policy, breaker.Closed, func(b *rig) {
			b.call(breaker.Unanswered)
			b.call(breaker.Unanswered)
			require.True(b.t, b.LastChance())
			b.call(breaker.Unanswered)
			require.False(b.t, b.LastChance())
		}, breaker.Open, "3 calls in a row without an answer"},
		"closed, unanswered and then a failure": {policy, breaker.Closed, func(b *rig) {
			b.call(breaker.Failure)
			b.call(breaker.Unanswered)
			b.call(breaker.Failure)
		}, breaker.Open, "3 calls in a row without an answer"},
		"closed, unanswered with a success between": {policy, breaker.Closed, func(b *rig) {
			b.call(breaker.Unanswered)
			b.call(breaker.Unanswered)
			b.call(breaker.Success)
			b.call(breaker.Unanswered)
			b.call(breaker.Unanswered)
		}, breaker.Closed, ""},
		"closed, unanswered, reset between": {policy, breaker.Closed, func(b *rig) {
			b.call(breaker.Unanswered)
			b.call(breaker.Unanswered)
			b.Reset()
			b.call(breaker.Unanswered)
		}, breaker.Closed, ""},
		"closed, unanswered, by a rate alone": {with(func(p *breaker.Policy) {
			p.FailureThreshold, p.FailureRate, p.Window, p.MinimumCalls = 0, 0.5, time.Minute, 2
		}), breaker.Closed, func(b *rig) {
			for range 5 {
				b.call(breaker.Unanswered)
			}
		}, breaker.Open, "2 of 2 outcomes failures within 1m0s"},
		"half-open, unanswered": {policy, breaker.HalfOpen, func(b *rig) { b.call(breaker.Unanswered) }, breaker.Open, "a trial failed"},
		"closed, failure rate": {rated, breaker.Closed, func(b *rig) {
			b.call(breaker.Success)
			b.call(breaker.Failure)
		}, breaker.Open, "1 of 2 outcomes failures within 1m0s"},
		"closed, slow rate": {rated, breaker.Closed, func(b *rig) {
			b.call(breaker.Success)
			b.slowCall(breaker.Success, true)
		}, breaker.Open, "1 of 2 outcomes slow within 1m0s"},
		"closed, host refuses": {policy, breaker.Closed, func(b *rig) {
			b.host.refuse(true)
			for range 10 {
				b.call(breaker.Failure)
			}
		}, breaker.Closed, ""},
		"closed, force open":   {policy, breaker.Closed, func(b *rig) { b.ForceOpen(time.Hour, "by hand") }, breaker.Open, "by hand"},
		"closed, reset":        {policy, breaker.Closed, func(b *rig) { b.Reset() }, breaker.Closed, ""},
		"closed, configure":    {policy, breaker.Closed, func(b *rig) { b.Configure(rated) }, breaker.Closed, ""},
		"open, before its end": {policy, breaker.Open, func(*rig) { pass(time.Minute) }, breaker.Open, ""},
		"open, after its end": {
			policy, breaker.Open, func(*rig) { pass(time.Minute + 1) }, breaker.HalfOpen, "the recovery time is over",
		},
		"open, force open":         {policy, breaker.Open, func(b *rig) { b.ForceOpen(time.Hour, "longer") }, breaker.Open, "longer"},
		"open, reset":              {policy, breaker.Open, func(b *rig) { b.Reset() }, breaker.Closed, "reset"},
		"open, configure":          {policy, breaker.Open, func(b *rig) { b.Configure(rated) }, breaker.Open, ""},
		"half-open, neutral":       {policy, breaker.HalfOpen, func(b *rig) { b.call(breaker.Neutral) }, breaker.HalfOpen, ""},
		"half-open, first success": {policy, breaker.HalfOpen, func(b *rig) { b.call(breaker.Success) }, breaker.HalfOpen, ""},
		"half-open, last success": {policy, breaker.HalfOpen, func(b *rig) {
			b.call(breaker.Success)
			b.call(breaker.Success)
		}, breaker.Closed, "2 trials succeeded"},
		"half-open, failure": {policy, breaker.HalfOpen, func(b *rig) {
			b.call(breaker.Success)
			b.call(breaker.Failure)
		}, breaker.Open, "a trial failed"},
		"half-open, slow success": {policy, breaker.HalfOpen, func(b *rig) { b.slowCall(breaker.Success, true) }, breaker.Open, "a trial failed"},
		"half-open, slow neutral": {policy, breaker.HalfOpen, func(b *rig) { b.slowCall(breaker.Neutral, true) }, breaker.HalfOpen, ""},
		"half-open, force open":   {policy, breaker.HalfOpen, func(b *rig) { b.ForceOpen(time.Hour, "x") }, breaker.Open, "x"},
		"half-open, reset":        {policy, breaker.HalfOpen, func(b *rig) { b.Reset() }, breaker.Closed, "reset"},
		"half-open, configure":    {policy, breaker.HalfOpen, func(b *rig) { b.Configure(rated) }, breaker.HalfOpen, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, row.policy, func(t *testing.T, b *rig) {
				arrangements[row.from](b)
				before := len(b.host.changed())
				row.event(b)
				stats := b.Stats()
				require.Equal(t, row.to, stats.State)
				if row.reason == "" {
					require.Len(t, b.host.changed(), before)
					return
				}
				require.Len(t, b.host.changed(), before+1)
				change := b.host.changed()[before]
				require.Equal(t, breaker.Change{From: row.from, To: row.to, Reason: row.reason, Until: change.Until, Forced: change.Forced}, change)
				require.Equal(t, row.reason, stats.Reason)
				require.Equal(t, time.Now(), stats.Since)
				if row.to == breaker.Open {
					require.Equal(t, time.Now().Add(stats.RetryIn), change.Until)
				} else {
					require.Zero(t, change.Until)
				}
			})
		})
	}
}

func TestState_Names(t *testing.T) {
	t.Parallel()
	for state, name := range map[breaker.State]string{
		breaker.Closed: "closed", breaker.Open: "open", breaker.HalfOpen: "half-open", 9: "state(9)",
	} {
		require.Equal(t, name, state.String())
	}
}

func TestAdmit_FollowsTheState(t *testing.T) {
	t.Parallel()
	bubble(t, policy, func(t *testing.T, b *rig) {
		generation, ok := b.AdmitClosed()
		require.True(t, ok)
		require.Equal(t, generation, b.admit(false))
		b.trip()
		_, ok = b.AdmitClosed()
		require.False(t, ok)
		require.True(t, b.refused())
		pass(time.Minute + 1)
		_, ok = b.AdmitClosed()
		require.False(t, ok, "it would be a trial")
		b.admit(true)
		require.True(t, b.refused(), "no slot is free")
	})
}

func TestRecord_CountsInItsGenerationOnly(t *testing.T) {
	t.Parallel()
	bubble(t, with(func(p *breaker.Policy) { p.FailureThreshold = 1 }), func(t *testing.T, b *rig) {
		first := b.admit(false)
		b.Record(b.admit(false), breaker.Failure, false)
		require.Equal(t, breaker.Open, b.state())
		pass(30 * time.Second)
		b.Record(first, breaker.Failure, false)
		require.Equal(t, 30*time.Second, b.Stats().RetryIn, "a late failure does not move the recovery time")
		pass(30*time.Second + 1)
		b.Record(first, breaker.Failure, false)
		require.Equal(t, breaker.HalfOpen, b.state(), "nor fails a trial")

		trial := b.admit(true)
		b.Reset()
		b.Record(trial, breaker.Failure, false)
		require.Equal(t, breaker.Closed, b.state())
		require.Zero(t, b.Stats().TrialsInFlight)

		before := b.admit(false)
		b.Reset()
		b.Record(before, breaker.Failure, false)
		require.Equal(t, breaker.Closed, b.state(), "a reset while closed begins a generation too")

		b.ForceOpen(time.Minute, "test")
		open := b.host.changed()
		b.Record(before+2, breaker.Failure, false) // the generation of the open period, in which there are no calls
		require.Equal(t, open, b.host.changed())
	})
}

func TestTrials_TakeSlotsUntilTheirOutcome(t *testing.T) {
	t.Parallel()
	for _, outcome := range []breaker.Outcome{breaker.Neutral, breaker.Success} {
		bubble(t, with(func(p *breaker.Policy) { p.TrialSlots, p.SuccessThreshold = 2, 3 }), func(t *testing.T, b *rig) {
			b.toHalfOpen()
			hanging := b.admit(true)
			require.False(t, b.host.isFull())
			second := b.admit(true)
			require.True(t, b.host.isFull())
			require.True(t, b.refused())
			require.Equal(t, 2, b.Stats().TrialsInFlight)

			b.Record(second, outcome, false)
			require.False(t, b.host.isFull())
			require.Equal(t, 1, b.Stats().TrialsInFlight)
			pass(time.Hour)
			for b.Stats().TrialSuccesses < 2 {
				b.call(breaker.Success)
			}
			b.call(breaker.Success)
			require.Equal(t, breaker.Closed, b.state(), "the hanging trial has one slot and no more")
			b.Record(hanging, breaker.Failure, false)
			require.Zero(t, b.Stats().ConsecutiveFailures)
		})
	}
}

func TestTrials_BeginWithoutEarlierSuccesses(t *testing.T) {
	t.Parallel()
	bubble(t, policy, func(t *testing.T, b *rig) {
		b.toHalfOpen()
		b.call(breaker.Success)
		require.Equal(t, 1, b.Stats().TrialSuccesses)
		b.call(breaker.Failure)
		require.Zero(t, b.Stats().TrialSuccesses)
		pass(time.Minute + 1)
		require.Equal(t, breaker.HalfOpen, b.state())
		require.Zero(t, b.Stats().TrialSuccesses)
	})
}

func TestMayOpen_KeepsCountingWhileRefused(t *testing.T) {
	t.Parallel()
	bubble(t, policy, func(t *testing.T, b *rig) {
		b.host.refuse(true)
		for range 5 {
			b.call(breaker.Failure)
		}
		require.Equal(t, 5, b.Stats().ConsecutiveFailures)
		require.Equal(t, 3, b.host.timesAsked(), "from the threshold on")
		b.host.refuse(false)
		b.call(breaker.Failure)
		require.Equal(t, "6 failures in a row", b.Stats().Reason)
	})
}

func TestMayOpen_IsNotAskedByTrialsAndForce(t *testing.T) {
	t.Parallel()
	bubble(t, policy, func(t *testing.T, b *rig) {
		b.toHalfOpen()
		b.host.refuse(true)
		b.call(breaker.Failure)
		require.Equal(t, breaker.Open, b.state())
		b.ForceOpen(time.Second, "test")
		require.Equal(t, 1, b.host.timesAsked())
	})
}

func TestUnaffected_WhereASuccessWouldChangeNothing(t *testing.T) {
	t.Parallel()
	bubble(t, policy, func(t *testing.T, b *rig) {
		generation := b.admit(false)
		require.True(t, b.Unaffected(generation))
		b.call(breaker.Failure)
		require.False(t, b.Unaffected(generation), "it ends the failures in a row")
		b.call(breaker.Success)
		require.True(t, b.Unaffected(generation))
		b.call(breaker.Unanswered)
		require.False(t, b.Unaffected(generation), "it ends the unanswered calls")
		b.call(breaker.Success)
		require.True(t, b.Unaffected(generation))
		b.Configure(with(func(p *breaker.Policy) { p.FailureRate, p.Window = 0.5, time.Minute }))
		require.False(t, b.Unaffected(generation), "a rate counts it")
		b.Configure(policy)
		require.True(t, b.Unaffected(generation))
		b.Reset()
		require.False(t, b.Unaffected(generation))
		b.toHalfOpen()
		require.False(t, b.Unaffected(b.admit(true)))
	})
}

// Calls that read the mirror just before a transition, and get the lock after it. They wait on
// the real clock, since a goroutine that waits for a mutex is not idle to a bubble; were one
// late, there would be nothing to see.
func TestBreaker_CallLosesToTransitionInProgress(t *testing.T) {
	t.Parallel()
	timers := schedule.New()
	defer timers.Close()
	var late sync.WaitGroup
	begin := func(f func()) {
		late.Go(f)
		time.Sleep(5 * time.Millisecond)
	}
	b := &rig{t: t}
	b.Init(&b.host, timers, with(func(p *breaker.Policy) { p.FailureThreshold, p.TrialSlots = 1, 2 }))
	halfOpen := func() {
		b.ForceOpen(time.Nanosecond, "test")
		require.Eventually(t, func() bool { return b.state() == breaker.HalfOpen }, time.Minute, time.Millisecond)
	}
	closed := b.admit(false)
	b.host.locked = func() { begin(func() { b.Record(closed, breaker.Failure, false) }) }
	b.Record(closed, breaker.Failure, false)
	late.Wait()
	require.Equal(t, uint64(1), b.Stats().Opened)

	halfOpen()
	trial, second := b.admit(true), b.admit(true)
	b.host.locked = func() {
		begin(b.Reset)
		begin(func() { b.Record(second, breaker.Failure, false) })
		begin(func() { _, _, _ = b.Admit() })
	}
	b.Record(trial, breaker.Neutral, false)
	late.Wait()
	require.Equal(t, breaker.Closed, b.state())
	require.Zero(t, b.Stats().TrialsInFlight)

	halfOpen()
	trial = b.admit(true)
	b.host.locked = func() {
		begin(func() { b.ForceOpen(time.Hour, "test") })
		begin(func() { _, _, _ = b.Admit() })
	}
	b.Record(trial, breaker.Neutral, false)
	late.Wait()
	require.Equal(t, breaker.Open, b.state())
	require.Zero(t, b.Stats().TrialsInFlight)
}

func TestCleanPath_AllocatesNothing(t *testing.T) {
	var b rig
	b.Init(&b.host, schedule.New(), policy)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		generation, _, _ := b.Admit()
		closed, ok := b.AdmitClosed()
		if !ok || closed != generation || !b.Unaffected(generation) || b.Slow(time.Hour) {
			t.Fatal("not clean")
		}
		b.Record(generation, breaker.Success, false)
	}))
}

func TestFreeTrial_GivesTheSlotBackAndTheOutcomeStillCounts(t *testing.T) {
	t.Parallel()
	bubble(t, policy, func(t *testing.T, b *rig) {
		b.toHalfOpen()
		long := b.admit(true)
		require.True(t, b.refused())
		b.FreeTrial(long)
		require.False(t, b.host.isFull())
		b.Record(b.admit(true), breaker.Success, false)
		require.Zero(t, b.Stats().TrialsInFlight)
		b.RecordFreed(long, breaker.Success, false)
		require.Equal(t, breaker.Closed, b.state())
		b.FreeTrial(long) // of an earlier generation
		require.Zero(t, b.Stats().TrialsInFlight)

		b.toHalfOpen()
		failing := b.admit(true)
		b.FreeTrial(failing)
		b.RecordFreed(failing, breaker.Failure, false)
		require.Equal(t, breaker.Open, b.state())
	})
}

func TestRecordFreed_GivesNoSlotBackOnceMore(t *testing.T) {
	t.Parallel()
	bubble(t, with(func(p *breaker.Policy) { p.TrialSlots, p.SuccessThreshold = 2, 3 }), func(t *testing.T, b *rig) {
		b.toHalfOpen()
		long, hanging := b.admit(true), b.admit(true)
		require.Equal(t, long, hanging, "of one generation")
		b.FreeTrial(long)
		require.Equal(t, 1, b.Stats().TrialsInFlight)
		b.RecordFreed(long, breaker.Success, false)
		require.Equal(t, 1, b.Stats().TrialsInFlight, "the other one")
		require.Equal(t, 1, b.Stats().TrialSuccesses)
		b.Record(hanging, breaker.Success, false)
		require.Zero(t, b.Stats().TrialsInFlight)
	})
}
