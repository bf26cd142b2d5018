package test_test

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/selection"
)

// policies are what a provider and a service can be configured with.
type policies struct {
	Breaker   registry.BreakerPolicy `json:"breaker"`
	Retry     registry.RetryPolicy   `json:"retry"`
	Limits    registry.LimitPolicy   `json:"limits"`
	Selection selection.Policy       `json:"selection"`
	Timeout   time.Duration          `json:"timeout"`
	Drain     time.Duration          `json:"drain"`
}

// Policies that are accepted work: calls fail and succeed, time goes by, and nothing
// hangs, panics or is left over.
func FuzzPoliciesInJSON(f *testing.F) {
	for _, text := range []string{
		`{}`, `{"breaker":{"failure_threshold":1,"recovery_timeout":1}}`, `{"breaker":{"failure_rate":1,"minimum_calls":1,"window":1}}`,
		`{"breaker":{"recovery_timeout":9223372036854775807,"recovery_growth":1000,"recovery_jitter":1}}`,
		`{"breaker":{"slow_rate":0.5,"slow_after":1,"trial_slots":3,"success_threshold":3}}`, `{"breaker":{"trial_slots":4}}`,
		`{"retry":{"retries":3,"first_delay":1,"max_delay":1,"budget":2147483647,"refund":0.001,"floor":1e-9}}`, `{"retry":{"retries":101}}`,
		`{"limits":{"max_concurrent":1,"no_queue":true,"rate":0.0000001}}`, `{"limits":{"burst":1}}`, `{"limits":{"max_wait":9223372036854775807}}`,
		`{"selection":{"spill_over":1.4,"slow_start":9223372036854775807,"max_ejected":0.5,"least_bad":true,"decay":100000000}}`,
		`{"timeout":9223372036854775807,"drain":9223372036854775807}`, `{"timeout":1}`, `{"timeout":-1}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var p policies
		if json.Unmarshal(text, &p) != nil {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			reg, err := registry.New(registry.Options{DrainTimeout: p.Drain, Selection: p.Selection})
			if err != nil {
				testkit.RequireRefused(t, err)
				return
			}
			fails := 3
			registration, err := testkit.Chat.Register(t.Context(), reg, testkit.Provider{
				Name: "p", Breaker: p.Breaker, Retry: p.Retry, Limits: p.Limits, AttemptTimeout: p.Timeout,
				Instance: testkit.Answers(func() (string, error) {
					if fails--; fails >= 0 {
						return "", testkit.ErrDown
					}
					return "fine", nil
				}),
			})
			if err != nil {
				testkit.RequireRefused(t, err)
				require.Zero(t, reg.Stats())
				require.NoError(t, reg.Close(t.Context()))
				return
			}
			for range 5 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				_, _ = testkit.Ask(ctx, testkit.Bind(reg))
				cancel()
				testkit.Pass(time.Minute)
			}
			require.NoError(t, registration.Reset())
			previous, err := registration.SetBreakerPolicy(registry.BreakerPolicy{})
			require.NoError(t, err)
			_, err = registration.SetBreakerPolicy(previous)
			require.NoError(t, err, "what was in force is valid")
			_, err = registration.SetLimits(p.Limits)
			require.NoError(t, err)
			info := registration.Info()
			require.Equal(t, info.Attempts, info.Successes+info.Failures+info.Ignored+info.Limited)
			require.NoError(t, reg.Close(t.Context()))
		})
	})
}
