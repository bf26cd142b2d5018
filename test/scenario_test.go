package test_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// outageOfThePrimary calls every four seconds while the primary fails for a
// minute, and asserts that no call fails, that the primary is asked at most so
// often meanwhile, and that it serves again half a minute after its recovery.
func outageOfThePrimary(t *testing.T, phase time.Duration, failure error, atMost int) {
	t.Helper()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		began := time.Now()
		failsFrom, failsUntil := began.Add(20*time.Second), began.Add(80*time.Second)
		attempts, servedAgain := 0, time.Time{}
		testkit.Add(t, reg, testkit.Provider{Name: "primary", Instance: testkit.Answers(func() (string, error) {
			now := time.Now()
			switch {
			case now.Before(failsFrom):
			case now.Before(failsUntil):
				attempts++
				return "", failure
			case servedAgain.IsZero():
				servedAgain = now
			}
			return "primary", nil
		})})
		testkit.Add(t, reg, testkit.Provider{Name: "backup", Group: 1})
		r := testkit.Bind(reg)
		time.Sleep(phase)
		for range 40 {
			testkit.MustAsk(t, r)
			time.Sleep(4 * time.Second)
		}
		require.LessOrEqual(t, attempts, atMost)
		require.False(t, servedAgain.IsZero())
		require.LessOrEqual(t, servedAgain.Sub(failsUntil), 30*time.Second)
	})
}

func TestScenario_UnavailablePrimaryGoesUnnoticed(t *testing.T) {
	t.Parallel()
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for i := range 100 {
		phase := rand.N(4 * time.Second)
		t.Run(fmt.Sprint(i, " ", phase), func(t *testing.T) {
			t.Parallel()
			outageOfThePrimary(t, phase, testkit.StatusError{Code: 503}, 6) // a failure as any other: the breaker finds out
			outageOfThePrimary(t, phase, fmt.Errorf("post: %w", refused), 6)
		})
	}
}

func TestScenario_RateLimitedPrimaryIsTriedOnce(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		primary := testkit.Add(t, reg, testkit.Provider{Name: "primary", Instance: testkit.Fails(testkit.StatusError{Code: 429, After: 30 * time.Second})})
		testkit.Add(t, reg, testkit.Provider{Name: "backup", Group: 1})
		for range 100 {
			require.Equal(t, "backup", testkit.MustAsk(t, testkit.Bind(reg)))
			time.Sleep(100 * time.Millisecond)
		}
		testkit.RequireCounts(t, primary, 0, 0, 0, 1)
		require.Equal(t, status.BreakerClosed, primary.Breaker().State)
		require.Zero(t, primary.Breaker().ConsecutiveFailures)
	})
}

// Every row of the table, through a call: what the next provider, the breaker,
// the cooldown and the counts see of it.
func TestScenario_EveryVerdictRowHoldsForCalls(t *testing.T) {
	t.Parallel()
	for _, class := range verdict.Classes() {
		for _, once := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, once only %v", class, once), func(t *testing.T) {
				t.Parallel()
				requireRow(t, class, once)
			})
		}
	}
}

func requireRow(t *testing.T, class verdict.Class, once bool) {
	t.Helper()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		rule := class.Rule()
		a := testkit.Add(t, reg, testkit.Provider{
			Name: "a", Window: 10, Instance: testkit.Fails(verdict.As(testkit.ErrDown, verdict.Verdict{Class: class})),
			Breaker: registry.BreakerPolicy{FailureThreshold: 2},
		})
		smaller := testkit.Add(t, reg, testkit.Provider{Name: "smaller", Window: 5})
		larger := testkit.Add(t, reg, testkit.Provider{Name: "larger", Window: 20})
		var options []registry.CallOption
		if once {
			options = append(options, registry.OnceOnly())
		}
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg), options...)

		asked := func(r *registry.Registration) bool { return r.Info().Attempts > 0 }
		switch rule.Next {
		case verdict.NextNo, verdict.NextWhenAllowed:
			require.False(t, asked(smaller) || asked(larger))
		case verdict.NextLargerWindow:
			require.False(t, asked(smaller))
			require.Equal(t, !once || rule.OnceMovesOn, asked(larger))
		case verdict.NextYes, verdict.NextFree, verdict.NextBeforeFirstItem, verdict.NextByOption:
			require.Equal(t, !once || rule.OnceMovesOn, asked(smaller))
		}
		require.Equal(t, !asked(smaller) && !asked(larger), err != nil)

		blamed := rule.Blame == verdict.BlameFailure
		require.Equal(t, blamed, a.Breaker().ConsecutiveFailures == 1, "blame")
		counts := map[verdict.Tally][]int{
			verdict.TallySuccess: {1, 0, 0, 0}, verdict.TallyFailure: {0, 1, 0, 0},
			verdict.TallyIgnored: {0, 0, 1, 0}, verdict.TallyNone: {0, 0, 1, 0}, verdict.TallyLimited: {0, 0, 0, 1},
		}[rule.Tally]
		testkit.RequireCounts(t, a, counts[0], counts[1], counts[2], counts[3])

		cools := time.Until(a.Info().Cooldown.Until)
		bounds := map[verdict.Cooldown][2]time.Duration{
			verdict.CooldownShort: {4 * time.Second, 5 * time.Second}, verdict.CooldownAsked: {1600 * time.Millisecond, 2 * time.Second},
			verdict.CooldownModel: {48 * time.Second, time.Minute}, verdict.CooldownLong: {4 * time.Minute, 5 * time.Minute},
		}
		if bound, ok := bounds[rule.Cooldown]; ok {
			require.GreaterOrEqual(t, cools, bound[0])
			require.LessOrEqual(t, cools, bound[1])
		} else {
			require.Zero(t, a.Info().Cooldown.Until)
		}
	})
}
