package choice_test

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/choice"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// naiveVitals are measurements in plain floating-point numbers.
type naiveVitals struct {
	latency, failing     float64
	latencyAt, failingAt time.Duration
	known                bool
}

func (n *naiveVitals) read(now, decay time.Duration) (latency, failing float64) {
	return n.latency * math.Exp(-float64(now-n.latencyAt)/float64(decay)), n.failing * math.Exp(-float64(now-n.failingAt)/float64(decay))
}

func (n *naiveVitals) end(now, took, decay time.Duration, outcome choice.Outcome) {
	latency, failing := n.read(now, decay)
	sample, w := float64(took), math.Exp(-float64(now-n.latencyAt)/float64(decay))
	switch {
	case outcome == choice.Answered && (!n.known || sample > n.latency):
		n.latency, n.latencyAt, n.known = sample, now, true
	case outcome == choice.Answered:
		n.latency, n.latencyAt = sample*(1-w)+n.latency*w, now
	case n.known && sample > latency:
		n.latency, n.latencyAt = sample, now
	}
	switch outcome {
	case choice.Answered:
		n.failing, n.failingAt = failing*0.8, now
	case choice.Failed, choice.Refused:
		n.failing, n.failingAt = failing+(1-failing)*0.2, now
	case choice.Neutral, choice.Unanswered:
	}
}

func TestVitals_AgreeWithANaiveModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 2))
		decay := time.Duration(1+random.IntN(30)) * time.Second
		now := time.Duration(random.Int64N(int64(24 * time.Hour)))
		v, track := choice.NewVitals(now, decay), &choice.Track{}
		naive := &naiveVitals{}
		for range 300 {
			now += time.Duration(random.ExpFloat64() * float64(decay) / 10)
			took := time.Duration(1 + random.ExpFloat64()*1e8)
			outcome := choice.Outcome(random.IntN(4))
			v.Begin()
			v.End(now, took, outcome, track)
			naive.end(now, took, decay, outcome)
			later := now + time.Duration(random.Int64N(int64(decay)*3))
			wantLatency, wantFailing := naive.read(later, decay)
			// Time is counted in ticks of 4.2 ms.
			slack := 0.02 + 20*4.2e-3/decay.Seconds()
			latency, failing, _ := v.Performance(later, nil)
			require.InEpsilon(t, wantLatency+1, latency+1, slack)
			require.InDelta(t, wantFailing, failing, slack)
			require.Equal(t, v.Latency(later), time.Duration(latency))
			here, failingHere, _ := v.Performance(later, track)
			require.InDelta(t, latency, here, 1e-6*latency+1e-9)
			require.InDelta(t, failing, failingHere, 1e-9)
			l, f, inFlight, score, trend := v.Measured(later, track)
			require.InDelta(t, here, l, 1e-5*here)
			require.InDelta(t, failingHere, f, 1e-9)
			require.Equal(t, []any{0.0, 1.0, health.Steady, 0}, []any{inFlight, score, trend, v.InFlight()})
		}
	}
}

func TestVitals_TrackComesBeforeWhatWasMeasuredOverall(t *testing.T) {
	t.Parallel()
	v, here, elsewhere := choice.NewVitals(time.Minute, 0), &choice.Track{}, &choice.Track{}
	_, _, measured := v.Performance(time.Minute, here)
	require.False(t, measured)
	v.Begin()
	require.Equal(t, 1, v.InFlight())
	v.End(time.Minute, 10*time.Millisecond, choice.Answered, elsewhere)
	latency, _, measured := v.Performance(time.Minute, here)
	require.True(t, measured)
	require.InDelta(t, 10e6, latency, 1)
	latency, _, _, _, _ = v.Measured(time.Minute, here)
	require.InDelta(t, 10e6, latency, 1)
	v.Begin()
	v.End(time.Minute, 500*time.Millisecond, choice.Failed, here)
	_, failing, _ := v.Performance(time.Minute, here)
	require.InDelta(t, 0.2, failing, 1e-6)
	_, failing, _ = v.Performance(time.Minute, elsewhere)
	require.Zero(t, failing)
	latency, _, _, _, _ = v.Measured(time.Minute+time.Second, nil)
	require.InDelta(t, 500e6*math.Exp(-0.1), latency, 1e6, "it fades")
	latency, _, _ = v.Performance(time.Minute+time.Hour, nil)
	require.Zero(t, latency)
}

