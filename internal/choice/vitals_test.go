package choice_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/choice"
)

// tick is the unit in which measurements have ages, in nanoseconds.
const tick = 1 << 22

// measured returns vitals with a decay of a thousand ticks that have seen one failure and then one answer of a second.
func measured(now time.Duration) *choice.Vitals {
	v := choice.NewVitals(0, 1000*tick)
	for _, outcome := range []choice.Outcome{choice.Failed, choice.Answered} {
		v.Begin()
		v.End(now, time.Second, outcome, nil)
	}
	return v
}

func TestVitals_FadeByTheExponentialOfTheirAge(t *testing.T) {
	t.Parallel()
	start := time.Duration(500 * tick)
	v := measured(start)
	for ticks := range time.Duration(20_000) {
		x := float64(ticks) / 1000
		left, slack := math.Exp(-x), 3.2e-6+x*2e-7 // of the series and of rounding, and of x itself
		latency, failing, _ := v.Performance(start+ticks*tick, nil)
		require.InEpsilon(t, 1e9*left, latency, slack, ticks)
		require.InEpsilon(t, 0.16*left, failing, slack, ticks)
		atOnce, failingAtOnce, _, _, _ := v.Measured(start+ticks*tick, nil)
		require.InEpsilon(t, latency, atOnce, 1e-6, ticks)
		require.InEpsilon(t, failing, failingAtOnce, 1e-6, ticks)
	}
	latency, failing, known := v.Performance(start+100_000*tick, nil)
	require.Equal(t, []any{0.0, 0.0, true}, []any{latency, failing, known}, "nothing is left")
}

func TestVitals_AreWholeForAReaderWhoseClockIsBehind(t *testing.T) {
	t.Parallel()
	v := measured(500 * tick)
	latency, failing, _ := v.Performance(400*tick, nil)
	require.InDelta(t, 1e9, latency, 1)
	require.InDelta(t, 0.16, failing, 1e-6)
	latency, failing, _, _, _ = v.Measured(400*tick, nil)
	require.InDelta(t, 1e9, latency, 1)
	require.InDelta(t, 0.16, failing, 1e-6)
	v.Begin()
	v.End(400*tick, time.Millisecond, choice.Answered, nil)
	require.InDelta(t, time.Second, v.Latency(500*tick), 1, "a shorter sample moves a fresh value by nothing")
}

func TestVitals_ShareOfFailuresIsZeroOnceItIsTiny(t *testing.T) {
	t.Parallel()
	v := choice.NewVitals(0, 0)
	share := func() float64 { _, failing, _ := v.Performance(0, nil); return failing }
	end := func(outcome choice.Outcome) { v.Begin(); v.End(0, time.Second, outcome, nil) }
	end(choice.Refused)
	for range 30 {
		require.Greater(t, share(), 1.0/4096)
		end(choice.Answered)
	}
	end(choice.Answered)
	require.Zero(t, share())
	end(choice.Neutral)
	require.Zero(t, share())
}

func TestVitals_OfATrackAreItsOwnOnceItHasAny(t *testing.T) {
	t.Parallel()
	v, here := choice.NewVitals(0, 0), &choice.Track{}
	for _, track := range []*choice.Track{nil, here} {
		v.Begin()
		v.End(0, 10*time.Millisecond, choice.Failed, track)
	}
	v.Begin()
	v.End(0, 0, choice.Answered, nil)
	latency, failing, known := v.Performance(0, here)
	require.True(t, known)
	require.Zero(t, latency, "a track without an answer has a share of failures alone")
	require.InDelta(t, 0.2, failing, 1e-6)
	latency, failing, inFlight, _, _ := v.Measured(0, here)
	require.Zero(t, latency)
	require.InDelta(t, 0.2, failing, 1e-6)
	require.Zero(t, inFlight)
	latency, failing, known = v.Performance(0, nil)
	require.True(t, known)
	require.InDelta(t, 1, latency, 0, "no duration is counted as a nanosecond")
	require.InDelta(t, 0.288, failing, 1e-6)
	latency, failing, _, _, _ = v.Measured(0, nil)
	require.InDelta(t, 1, latency, 0)
	require.InDelta(t, 0.288, failing, 1e-6)
}

func TestVitals_WithoutMeasurementsHaveNone(t *testing.T) {
	t.Parallel()
	v := choice.NewVitals(0, 0)
	v.Continue(time.Second, 0, 0, 0)
	_, _, known := v.Performance(time.Second, nil)
	require.False(t, known, "what was not measured before is not measured now")
	v.SetHealth(0.25, health.AtRisk)
	latency, failing, inFlight, score, trend := v.Measured(time.Second, &choice.Track{})
	require.Equal(t, []any{0.0, 0.0, 0.0, 0.25, health.AtRisk}, []any{latency, failing, inFlight, score, trend})
}

func TestVitals_OfAnAttemptWithoutAnAnswerAreComparedWithWhatIsLeft(t *testing.T) {
	t.Parallel()
	share := func(took time.Duration) float64 {
		v := choice.NewVitals(0, 1000*tick)
		v.Begin()
		v.End(0, time.Second, choice.Answered, nil)
		v.Begin()
		v.End(1000*tick, took, choice.Unanswered, nil) // 368 ms are left
		_, failing, _ := v.Performance(1000*tick, nil)
		return failing
	}
	require.Zero(t, share(360*time.Millisecond))
	require.InDelta(t, 0.2, share(380*time.Millisecond), 1e-6)
}
