package registry_test

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/selection"
)

var errDown = errors.New("down")

// bubble runs a test on fake time with a registry that it closes at the end.
func bubble(t *testing.T, options registry.Options, test func(t *testing.T, reg *registry.Registry)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, options)
		test(t, reg)
		require.NoError(t, reg.Close(t.Context()))
	})
}

func newRegistry(tb testing.TB, options registry.Options) *registry.Registry {
	tb.Helper()
	reg, err := registry.New(options)
	require.NoError(tb, err)
	return reg
}

// provider is a Provider of the chat service under construction.
type provider = registry.Provider[chatModel]

// add registers a provider; without an instance and a factory it says its name.
func add(tb testing.TB, reg *registry.Registry, p provider) *registry.Registration {
	tb.Helper()
	if p.Instance == nil && p.Factory == nil {
		p.Instance = says(p.Name)
	}
	registration, err := chat.Register(context.Background(), reg, p)
	require.NoError(tb, err)
	return registration
}

// answers returns a model that answers what the function says, on each call.
func answers(function func() (string, error)) chatModel {
	return chatFunc(func(context.Context, string) (string, error) { return function() })
}

func fails(err error) chatModel { return answers(func() (string, error) { return "", err }) }

// hangs returns a model that heeds its context and nothing else.
func hangs() chatModel {
	return chatFunc(func(ctx context.Context, _ string) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	})
}

var lastOfAll = last()

// strategyNumber returns the built-in strategies as 1 and 2, one of the tests' own as 3,
// none as 0, and a bad one
// for any other number.
func strategyNumber(n int) registry.Strategy {
	switch n {
	case 0:
		return registry.Strategy{}
	case 1:
		return registry.StrategyFallback
	case 2:
		return registry.StrategyRoundRobin
	case 3:
		return lastOfAll
	}
	return selection.New(strconv.Itoa(n), nil)
}

func bind(reg *registry.Registry, require ...string) *registry.Resolver[chatModel] {
	return chat.Bind(reg, registry.Query{Require: require})
}

// ask makes one call.
func ask(ctx context.Context, r *registry.Resolver[chatModel], options ...registry.CallOption) (string, error) {
	return registry.Call(ctx, r, func(ctx context.Context, m chatModel) (string, error) {
		return m.Chat(ctx, "?")
	}, options...)
}

// asked makes one call that must be answered, and returns the answer.
func asked(tb testing.TB, r *registry.Resolver[chatModel], options ...registry.CallOption) string {
	tb.Helper()
	answer, err := ask(context.Background(), r, options...)
	require.NoError(tb, err)
	return answer
}

// got returns the answer of the instance that Get gives.
func got(tb testing.TB, r *registry.Resolver[chatModel]) string {
	tb.Helper()
	m, err := r.Get(context.Background())
	require.NoError(tb, err)
	answer, err := m.Chat(context.Background(), "?")
	require.NoError(tb, err)
	return answer
}

// trip makes calls fail until the breaker of the only provider that r sees opens.
func trip(tb testing.TB, r *registry.Resolver[chatModel], registration *registry.Registration) {
	tb.Helper()
	for registration.Breaker().State != registry.BreakerOpen {
		_, err := ask(context.Background(), r)
		require.ErrorIs(tb, err, errDown)
	}
}

// pass lets time go by, and everything that is due in it happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// requireCounts checks the outcomes of a provider at rest.
func requireCounts(tb testing.TB, registration *registry.Registration, successes, failures, ignored, limited int) {
	tb.Helper()
	info := registration.Info()
	require.Equal(tb, []int{successes, failures, ignored, limited, 0}, []int{
		int(info.Successes), int(info.Failures), int(info.Ignored), int(info.Limited), int(info.InFlight),
	}, "successes, failures, ignored, limited, in flight")
	require.Equal(tb, info.Attempts, info.Successes+info.Failures+info.Ignored+info.Limited)
}

// kinds drains the events read so far.
func kinds(tb testing.TB, s *registry.Subscription) []event.Kind {
	tb.Helper()
	var all []event.Kind
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for {
		e, err := s.Next(ended)
		if err != nil {
			return all
		}
		all = append(all, e.Kind)
	}
}

// requireOneLine checks what every error of the registry promises.
func requireOneLine(tb testing.TB, err error) {
	tb.Helper()
	require.Error(tb, err)
	require.NotContains(tb, err.Error(), "\n")
}