func TestVitals_OfAnAttemptWithoutAnAnswerCountItWhereItTookLonger(t *testing.T) {
	t.Parallel()
	failing := func(took time.Duration) float64 {
		v := choice.NewVitals(0, 0)
		v.Begin()
		v.End(0, time.Second, choice.Answered, nil)
		v.Begin()
		v.End(0, took, choice.Unanswered, nil)
		_, share, _ := v.Performance(0, nil)
		return share
	}
	require.Zero(t, failing(time.Millisecond))
	require.InDelta(t, 0.2, failing(2*time.Second), 1e-6)
}

func TestVitals_HaveTheHealthAndTheReturnOfTheProvider(t *testing.T) {
	t.Parallel()
	v := choice.NewVitals(time.Second, time.Minute)
	score, trend := v.Health()
	require.Equal(t, []any{1.0, health.Steady, time.Second}, []any{score, trend, v.ReadyAt()})
	v.SetHealth(0.5, health.AtRisk)
	v.Ready(time.Hour)
	score, trend = v.Health()
	require.Equal(t, []any{0.5, health.AtRisk, time.Hour}, []any{score, trend, v.ReadyAt()})
}

func TestCursor_GivesEachTurnOnce(t *testing.T) {
	t.Parallel()
	c := choice.NewCursor(7)
	require.EqualValues(t, 7, c.Seed())
	c.Skip(3)
	var taken sync.Map
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			_, before := taken.LoadOrStore(c.Take(), true)
			require.False(t, before)
		})
	}
	all.Wait()
	require.EqualValues(t, 11, c.Turns())
	require.EqualValues(t, 11, c.Take())
	c.State().Store("kept")
	require.Equal(t, "kept", c.State().Load())
}

func TestMix_SpreadsNeighbours(t *testing.T) {
	t.Parallel()
	seen := make(map[uint64]bool)
	for i := range uint64(1000) {
		seen[choice.Mix(i)>>48] = true
	}
	require.Greater(t, len(seen), 900)
	// The first numbers of SplitMix64 for the seed 1234567.
	x := uint64(1234567)
	for _, want := range []uint64{6457827717110365317, 3203168211198807973, 9817491932198370423} {
		x += 0x9e3779b97f4a7c15
		require.Equal(t, want, choice.Mix(x))
	}
}

func TestVitals_GoOnFromMeasurementsOfBefore(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		age, latency time.Duration
		failing      float64
	}{
		"at once":       {0, time.Second, 0.5},
		"not yet":       {-time.Minute, time.Second, 0.5},
		"after a decay": {choice.DefaultDecay, 368 * time.Millisecond, 0.184},
		"little left":   {5 * choice.DefaultDecay, 0, 0},
		"long ago":      {math.MaxInt64, 0, 0},
	} {
		v := choice.NewVitals(0, 0)
		v.Continue(time.Second, row.age, time.Second, 0.5)
		latency, failing, measured := v.Performance(time.Second, nil)
		require.InDelta(t, float64(row.latency), latency, float64(2*time.Millisecond), name)
		require.InDelta(t, row.failing, failing, 0.001, name)
		require.Equal(t, row.latency > 0, measured, name)
	}
	v := choice.NewVitals(0, 0)
	v.Begin()
	v.End(time.Second, time.Millisecond, choice.Answered, nil)
	v.Continue(time.Second, 0, time.Second, 0)
	require.InDelta(t, float64(time.Millisecond), float64(v.Latency(time.Second)), 1000, "its own attempt tells more")
}
