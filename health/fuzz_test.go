package health_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/health"
)

func FuzzState_RoundTrips(f *testing.F) {
	for _, text := range []string{"healthy", "degraded", "unhealthy", "unknown", "starting", "draining", "steady", "degrading", "at risk", "", "state(9)", "Healthy"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		state, trend := health.Degraded, health.Degrading
		if err := state.UnmarshalText([]byte(text)); err != nil {
			require.Equal(t, health.Degraded, state, "nothing is changed")
		} else {
			require.Equal(t, text, state.String())
		}
		if err := trend.UnmarshalText([]byte(text)); err != nil {
			require.Equal(t, health.Degrading, trend, "nothing is changed")
		} else {
			require.Equal(t, text, trend.String())
		}
	})
}

// A score is from 0 to 1, and never better for more failures.
func FuzzScore(f *testing.F) {
	f.Add(true, 0, 3, false, int64(0), int64(0), 0.0, 0, 0)
	f.Add(true, 1, 0, true, int64(3), int64(2), 0.93, 1, 2)
	f.Add(false, -1, -1, false, int64(-5), int64(5), -1.0, -1, -1)
	f.Fuzz(func(t *testing.T, known bool, failures, fall int, limps bool, took, expected int64, usage float64, out, checked int) {
		if failures < 0 || fall < 0 || took < 0 || expected < 0 || !(usage >= 0 && usage <= 1) || out < 0 || out > checked {
			t.Skip("no registry makes such facts")
		}
		facts := health.Facts{
			Known: known, Failures: failures, Fall: fall, Limps: limps, Took: time.Duration(took), Expected: time.Duration(expected),
			Usage: usage, Out: out, Checked: checked,
		}
		score := health.Score(facts)
		require.True(t, score >= 0 && score <= 1, "%v of %+v", score, facts)
		worse := facts
		worse.Failures = failures/2 + 1
		if failures == 0 {
			require.LessOrEqual(t, health.Score(worse), max(score, 1-1/float64(max(fall, 1))), "%+v", facts)
		}
	})
}
