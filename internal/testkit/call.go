package testkit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/verdict"
)

// ConcurrentCalls makes calls at the same time. It returns their results, each as the answer, the error and
// the time that the call took.
func ConcurrentCalls(tb testing.TB, r *registry.Resolver[ChatModel], calls int) chan string {
	tb.Helper()
	results := make(chan string, calls)
	for range calls {
		go func() {
			began := time.Now()
			text, err := Ask(tb.Context(), r)
			results <- fmt.Sprint(text, err, " after ", time.Since(began))
		}()
	}
	return results
}

// CountResults waits for all results of [ConcurrentCalls] and counts the equal ones.
func CountResults(results chan string) map[string]int {
	counts := make(map[string]int)
	for range cap(results) {
		counts[<-results]++
	}
	return counts
}

// CallOrder returns the names of providers in the order in which a call tries them when each of them passes it
// on without blame.
func CallOrder(tb testing.TB, reg *registry.Registry, q registry.Query) []string {
	tb.Helper()
	var tried []string
	_, err := registry.Call(tb.Context(), Chat.Bind(reg, q), func(ctx context.Context, m ChatModel) (string, error) {
		name, err := m.Chat(ctx, "")
		tried = append(tried, name)
		return "", errors.Join(err, verdict.As(ErrDown, verdict.Verdict{Class: verdict.ClassCannot}))
	})
	require.Error(tb, err)
	return tried
}

// LeaseAll leases every provider, calls each, and returns their names with their answers.
func LeaseAll(tb testing.TB, r *registry.Resolver[ChatModel]) (all []string) {
	tb.Helper()
	leases, err := r.AcquireAll(tb.Context(), 0)
	require.NoError(tb, err)
	for _, lease := range leases {
		text, err := lease.Value.Chat(lease.Context(), "?")
		lease.Done(err)
		all = append(all, lease.Provider()+" says "+text)
	}
	return all
}

// NeverOpens returns the policy of a breaker that failures do not open.
func NeverOpens() registry.BreakerPolicy { return registry.BreakerPolicy{FailureThreshold: 1 << 30} }

// AttemptsPerCall calls three providers, which all fail and are tried up to three times each, for a minute. It
// returns the average number of attempts that a call makes.
func AttemptsPerCall(t *testing.T, perSecond int, breaker registry.BreakerPolicy) (average float64) {
	t.Helper()
	Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		var all []*registry.Registration
		for _, name := range []string{"a", "b", "c"} {
			all = append(all, Add(t, reg, Provider{
				Name: name, Instance: Fails(ErrDown), Breaker: breaker, Retry: registry.RetryPolicy{Retries: 2},
			}))
		}
		calls, done := 60*perSecond, make(chan struct{})
		for range calls {
			go func() {
				_, _ = Ask(context.Background(), Bind(reg))
				done <- struct{}{}
			}()
			time.Sleep(time.Second / time.Duration(perSecond))
		}
		for range calls {
			<-done
		}
		attempts := uint64(0)
		for _, registration := range all {
			attempts += registration.Info().Attempts
		}
		average = float64(attempts) / float64(calls)
	})
	return average
}

// BeyondInt32 returns a number that is out of the bounds of settings that fit into 32 bits:
// one more than they hold, or, where an int has 32 bits itself, a negative number.
func BeyondInt32() int {
	beyond := math.MaxInt32
	beyond++
	return beyond
}
