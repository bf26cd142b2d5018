package health_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"testing"
	"testing/quick"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/health"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errCause = errors.New("cause")

func TestStateAndTrend_MarshalAsTheirNames(t *testing.T) {
	t.Parallel()
	states := []health.State{health.Unknown, health.Starting, health.Healthy, health.Degraded, health.Unhealthy, health.Draining}
	text, err := json.Marshal(states)
	require.NoError(t, err)
	require.JSONEq(t, `["unknown","starting","healthy","degraded","unhealthy","draining"]`, string(text))
	var back []health.State
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, states, back)
	trends := []health.Trend{health.Steady, health.Degrading, health.AtRisk}
	text, err = json.Marshal(trends)
	require.NoError(t, err)
	require.JSONEq(t, `["steady","degrading","at risk"]`, string(text))
	var trendsBack []health.Trend
	require.NoError(t, json.Unmarshal(text, &trendsBack))
	require.Equal(t, trends, trendsBack)
	require.Equal(t, "state(9) trend(9)", fmt.Sprint(health.State(9), health.Trend(9)))
	require.Error(t, new(health.State).UnmarshalText([]byte("fine")))
	require.Error(t, new(health.Trend).UnmarshalText([]byte("up")))
}

func TestScore_IsTheProductOfItsFactors(t *testing.T) {
	t.Parallel()
	well := health.Facts{Known: true, Fall: 3}
	for _, c := range []struct {
		name   string
		change func(*health.Facts)
		score  float64
	}{
		{"as it should be", func(*health.Facts) {}, 1},
		{"no result", func(f *health.Facts) { f.Known = false }, 0},
		{"one of three failures", func(f *health.Facts) { f.Failures = 1 }, 2.0 / 3},
		{"three of three failures", func(f *health.Facts) { f.Failures = 3 }, 0},
		{"more failures than that", func(f *health.Facts) { f.Failures = 9 }, 0},
		{"a limp", func(f *health.Facts) { f.Limps = true }, 0.5},
		{"as expected", func(f *health.Facts) { f.Took, f.Expected = time.Second, time.Second }, 1},
		{"half slower", func(f *health.Facts) { f.Took, f.Expected = 1500*time.Millisecond, time.Second }, 0.8},
		{"three times slower", func(f *health.Facts) { f.Took, f.Expected = 3*time.Second, time.Second }, 0.4},
		{"slow, without an expectation", func(f *health.Facts) { f.Took = time.Hour }, 1},
		{"much in use", func(f *health.Facts) { f.Usage = 0.8 }, 1},
		{"too much in use", func(f *health.Facts) { f.Usage = 0.88 }, 0.8},
		{"all in use", func(f *health.Facts) { f.Usage = 1 }, 0.5},
		{"one capability of four out", func(f *health.Facts) { f.Out, f.Checked = 1, 4 }, 0.75},
		{"several things", func(f *health.Facts) { f.Limps, f.Usage, f.Out, f.Checked = true, 1, 1, 2 }, 0.125},
	} {
		facts := well
		c.change(&facts)
		require.InDelta(t, c.score, health.Score(facts), 1e-9, c.name)
	}
}

func TestScore_StaysWithinItsBounds(t *testing.T) {
	t.Parallel()
	require.NoError(t, quick.Check(func(failures, fall uint8, limps bool, took, expected int64, usage float64, out uint8) bool {
		score := health.Score(health.Facts{
			Known: true, Failures: int(failures), Fall: int(fall), Limps: limps,
			Took: time.Duration(took), Expected: time.Duration(expected), Usage: math.Abs(math.Mod(usage, 1)), Out: int(out), Checked: 255,
		})
		return score >= 0 && score <= 1
	}, nil))
}

func TestIsLimp_FindsWrappedErrors(t *testing.T) {
	t.Parallel()
	require.NoError(t, health.Limp(nil))
	limp := health.Limp(errCause)
	require.ErrorIs(t, limp, errCause)
	require.Equal(t, "cause", limp.Error())
	require.True(t, health.IsLimp(fmt.Errorf("around: %w", limp)))
	require.False(t, health.IsLimp(errCause))
	require.False(t, health.IsLimp(nil))
}

func TestIsOut_FindsWrappedErrors(t *testing.T) {
	t.Parallel()
	require.NoError(t, health.Out(nil))
	require.True(t, health.IsOut(fmt.Errorf("around: %w", health.Out(errCause))))
	require.ErrorIs(t, health.Out(errCause), errCause)
	require.False(t, health.IsOut(errCause))
	require.False(t, health.IsOut(health.Limp(errCause)))
}

// looped is an error that wraps itself.
type looped struct{}

func (looped) Error() string { return "looped" }

func (looped) Unwrap() error { return looped{} }

func TestIsLimpAndIsOut_EndOnAnErrorThatWrapsItself(t *testing.T) {
	t.Parallel()
	require.False(t, health.IsLimp(looped{}))
	require.False(t, health.IsOut(looped{}))
	require.True(t, health.IsLimp(health.Limp(looped{})))
	require.True(t, health.IsOut(health.Out(looped{})))
}

func TestUse_CallsTheNoteOfTheContext(t *testing.T) {
	t.Parallel()
	health.Use(t.Context(), "cpu", 0.5) // no note in the context
	told := make(map[string]float64)
	ctx := health.WithUse(t.Context(), func(resource string, share float64) { told[resource] = share })
	probe := health.Probe(func(ctx context.Context) error {
		health.Use(ctx, "cpu", 0.5)
		health.Use(ctx, "memory", 7)
		health.Use(ctx, "disk", -1)
		return nil
	})
	require.NoError(t, probe(ctx))
	require.Equal(t, map[string]float64{"cpu": 0.5, "memory": 1, "disk": 0}, told)
}

func ExampleScore() {
	fmt.Printf("%.2f\n", health.Score(health.Facts{Known: true, Failures: 1, Fall: 3}))
	fmt.Printf("%.2f\n", health.Score(health.Facts{Known: true, Took: 2 * time.Second, Expected: time.Second}))
	// Output:
	// 0.67
	// 0.60
}
