package registry_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/verdict"
)

func TestError_IsOneLineWhateverItsCause(t *testing.T) {
	t.Parallel()
	multi := errors.New("a\nb")
	reg := testkit.New(t, registry.Options{Admit: func(context.Context, registry.Definition) error { return multi }})
	_, err := testkit.Chat.Register(t.Context(), reg, testkit.Provider{Name: "p", Instance: testkit.Says("x")})
	testkit.RequireOneLine(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(multi)
	testkit.RequireOneLine(t, reg.WaitReady(ctx, "unknown"))
	_ = reg.Close(t.Context())
	reg = testkit.New(t, registry.Options{})
	p := testkit.Add(t, reg, testkit.Provider{Name: "p", Factory: func(context.Context) (testkit.ChatModel, error) {
		return testkit.Closable{ChatModel: testkit.Says("x"), Do: func() error { return multi }}, nil
	}})
	testkit.MustAsk(t, testkit.Bind(reg))
	testkit.RequireOneLine(t, p.Unregister(t.Context()))
	p = testkit.Add(t, reg, testkit.Provider{Name: "p"})
	_ = p.MarkUnhealthy(multi)
	testkit.RequireOneLine(t, testkit.Bind(reg).Explain().Candidates[0].Err)
	require.NotContains(t, p.Info().Reason, "\n")
	testkit.Add(t, reg, testkit.Provider{Name: "f", Factory: func(context.Context) (testkit.ChatModel, error) { return nil, multi }})
	_, err = testkit.Bind(reg).Get(ctx)
	testkit.RequireOneLine(t, err)
	_ = reg.Close(t.Context())
}

func TestError_PanickingIsIsContained(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	p := testkit.Add(t, reg, testkit.Provider{Name: "p"})
	_ = p.MarkUnhealthy(testkit.BadIsError{})
	_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
	require.NotPanics(t, func() { _ = err.Error() })
	_ = reg.Close(t.Context())
}

func TestCallError_TextIsBounded(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	testkit.Add(t, reg, testkit.Provider{Name: "first", Priority: registry.PriorityCritical, Instance: testkit.Fails(testkit.ErrDown)})
	for i := range 2000 {
		p := testkit.Add(t, reg, testkit.Provider{Name: fmt.Sprint("p", i)})
		_ = p.MarkUnhealthy(testkit.ErrDown)
	}
	_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
	require.Less(t, len(err.Error()), 10000)
	_ = reg.Close(t.Context())
}

func TestUnavailableError_NamesAtMostSixteenCandidates(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		for i := range 40 {
			sick := testkit.Add(t, reg, testkit.Provider{Name: fmt.Sprintf("provider-%02d", i)})
			require.NoError(t, sick.MarkUnhealthy(errors.New(strings.Repeat("very long reason ", 1000))))
		}
		_, err := testkit.Bind(reg).Get(t.Context())
		testkit.RequireOneLine(t, err)
		require.Equal(t, 16, strings.Count(err.Error(), "provider-"))
		require.ErrorContains(t, err, "and 24 more")
		require.Less(t, len(err.Error()), 16*600)
		var unavailable *registry.UnavailableError
		require.ErrorAs(t, err, &unavailable)
		require.Len(t, unavailable.Candidates(), 40)
	})
}

func TestUnavailableError_HasNoDelayForHealth(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := testkit.Add(t, reg, testkit.Provider{Name: "p"})
		l, _ := testkit.Bind(reg).Acquire(t.Context())
		l.Done(verdict.RateLimited(testkit.ErrDown, time.Second))
		_ = p.MarkUnhealthy(testkit.ErrDown)
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		var u *registry.UnavailableError
		require.ErrorAs(t, err, &u)
		require.Zero(t, u.RetryIn, "health does not end by itself")
	})
}

func TestUnavailableError_MatchesPresentReasonsOnly(t *testing.T) {
	t.Parallel()
	reasons := []error{
		registry.ErrUnhealthy, registry.ErrBreakerOpen, registry.ErrCoolingDown, registry.ErrCredentials, registry.ErrAtCapacity,
		registry.ErrNotReady, registry.ErrClosed, registry.ErrDenied, registry.ErrNoCapability, registry.ErrUnknownService,
	}
	for name, test := range map[string]struct {
		spoil func(t *testing.T, p *registry.Registration, r *registry.Resolver[testkit.ChatModel])
		is    []error
	}{
		"unhealthy": {func(t *testing.T, p *registry.Registration, _ *registry.Resolver[testkit.ChatModel]) {
			t.Helper()
			require.NoError(t, p.MarkUnhealthy(testkit.ErrDown))
		}, []error{registry.ErrUnhealthy}},
		"open": {func(t *testing.T, p *registry.Registration, _ *registry.Resolver[testkit.ChatModel]) {
			t.Helper()
			require.NoError(t, p.ForceOpen(time.Hour, "test"))
		}, []error{registry.ErrBreakerOpen}},
		"cooling": {func(t *testing.T, _ *registry.Registration, r *registry.Resolver[testkit.ChatModel]) {
			t.Helper()
			lease, err := r.Acquire(t.Context())
			require.NoError(t, err)
			lease.Done(verdict.RateLimited(testkit.ErrDown, time.Hour))
		}, []error{registry.ErrCoolingDown}},
		"parked": {func(t *testing.T, _ *registry.Registration, r *registry.Resolver[testkit.ChatModel]) {
			t.Helper()
			lease, err := r.Acquire(t.Context())
			require.NoError(t, err)
			lease.Done(verdict.Fatal(testkit.ErrDown, time.Hour))
		}, []error{registry.ErrCoolingDown, registry.ErrCredentials}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				p := testkit.Add(t, reg, testkit.Provider{Name: "p"})
				test.spoil(t, p, testkit.Bind(reg))
				_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
				for _, reason := range reasons {
					expected := false
					for _, is := range test.is {
						expected = expected || errors.Is(is, reason)
					}
					require.Equal(t, expected, errors.Is(err, reason), "%v in %v", reason, err)
				}
				require.ErrorIs(t, err, errDownOf(name))
			})
		})
	}
}

