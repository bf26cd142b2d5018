package registry_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
	"github.com/capreg/registry/verdict"
)

// aware are the strategies that look at load or latency.
func aware() []selection.Strategy {
	return []selection.Strategy{selectors.LeastLoaded(), selectors.LatencyAware(), selectors.Scored()}
}

// wayToAsk is a kind of call.
type wayToAsk func(ctx context.Context, r *registry.Resolver[testkit.ChatModel]) error

func waysToAsk() map[string]wayToAsk {
	call := func(options ...registry.CallOption) wayToAsk {
		return func(ctx context.Context, r *registry.Resolver[testkit.ChatModel]) error {
			_, err := testkit.Ask(ctx, r, options...)
			return err
		}
	}
	return map[string]wayToAsk{
		"call": call(), "once-only": call(registry.OnceOnly()), "timeout": call(registry.AttemptTimeout(time.Minute)),
		"lease": func(ctx context.Context, r *registry.Resolver[testkit.ChatModel]) error {
			lease, err := r.Acquire(ctx)
			if err != nil {
				return err
			}
			_, err = lease.Value.Chat(ctx, "")
			lease.Done(err)
			return err
		},
	}
}

// attempts asks 1,000 times with a good provider that takes 50 ms beside a bad one, and returns how often the bad one
// was asked. Others keep the good one busy.
func attempts(t *testing.T, strategy selection.Strategy, bad testkit.ChatModel, patience time.Duration, ask wayToAsk, warm bool) (count uint64) {
	t.Helper()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		ill := !warm
		testkit.Add(t, reg, testkit.Provider{Name: "good", Strategy: strategy, Instance: testkit.Takes("good", 50*time.Millisecond)})
		b := testkit.Add(t, reg, testkit.Provider{Name: "bad", Breaker: testkit.NeverOpens(), Instance: testkit.ChatFunc(func(ctx context.Context, prompt string) (string, error) {
			if ill {
				return bad.Chat(ctx, prompt)
			}
			time.Sleep(time.Millisecond)
			return "", nil
		})})
		r := testkit.Bind(reg)
		if warm {
			for range 20 {
				testkit.MustAsk(t, r)
			}
			ill = true
		}
		good := testkit.Chat.Bind(reg, registry.Query{Where: selection.Requirements{Exclude: []string{"bad"}}})
		for range 3 { // load
			lease, err := good.Acquire(t.Context(), registry.AttemptTimeout(time.Hour))
			require.NoError(t, err)
			defer lease.Done(nil)
		}
		before := b.Info().Attempts
		for range 1000 {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			_ = ask(ctx, r)
			cancel()
		}
		count = b.Info().Attempts - before
	})
	return count
}

// Variants: each strategy of load or latency, idle and busy; each way to ask; a provider that never answered and one
// that was the fastest; each class of "no" that neither opens the breaker nor begins a cooldown.
func TestSelector_ProviderThatSaysNoAtOnceAttractsNoTraffic(t *testing.T) {
	t.Parallel()
	for _, strategy := range aware() {
		for way, ask := range waysToAsk() {
			for name, err := range map[string]error{
				"permanent": verdict.Permanent(testkit.ErrDown), "400": testkit.StatusError{Code: 400},
				"404": testkit.StatusError{Code: 404}, "422": testkit.StatusError{Code: 422}, "down": testkit.ErrDown,
			} {
				for _, warm := range []bool{false, true} {
					t.Run(fmt.Sprint(strategy, " ", way, " ", name, " ", warm), func(t *testing.T) {
						t.Parallel()
						require.LessOrEqual(t, attempts(t, strategy, testkit.Fails(err), time.Minute, ask, warm), uint64(20))
					})
				}
			}
		}
	}
}

// Variants: the same, with a provider that hangs until its caller's time is over, and one whose caller leaves.
func TestSelector_ProviderThatHangsAttractsNoTraffic(t *testing.T) {
	t.Parallel()
	leaves := func(ask wayToAsk) wayToAsk {
		return func(ctx context.Context, r *registry.Resolver[testkit.ChatModel]) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			defer time.AfterFunc(900*time.Millisecond, cancel).Stop()
			return ask(ctx, r)
		}
	}
	for _, strategy := range aware() {
		for way, ask := range waysToAsk() {
			for _, warm := range []bool{false, true} {
				t.Run(fmt.Sprint(strategy, " ", way, " ", warm), func(t *testing.T) {
					t.Parallel()
					require.LessOrEqual(t, attempts(t, strategy, testkit.Hangs(), time.Second, ask, warm), uint64(20))
					require.LessOrEqual(t, attempts(t, strategy, testkit.Hangs(), time.Second, leaves(ask), warm), uint64(20), "caller leaves")
				})
			}
		}
	}
}
