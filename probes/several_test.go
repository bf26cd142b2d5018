package probes_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/probes"
)

var errSlow = errors.New("slow")

func well(context.Context) error { return nil }

func down(context.Context) error { return errDown }

func limping(context.Context) error { return health.Limp(errSlow) }

func panics(context.Context) error { panic("boom") }

func exits(context.Context) error { runtime.Goexit(); return nil }

// after answers after a time, or when its context ends with the cause of that.
func after(d time.Duration, probe health.Probe) health.Probe {
	return func(ctx context.Context) error {
		select {
		case <-time.After(d):
			return probe(ctx)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// broken is an error whose method fails.
type broken struct{ fail func() }

func (b broken) Error() string { b.fail(); return "" }

func (b broken) probe(context.Context) error { return b }

type named = map[string]health.Probe

func TestAllAndAny_Results(t *testing.T) {
	t.Parallel()
	const fine = ""
	for name, test := range map[string]struct {
		named    named
		all, any string // the error
		allLimps bool
		anyLimps bool
	}{
		"none":             {named{}, fine, "no probes", false, false},
		"one that is well": {named{"a": well}, fine, fine, false, false},
		"all well":         {named{"a": well, "b": well}, fine, fine, false, false},
		"one fails":        {named{"a": well, "b": down}, "b: down", fine, false, false},
		"one limps":        {named{"a": well, "b": limping}, "b: slow", fine, true, false},
		"all limp":         {named{"b": limping, "a": limping}, "a: slow; b: slow", "a: slow; b: slow", true, true},
		"all fail":         {named{"c": down, "b": down, "a": down}, "a: down; b: down; c: down", "a: down; b: down; c: down", false, false},
		"fails and limps":  {named{"a": limping, "b": down}, "b: down", "a: slow; b: down", false, true},
		"all there is":     {named{"a": limping, "b": down, "c": well}, "b: down", fine, false, false},
		"panics":           {named{"a": panics}, "a: the probe panicked: boom", "a: the probe panicked: boom", false, false},
		"panics beside":    {named{"a": panics, "b": well}, "a: the probe panicked: boom", fine, false, false},
		"exits": {
			named{"a": exits, "b": down},
			"a: the probe ended its goroutine (runtime.Goexit); b: down", "a: the probe ended its goroutine (runtime.Goexit); b: down", false, false,
		},
		"exits beside": {named{"a": exits, "b": well}, "a: the probe ended its goroutine (runtime.Goexit)", fine, false, false},
		"panics with a limp": {
			named{"a": func(context.Context) error { panic(health.Limp(errSlow)) }},
			"a: the probe panicked: slow", "a: the probe panicked: slow", false, false,
		},
		"an error that panics": {named{"a": broken{func() { panic("boom") }}.probe}, "a: the probe panicked: boom", "a: the probe panicked: boom", false, false},
		"an error that exits": {
			named{"a": broken{runtime.Goexit}.probe},
			"a: the probe ended its goroutine (runtime.Goexit)", "a: the probe ended its goroutine (runtime.Goexit)", false, false,
		},
		"nil":       {named{"a": nil}, "a: no probe", "a: no probe", false, false},
		"two lines": {named{"a\nb": func(context.Context) error { return errors.New("c\nd") }}, "a b: c d", "a b: c d", false, false},
		"in groups": {
			named{"one": probes.All(named{"a": well, "b": down}), "two": probes.Any(named{"c": limping, "d": down})},
			"one: b: down", "one: b: down; two: c: slow; d: down", false, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check := func(err error, text string, limps bool) {
				t.Helper()
				if text == fine {
					require.NoError(t, err)
					return
				}
				requireLine(t, err)
				require.EqualError(t, err, text)
				require.Equal(t, limps, health.IsLimp(err))
				require.Equal(t, strings.Contains(text, "down"), errors.Is(err, errDown))
			}
			all, anyOf := probes.All(test.named), probes.Any(test.named)
			clear(test.named) // it was copied
			check(all(t.Context()), test.all, test.allLimps)
			check(anyOf(t.Context()), test.any, test.anyLimps)
		})
	}
}

func TestAll_RunsConcurrentlyAndWaitsForEach(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		err := probes.All(named{"a": after(3*time.Second, well), "b": down, "c": after(2*time.Second, down)})(t.Context())
		require.EqualError(t, err, "b: down; c: down")
		require.Equal(t, 3*time.Second, time.Since(began))
	})
}

func TestAll_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errSlow)
		defer cancel()
		err := probes.All(named{"a": after(time.Hour, well), "b": well})(ctx)
		require.EqualError(t, err, "a: slow")
		require.ErrorIs(t, err, errSlow)
	})
}

func TestAny_HealthyProbeEndsTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		ended := false
		slow := func(ctx context.Context) error {
			err := after(time.Hour, well)(ctx)
			time.Sleep(time.Second)
			ended = true
			return err
		}
		err := probes.Any(named{"a": down, "b": limping, "c": slow, "d": after(2*time.Second, well), "e": panics})(t.Context())
		require.NoError(t, err)
		require.Equal(t, 3*time.Second, time.Since(began))
		require.True(t, ended)
	})
}

func TestAny_WaitsForAHealthyProbeDespiteADegradedOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		require.NoError(t, probes.Any(named{"a": limping, "b": after(time.Minute, well)})(t.Context()))
		require.Equal(t, time.Minute, time.Since(began))
	})
}

