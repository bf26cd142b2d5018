package registry_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/selection"
)

// A provider may be replaced, removed or hidden by an override while a lookup or call is about
// to use it.

func TestResolver_FindsReplacementDuringLookup(t *testing.T) {
	t.Parallel()
	for name, look := range map[string]func(tb testing.TB, r *registry.Resolver[testkit.ChatModel]) string{
		"Get": testkit.MustGet,
		"Call": func(tb testing.TB, r *registry.Resolver[testkit.ChatModel]) string {
			tb.Helper()
			return testkit.MustAsk(tb, r)
		},
		"Call with options": func(tb testing.TB, r *registry.Resolver[testkit.ChatModel]) string {
			tb.Helper()
			return testkit.MustAsk(tb, r, registry.OnceOnly())
		},
		"Acquire": func(tb testing.TB, r *registry.Resolver[testkit.ChatModel]) string {
			tb.Helper()
			lease, err := r.Acquire(tb.Context())
			require.NoError(tb, err)
			defer lease.Done(nil)
			return lease.Provider()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				replaced := 0
				var strategy selection.Strategy
				strategy = testkit.NewStrategy("REPLACES", func(v selection.View) int {
					if !v.Peeking() && replaced < 3 {
						replaced++
						testkit.Add(t, reg, testkit.Provider{Name: "best", Replace: true, Strategy: strategy})
						synctest.Wait() // the instance of the one before is given up
					}
					return v.Next(0)
				})
				testkit.Add(t, reg, testkit.Provider{Name: "best", Strategy: strategy})
				testkit.Add(t, reg, testkit.Provider{Name: "other", Group: 1})
				require.Equal(t, "best", look(t, testkit.Bind(reg)))
				require.Equal(t, 3, replaced)
				other, _ := reg.Provider("chat", "other")
				require.Zero(t, other.Info().Attempts)
			})
		})
	}
}

func TestGetAll_FindsReplacementDuringWait(t *testing.T) {
	t.Parallel()
	for name, all := range map[string]func(t *testing.T, r *registry.Resolver[testkit.ChatModel]) []testkit.ChatModel{
		"GetAll": func(t *testing.T, r *registry.Resolver[testkit.ChatModel]) []testkit.ChatModel {
			t.Helper()
			models, err := r.GetAll(t.Context(), 0)
			require.NoError(t, err)
			return models
		},
		"AcquireAll": func(t *testing.T, r *registry.Resolver[testkit.ChatModel]) (models []testkit.ChatModel) {
			t.Helper()
			leases, err := r.AcquireAll(t.Context(), 0)
			require.NoError(t, err)
			for _, lease := range leases {
				defer lease.Done(nil)
				models = append(models, lease.Value)
			}
			return models
		},
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); manyFindReplacement(t, all) })
	}
}

func manyFindReplacement(t *testing.T, all func(t *testing.T, r *registry.Resolver[testkit.ChatModel]) []testkit.ChatModel) {
	t.Helper()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Factory: func(context.Context) (testkit.ChatModel, error) {
			testkit.Add(t, reg, testkit.Provider{Name: "b", Replace: true, Instance: testkit.Says("new b")}) //nolint:contextcheck // a registration has none of its own
			time.Sleep(time.Second)
			return testkit.Says("a"), nil
		}})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		testkit.Add(t, reg, testkit.Provider{Name: "c"})
		var said []string
		for _, model := range all(t, testkit.Bind(reg)) {
			text, err := model.Chat(t.Context(), "?")
			require.NoError(t, err)
			said = append(said, text)
		}
		require.Equal(t, []string{"a", "new b", "c"}, said)
	})
}

func TestResolver_DoesNotWaitForFactoryOfReplaced(t *testing.T) {
	t.Parallel()
	for name, look := range map[string]func(tb testing.TB, r *registry.Resolver[testkit.ChatModel]) string{
		"Get": testkit.MustGet, "Call": func(tb testing.TB, r *registry.Resolver[testkit.ChatModel]) string {
			tb.Helper()
			return testkit.MustAsk(tb, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				free := make(chan struct{})
				testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: registry.NoTimeout, Factory: func(context.Context) (testkit.ChatModel, error) {
					<-free
					return nil, testkit.ErrDown
				}})
				joinAfter(t, reg, time.Second, testkit.Provider{Name: "a", Replace: true, Instance: testkit.Says("new a")})
				began := time.Now()
				require.Equal(t, "new a", look(t, testkit.Bind(reg)))
				require.Equal(t, time.Second, time.Since(began))
				close(free)
			})
		})
	}
}

func TestResolver_FindsSwapWhileWaitingForFactory(t *testing.T) {
	t.Parallel()
	for name, look := range map[string]func(tb testing.TB, r *registry.Resolver[testkit.ChatModel]) string{
		"Get": testkit.MustGet, "Call": func(tb testing.TB, r *registry.Resolver[testkit.ChatModel]) string {
			tb.Helper()
			return testkit.MustAsk(tb, r)
		},
		"GetAll": func(tb testing.TB, r *registry.Resolver[testkit.ChatModel]) string {
			tb.Helper()
			all, err := r.GetAll(tb.Context(), 0)
			require.NoError(tb, err)
			require.Len(tb, all, 1)
			text, err := all[0].Chat(tb.Context(), "?")
			require.NoError(tb, err)
			return text
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				testkit.Add(t, reg, testkit.Provider{Name: "a", Factory: func(context.Context) (testkit.ChatModel, error) {
					time.Sleep(10 * time.Second)
					return testkit.Says("real"), nil
				}})
				undo := make(chan func(context.Context) error, 1)
				go func() {
					time.Sleep(time.Second)
					end, err := testkit.Chat.Testing(reg).Swap("test", "a", testkit.Says("fake"))
					assert.NoError(t, err)
					undo <- end
				}()
				require.Equal(t, "fake", look(t, testkit.Bind(reg)))
				require.NoError(t, (<-undo)(t.Context()))
			})
		})
	}
}

func TestGet_NilContextIsRefusedBeforeFactoryRuns(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Factory: func(context.Context) (testkit.ChatModel, error) { return testkit.Says("a"), nil }})
		r := testkit.Bind(reg)
		_ = r.Explain() // the plan is made
		var none context.Context
		_, err := r.Get(none)
		require.ErrorIs(t, err, registry.ErrInvalid)
	})
}
