package model_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/capreg/registry"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// upstream answers each call after some time, whichever provider is asked.
type upstream struct {
	usual time.Duration
	each  []time.Duration // of single calls; negative: it hangs
	from  int             // the first of those
}

func (u upstream) takes(call int) time.Duration {
	if at := call - u.from; at >= 0 && at < len(u.each) {
		return u.each[at]
	}
	return u.usual
}

// cutCase is a sequence of calls, one after the other, with a deadline each.
type cutCase struct {
	providers        []upstream
	deadline         time.Duration
	provider, option time.Duration // timeouts that are given; zero: none
	threshold        int
	calls            int
}

// ask makes the calls at the first providers, and returns which were answered, the attempts of each, and the
// providers at the end.
func (c cutCase) ask(t *testing.T, providers int) (answered []bool, attempts [][]registry.Attempt, handles []registry.Info) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		reg, err := registry.New(registry.Options{})
		require.NoError(t, err)
		service := registry.NewService[int]("cut")
		for i := range providers {
			_, err := service.Register(t.Context(), reg, registry.Provider[int]{
				Name: string(rune('a' + i)), Instance: i, Group: i, AttemptTimeout: c.provider,
				Breaker: registry.BreakerPolicy{FailureThreshold: c.threshold, RecoveryTimeout: 24 * time.Hour},
			})
			require.NoError(t, err)
		}
		resolver := service.Bind(reg, registry.Query{})
		var options []registry.CallOption
		if c.option > 0 {
			options = append(options, registry.AttemptTimeout(c.option))
		}
		for call := range c.calls {
			ctx, cancel := context.WithTimeout(t.Context(), c.deadline)
			var report registry.CallReport
			began := time.Now()
			_, err := registry.Call(ctx, resolver, func(ctx context.Context, i int) (int, error) {
				takes := c.providers[i].takes(call)
				if takes < 0 {
					<-ctx.Done()
					return 0, ctx.Err()
				}
				select {
				case <-time.After(takes):
					return i, nil
				case <-ctx.Done():
					return 0, ctx.Err()
				}
			}, append(options, registry.ReportTo(&report))...)
			require.LessOrEqual(t, time.Since(began), c.deadline)
			cancel()
			answered = append(answered, err == nil)
			attempts = append(attempts, report.Attempts)
		}
		for info := range reg.All() {
			handles = append(handles, info)
		}
		require.NoError(t, reg.Close(t.Context()))
	})
	return answered, attempts, handles
}

func count(answered []bool) (n int) {
	for _, yes := range answered {
		n += number(yes)
	}
	return n
}

// drawCut draws a case with providers that are alike, and at least that threshold. The answers take less than the default
// timeout, and some nanoseconds more than a part of the deadline: an answer at the very moment of a deadline is in time
// or not, as its goroutine is scheduled.
func drawCut(rt *rapid.T, least int) cutCase {
	c := cutCase{
		deadline:  time.Duration(rapid.IntRange(1, 30).Draw(rt, "deadline")) * time.Second,
		threshold: rapid.IntRange(least, 6).Draw(rt, "threshold"), calls: 25,
	}
	usual := time.Duration(rapid.IntRange(1, 99).Draw(rt, "share of the deadline"))*c.deadline/100 + 7
	c.providers = []upstream{{usual: usual}, {usual: usual}, {usual: usual}}
	return c
}

// A backup that is as good as the first costs no call of those with a timeout that was given, and of the others at most
// one for each provider, which has never answered then; none is blamed. A threshold must be higher than the number of
// providers for that, since each of them may have to be found slow first.
func TestCuts_BackupLosesNoCall(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		c := drawCut(rt, 4)
		given := rapid.IntRange(0, 2).Draw(rt, "given")
		long := max(c.providers[0].usual+time.Second, c.deadline*time.Duration(rapid.IntRange(10, 30).Draw(rt, "timeout"))/10)
		switch given {
		case 1:
			c.provider = long
		case 2:
			c.option = long
		}
		alone, _, _ := c.ask(t, 1)
		require.Equal(rt, c.calls, count(alone))
		providers := rapid.IntRange(2, 3).Draw(rt, "providers")
		all, _, handles := c.ask(t, providers)
		lost := 0
		if given == 0 {
			lost = providers
		}
		require.GreaterOrEqual(rt, count(all), c.calls-lost, "%+v", c)
		for _, info := range handles {
			require.Equal(rt, status.BreakerClosed, info.Breaker.State, info.Name)
			require.Zero(rt, info.Failures, info.Name)
		}
	})
}

// One that hangs from some call on is found out within its threshold, and is asked no more. Where the backup needs a
// fifth of the time at most, no call is lost if it has hung from the first one on. If it has answered before, it has
// the time of its answers twice, when it first hangs and before its breaker opens, which may leave the backup too little.
func TestCuts_FindOutOneThatHangs(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		c := drawCut(rt, 2)
		c.providers[0].from = rapid.IntRange(0, 5).Draw(rt, "hangs from")
		for range c.calls {
			c.providers[0].each = append(c.providers[0].each, -1)
		}
		c.providers[1].usual = max(1, c.deadline*time.Duration(rapid.IntRange(0, 20).Draw(rt, "backup's share"))/100)
		answered, attempts, handles := c.ask(t, 2)
		require.Equal(rt, status.BreakerOpen, handles[0].Breaker.State, "%+v", c)
		require.Zero(rt, handles[1].Failures)
		cuts := 0
		for _, a := range slices.Concat(attempts[c.providers[0].from:]...) {
			if a.Provider == "a" && a.Class != verdict.ClassSuccess {
				require.Contains(rt, []verdict.Class{verdict.ClassCut, verdict.ClassCallerDeadline, verdict.ClassAttemptTimeout}, a.Class)
				cuts++
			}
		}
		require.LessOrEqual(rt, cuts, c.threshold, "%+v", c)
		lost := 2
		if c.providers[0].from == 0 {
			lost = 0
		}
		require.GreaterOrEqual(rt, count(answered), c.calls-lost, "%+v", c)
	})
}
