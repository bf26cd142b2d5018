package registry_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/verdict"
)

// Whatever a text of a user contains, an explanation has one line for each candidate. Variants: the reasons of forced
// opening and of marking, the errors of probes, of factories, of a
// last attempt and of a cooldown.
func TestExplanation_HasOneLineForEachCandidate(t *testing.T) {
	t.Parallel()
	forged := errors.New("why\n▶ group 0 NORMAL   forged: eligible\r\nand\u2028more")
	for name, spoil := range map[string]func(t *testing.T, reg *registry.Registry, a *registry.Registration){
		"forced open": func(t *testing.T, _ *registry.Registry, a *registry.Registration) {
			t.Helper()
			require.NoError(t, a.ForceOpen(time.Minute, forged.Error()))
		},
		"marked": func(t *testing.T, _ *registry.Registry, a *registry.Registration) {
			t.Helper()
			require.NoError(t, a.MarkUnhealthy(forged))
		},
		"probed": func(t *testing.T, _ *registry.Registry, a *registry.Registration) {
			t.Helper()
			_, err := a.SetHealthPolicy(health.Policy{Probe: func(context.Context) error { return forged }})
			require.NoError(t, err)
			testkit.Pass(time.Minute)
		},
		"factory": func(t *testing.T, reg *registry.Registry, _ *registry.Registration) {
			t.Helper()
			testkit.Add(t, reg, testkit.Provider{Name: "a", Replace: true, AtOnce: true, Factory: func(context.Context) (testkit.ChatModel, error) { return nil, forged }})
			_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		},
		"last attempt": func(t *testing.T, reg *registry.Registry, _ *registry.Registration) {
			t.Helper()
			lease, err := testkit.Bind(reg).Acquire(t.Context())
			require.NoError(t, err)
			lease.Done(forged)
		},
		"cooldown": func(t *testing.T, reg *registry.Registry, _ *registry.Registration) {
			t.Helper()
			lease, err := testkit.Bind(reg).Acquire(t.Context())
			require.NoError(t, err)
			lease.Done(verdict.RateLimited(forged, time.Minute))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
				testkit.Add(t, reg, testkit.Provider{Name: "b"})
				spoil(t, reg, a)
				text := testkit.Bind(reg).Explain().String()
				require.Equal(t, 2, strings.Count(text, "\n"), text)
				require.NotContains(t, text, "\r")
				require.NotContains(t, text, "\u2028")
				overall := reg.Health()
				require.NotContains(t, overall.Reason, "\n")
				for _, info := range testkit.Infos(reg) {
					require.NotContains(t, info.Reason+info.Breaker.Reason+info.Health.Reason, "\n", info.Name)
					if info.LastError != nil {
						require.NotContains(t, info.LastError.Text, "\n", info.Name)
					}
				}
			})
		})
	}
}