// errDownOf is what a reason was given: nothing for a breaker that was forced open.
func errDownOf(reason string) error {
	if reason == "open" {
		return registry.ErrUnavailable
	}
	return testkit.ErrDown
}

func TestUnavailableError_MatchesEveryCausePresent(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		r := testkit.Bind(reg, "tools")
		_, err := r.Get(t.Context())
		require.ErrorIs(t, err, registry.ErrUnavailable)
		require.ErrorIs(t, err, registry.ErrUnknownService)

		errSick := errors.New("disk full\non host 7")
		tools := []string{"tools"}
		testkit.Add(t, reg, testkit.Provider{Name: "lacking"})
		sick := testkit.Add(t, reg, testkit.Provider{Name: "sick", Capabilities: tools})
		require.NoError(t, sick.MarkUnhealthy(errSick))
		open := testkit.Add(t, reg, testkit.Provider{Name: "open", Capabilities: tools})
		require.NoError(t, open.ForceOpen(time.Minute, "maintenance"))
		testkit.Add(t, reg, testkit.Provider{Name: "limited", Capabilities: tools, Instance: testkit.Fails(verdict.RateLimited(testkit.ErrDown, 20*time.Second))})
		_, err = testkit.Ask(t.Context(), r)
		require.Error(t, err)

		_, err = r.Get(t.Context())
		for _, cause := range []error{
			registry.ErrUnavailable, registry.ErrNoCapability, registry.ErrUnhealthy, errSick,
			registry.ErrBreakerOpen, registry.ErrCoolingDown, testkit.ErrDown,
		} {
			require.ErrorIs(t, err, cause)
		}
		for _, absent := range []error{registry.ErrUnknownService, registry.ErrClosed, registry.ErrCredentials, registry.ErrInvalid} {
			require.NotErrorIs(t, err, absent)
		}
		testkit.RequireOneLine(t, err)
		var unavailable *registry.UnavailableError
		require.ErrorAs(t, err, &unavailable)
		require.Equal(t, "chat", unavailable.Service)
		require.Equal(t, []string{"tools"}, unavailable.Query.Require)
		reasons := map[string]string{}
		for _, c := range unavailable.Candidates() {
			reasons[c.Provider] = string(c.Code)
		}
		require.Equal(t, map[string]string{
			"lacking": "capability_missing", "sick": "unhealthy", "open": "breaker_open", "limited": "cooling_down",
		}, reasons)
		require.GreaterOrEqual(t, unavailable.RetryIn, 20*time.Second)
		require.LessOrEqual(t, unavailable.RetryIn, 22*time.Second)
		for _, part := range []string{"maintenance", "disk full", `"tools"`, "retry in"} {
			require.ErrorContains(t, err, part)
		}

		require.NoError(t, reg.Close(t.Context()))
		_, err = r.Get(t.Context())
		require.ErrorIs(t, err, registry.ErrUnavailable)
		require.ErrorIs(t, err, registry.ErrClosed)
	})
}

func TestUnavailableError_HasQueryKey(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		require.NoError(t, testkit.Add(t, reg, testkit.Provider{Name: "a"}).MarkUnhealthy(testkit.ErrDown))
		_, err := testkit.Chat.Bind(reg, registry.Query{Key: "k"}).Get(t.Context())
		var unavailable *registry.UnavailableError
		require.ErrorAs(t, err, &unavailable)
		require.Equal(t, "k", unavailable.Query.Key)
	})
}

func TestContext_NilIsAnErrorAndChangesNothing(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	p := testkit.Add(t, reg, testkit.Provider{Name: "p"})
	var none context.Context
	_, call := testkit.Ask(none, testkit.Bind(reg))
	_, acquire := testkit.Bind(reg).Acquire(none)
	_, many := testkit.Bind(reg).GetAll(none, 0)
	var typed *interruptedContext
	_, until := testkit.Chat.Register(t.Context(), reg, testkit.Provider{Name: "q", Instance: testkit.Says("q"), Until: typed})
	for _, err := range []error{call, acquire, many, until, reg.WaitReady(none, "x"), p.Unregister(none), reg.Close(none)} {
		require.ErrorIs(t, err, registry.ErrInvalid)
	}
	_, there := reg.Provider("chat", "q")
	require.False(t, there)
	require.Zero(t, p.Info().Attempts)
	require.NoError(t, reg.Close(t.Context()))
}
