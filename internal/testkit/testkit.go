// Package testkit is the language of this repository's tests: a chat service with models that answer, fail
// and hang on request, a registry on fake time, and the assertions that many tests share.
//
// It owns no state but the key of the service. Only _test files may import it: it imports testing and testify,
// which must not be linked into a program of a user.
package testkit

import (
	"cmp"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/status"
)

// Provider is a provider of the chat service that a test is about to register.
type Provider = registry.Provider[ChatModel]

// Bubble runs a test on fake time with a registry, which it closes at the end.
func Bubble(t *testing.T, options registry.Options, test func(t *testing.T, reg *registry.Registry)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		reg := New(t, options)
		test(t, reg)
		require.NoError(t, reg.Close(t.Context()))
	})
}

// New returns a registry that the test has to close. Its rotations begin with the first provider, unless the
// options have a seed.
func New(tb testing.TB, options registry.Options) *registry.Registry {
	tb.Helper()
	options.Selection.Seed = cmp.Or(options.Selection.Seed, 1)
	reg, err := registry.New(options)
	require.NoError(tb, err)
	return reg
}

// Add registers a provider of the chat service. A provider with neither an instance nor a factory answers its
// own name.
func Add(tb testing.TB, reg *registry.Registry, p Provider) *registry.Registration {
	tb.Helper()
	if p.Instance == nil && p.Factory == nil {
		p.Instance = Says(p.Name)
	}
	registration, err := Chat.Register(context.Background(), reg, p)
	require.NoError(tb, err)
	return registration
}

// AddRing registers round-robin providers with the given names.
func AddRing(tb testing.TB, reg *registry.Registry, names ...string) map[string]*registry.Registration {
	tb.Helper()
	all := make(map[string]*registry.Registration)
	for _, name := range names {
		all[name] = Add(tb, reg, Provider{Name: name, Strategy: registry.StrategyRoundRobin})
	}
	return all
}

// AddHalfOpen registers a provider whose breaker is half-open.
func AddHalfOpen(tb testing.TB, reg *registry.Registry, p Provider) *registry.Registration {
	tb.Helper()
	registration := Add(tb, reg, p)
	require.NoError(tb, registration.ForceOpen(time.Millisecond, "test"))
	Pass(time.Millisecond + 1)
	require.Equal(tb, status.BreakerHalfOpen, registration.Breaker().State)
	return registration
}

// Bind returns a resolver of the chat service for providers with the given capabilities.
func Bind(reg *registry.Registry, capabilities ...string) *registry.Resolver[ChatModel] {
	return Chat.Bind(reg, registry.Query{Require: capabilities})
}

// Ask makes one call.
func Ask(ctx context.Context, r *registry.Resolver[ChatModel], options ...registry.CallOption) (string, error) {
	return registry.Call(ctx, r, func(ctx context.Context, m ChatModel) (string, error) {
		return m.Chat(ctx, "?")
	}, options...)
}

// MustAsk makes one call, which must be answered, and returns the answer.
func MustAsk(tb testing.TB, r *registry.Resolver[ChatModel], options ...registry.CallOption) string {
	tb.Helper()
	answer, err := Ask(context.Background(), r, options...)
	require.NoError(tb, err)
	return answer
}

// MustGet returns the answer of the instance that Get returns.
func MustGet(tb testing.TB, r *registry.Resolver[ChatModel]) string {
	tb.Helper()
	m, err := r.Get(context.Background())
	require.NoError(tb, err)
	answer, err := m.Chat(context.Background(), "?")
	require.NoError(tb, err)
	return answer
}

// Turns returns the answers of n calls in one text.
func Turns(tb testing.TB, r *registry.Resolver[ChatModel], n int) string {
	tb.Helper()
	var text strings.Builder
	for range n {
		text.WriteString(MustAsk(tb, r))
	}
	return text.String()
}

// Trip makes calls fail until the breaker of the only provider that r sees opens.
func Trip(tb testing.TB, r *registry.Resolver[ChatModel], registration *registry.Registration) {
	tb.Helper()
	for registration.Breaker().State != status.BreakerOpen {
		_, err := Ask(context.Background(), r)
		require.ErrorIs(tb, err, ErrDown)
	}
}

// Pass advances the fake time and waits until everything due in it has happened.
func Pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// Isolated runs a function in a goroutine of its own, so that its panic or exit ends nothing else, and waits
// for it.
func Isolated(function func()) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() { _ = recover() }()
		function()
	}()
	<-ended
}

// Recovered returns the value that a function panics with, nil when it returns.
func Recovered(function func()) (value any) {
	defer func() { value = recover() }()
	function()
	return nil
}