func TestAny_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := probes.Any(named{"a": after(time.Hour, well), "b": down})(ctx)
		require.EqualError(t, err, "a: context deadline exceeded; b: down")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, errDown)
	})
}

func TestAllAndAny_ReportUsage(t *testing.T) {
	t.Parallel()
	uses := func(share float64, then health.Probe) health.Probe {
		return func(ctx context.Context) error {
			health.Use(ctx, "memory", share)
			health.Use(ctx, fmt.Sprint("disk ", share), share)
			return then(ctx)
		}
	}
	type usage = map[string]float64
	for name, test := range map[string]struct {
		probe health.Probe
		want  usage
	}{
		"the highest of all":    {probes.All(named{"a": uses(0.1, well), "b": uses(0.9, down), "c": uses(0.5, well)}), usage{"memory": 0.9, "disk 0.1": 0.1, "disk 0.9": 0.9, "disk 0.5": 0.5}},
		"of the one well":       {probes.Any(named{"a": uses(0.9, after(time.Hour, well)), "b": uses(0.5, well), "c": uses(0.7, limping)}), usage{"memory": 0.5, "disk 0.5": 0.5}},
		"of those that limp":    {probes.Any(named{"a": uses(0.9, down), "b": uses(0.5, limping), "c": uses(0.7, limping)}), usage{"memory": 0.7, "disk 0.5": 0.5, "disk 0.7": 0.7}},
		"of all when none is":   {probes.Any(named{"a": uses(0.9, down), "b": uses(0.5, panics)}), usage{"memory": 0.9, "disk 0.9": 0.9, "disk 0.5": 0.5}},
		"of one within another": {probes.Any(named{"a": probes.All(named{"b": uses(0.5, well)})}), usage{"memory": 0.5, "disk 0.5": 0.5}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				told := make(usage) // without a lock: the goroutine of the probe reports all
				_ = test.probe(health.WithUse(t.Context(), func(resource string, share float64) { told[resource] = share }))
				require.Equal(t, test.want, told)
			})
		})
	}
}

func TestWithTimeout_LateAnswerIsAFailure(t *testing.T) {
	t.Parallel()
	// deaf ignores its context.
	deaf := func(d time.Duration, then health.Probe) health.Probe {
		return func(ctx context.Context) error { time.Sleep(d); return then(ctx) }
	}
	for name, test := range map[string]struct {
		probe   health.Probe
		timeout time.Duration
		text    string
		late    bool
		takes   time.Duration
	}{
		"well in time":   {after(time.Second, well), 2 * time.Second, "", false, time.Second},
		"fails in time":  {after(time.Second, down), 2 * time.Second, "down", false, time.Second},
		"limps in time":  {after(time.Second, limping), 2 * time.Second, "slow", false, time.Second},
		"late":           {after(time.Hour, well), 2 * time.Second, "no answer within 2s: context deadline exceeded", true, 2 * time.Second},
		"well, but late": {deaf(3*time.Second, well), 2 * time.Second, "no answer within 2s", true, 3 * time.Second},
		"limps late":     {deaf(3*time.Second, limping), 2 * time.Second, "no answer within 2s", true, 3 * time.Second},
		"fails late":     {deaf(3*time.Second, down), 2 * time.Second, "no answer within 2s: down", true, 3 * time.Second},
		"no time at all": {well, 0, "no answer within 0s", true, 0},
		"less than none": {well, -time.Second, "no answer within -1s", true, 0},
		"no probe":       {nil, time.Second, "no probe", false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				err := probes.WithTimeout(test.probe, test.timeout)(t.Context())
				require.Equal(t, test.takes, time.Since(began))
				if test.text == "" {
					require.NoError(t, err)
					return
				}
				require.EqualError(t, err, test.text)
				require.Equal(t, test.late, errors.Is(err, context.DeadlineExceeded))
				require.Equal(t, name == "limps in time", health.IsLimp(err))
				require.Equal(t, strings.HasSuffix(test.text, "down"), errors.Is(err, errDown))
			})
		})
	}
}

func TestWithTimeout_EndOfTheOuterContextIsNoTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errSlow)
		defer cancel()
		err := probes.WithTimeout(after(time.Hour, well), time.Minute)(ctx)
		require.ErrorIs(t, err, errSlow)
		require.EqualError(t, err, "slow")
	})
}

// One of several can be out: all need it, and any other may do in its place.
func TestAll_IsOutWithOneOfThem(t *testing.T) {
	t.Parallel()
	gone := func(context.Context) error { return fmt.Errorf("node: %w", health.Out(errors.New("draining"))) }
	down := func(context.Context) error { return errors.New("down") }
	limps := func(context.Context) error { return health.Limp(errors.New("slow")) }
	require.True(t, health.IsOut(probes.All(map[string]health.Probe{"a": gone, "b": down})(t.Context())))
	require.True(t, health.IsOut(probes.Any(map[string]health.Probe{"a": gone, "b": gone})(t.Context())))
	for _, other := range []health.Probe{down, limps} {
		err := probes.Any(map[string]health.Probe{"a": gone, "b": other})(t.Context())
		require.False(t, health.IsOut(err))
		require.ErrorContains(t, err, "a: node: draining")
	}
	require.True(t, health.IsOut(probes.WithTimeout(gone, time.Hour)(t.Context())))
}
