package registry_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
)

type sampledKey struct{}

func unsampled(ctx context.Context) bool { return ctx.Value(sampledKey{}) == nil }

func askModel(ctx context.Context, m testkit.ChatModel) (string, error) { return m.Chat(ctx, "") }

// counting returns hooks that count the calls and attempts that they see the beginning and the end of.
func counting(seen *[4]int) registry.Hooks {
	return registry.Hooks{
		BeforeCall: func(ctx context.Context, _ registry.CallReport) context.Context { seen[0]++; return ctx },
		BeforeAttempt: func(ctx context.Context, _ registry.CallReport, _ registry.Attempt) context.Context {
			seen[1]++
			return ctx
		},
		AfterAttempt: func(context.Context, registry.CallReport, registry.Attempt) { seen[2]++ },
		AfterCall:    func(context.Context, registry.CallReport) { seen[3]++ },
	}
}

// kindsOfCall returns calls that move on from a provider that fails.
func kindsOfCall() map[string]func(ctx context.Context, r *registry.Resolver[testkit.ChatModel]) error {
	return map[string]func(ctx context.Context, r *registry.Resolver[testkit.ChatModel]) error{
		"call": func(ctx context.Context, r *registry.Resolver[testkit.ChatModel]) error {
			_, err := registry.Call(ctx, r, askModel)
			return err
		},
		"call with an option": func(ctx context.Context, r *registry.Resolver[testkit.ChatModel]) error {
			_, err := registry.Call(ctx, r, askModel, registry.Caller("me"))
			return err
		},
		"lease": func(ctx context.Context, r *registry.Resolver[testkit.ChatModel]) error {
			lease, err := r.Acquire(ctx)
			if err != nil {
				return err
			}
			if lease, err = lease.MoveOn(testkit.ErrDown); err == nil { //nolint:contextcheck // the lease has it
				lease.Done(nil)
			}
			return err
		},
	}
}

// Each kind of call, that moves on from a provider that fails, with hooks that skip it and with others beside them.
func TestHooks_SeeNothingOfACallThatTheySkip(t *testing.T) {
	t.Parallel()
	for name, call := range kindsOfCall() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown)})
				testkit.Add(t, reg, testkit.Provider{Name: "b"})
				r := testkit.Bind(reg)
				var some, all [4]int
				skipping := counting(&some)
				skipping.Skip = unsampled
				_, err := reg.AddHooks(skipping)
				require.NoError(t, err)

				require.NoError(t, call(t.Context(), r))
				require.Zero(t, some)
				require.NoError(t, call(context.WithValue(t.Context(), sampledKey{}, true), r))
				require.Equal(t, [4]int{1, 2, 2, 1}, some)

				remove, err := reg.AddHooks(counting(&all))
				require.NoError(t, err)
				require.NoError(t, call(t.Context(), r))
				require.Equal(t, [4]int{1, 2, 2, 1}, some)
				require.Equal(t, [4]int{1, 2, 2, 1}, all, "others see it")
				remove()
				require.NoError(t, call(t.Context(), r))
				require.Equal(t, [4]int{1, 2, 2, 1}, some)
			})
		})
	}
}

// Hooks that draw lots get what they have drawn, whether the call begins at once or has to look further.
func TestHooks_AreAskedOnceWhetherTheySkipACall(t *testing.T) {
	t.Parallel()
	for name, call := range kindsOfCall() {
		for _, blocked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", name, blocked), func(t *testing.T) {
				t.Parallel()
				testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
					testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1}})
					testkit.Add(t, reg, testkit.Provider{Name: "b", Instance: testkit.Fails(testkit.ErrDown), Breaker: testkit.NeverOpens()})
					testkit.Add(t, reg, testkit.Provider{Name: "c"})
					r := testkit.Bind(reg)
					if blocked {
						_, err := r.Acquire(t.Context()) // its only place
						require.NoError(t, err)
					}
					var seen [4]int
					asked := 0
					hooks := counting(&seen)
					hooks.Skip = func(context.Context) bool { asked++; return asked%2 == 0 }
					_, err := reg.AddHooks(hooks)
					require.NoError(t, err)
					for range 10 {
						require.NoError(t, call(t.Context(), r))
					}
					require.Equal(t, 10, asked)
					require.Equal(t, 5, seen[0])
					require.Equal(t, 5, seen[3])
					require.Equal(t, seen[1], seen[2])
				})
			})
		}
	}
}

func TestHooks_OptionsThatSeeEveryCallSeeASkippedOne(t *testing.T) {
	t.Parallel()
	asked := 0
	options := registry.Options{
		Hooks:     registry.Hooks{Skip: unsampled, AfterCall: func(context.Context, registry.CallReport) { asked = -1000 }},
		Authorize: func(context.Context, string, string, string) error { asked++; return nil },
	}
	testkit.Bubble(t, options, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		_, err := registry.Call(t.Context(), testkit.Bind(reg), askModel)
		require.NoError(t, err)
		require.Equal(t, 1, asked)
	})
}

func TestHooks_SkipAloneIsRefused(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		_, err := reg.AddHooks(registry.Hooks{Skip: unsampled})
		require.ErrorIs(t, err, registry.ErrInvalid)
	})
}
