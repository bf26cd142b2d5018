package config_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/config"
	"github.com/capreg/registry/registrytest"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/status"
)

func TestApply_FailureChangesNothingAndClosesWhatWasMade(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fields string
		before func(ctx context.Context) error
		within time.Duration
		want   error
	}{
		"error": {fields: "settings: {model: new, fail: down}", want: registry.ErrNotReady},
		"panic": {fields: "settings: {model: new}", before: func(context.Context) error { panic("oh") }, want: registry.ErrNotReady},
		"hang until prove_within": {
			fields: "settings: {model: new}, prove_within: 1s", want: registry.ErrNotReady,
			before: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		},
		"hang until the context ends": {
			fields: "settings: {model: new}", within: time.Second, want: context.DeadlineExceeded,
			before: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var events []config.Event
				w := &workshop{}
				reg := registrytest.New(t, registry.Options{})
				m, err := config.New(reg, config.Options{
					Kinds: []config.Kind{config.Bind(llm, "model", w.make)}, Listen: func(e config.Event) { events = append(events, e) },
				})
				require.NoError(t, err)
				apply(t, m, models("name: a, settings: {model: old}", "name: b, group: 1"))
				require.Equal(t, "old", ask(t, reg))
				synctest.Wait()
				was, open, current := listing(reg), w.open.Load(), m.Current()
				w.before = func(ctx context.Context, s modelSettings) error {
					if s.Model == "new" && test.before != nil {
						return test.before(ctx)
					}
					return nil
				}
				ctx := t.Context()
				if test.within > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, test.within)
					defer cancel()
				}
				_, err = m.Apply(ctx, parse(t, models("name: a, "+test.fields, "name: c, weight: 7")))
				require.ErrorIs(t, err, test.want)
				time.Sleep(time.Minute)
				synctest.Wait()
				require.Equal(t, open, w.open.Load(), "what was made in vain is closed")
				require.Equal(t, was, listing(reg))
				require.Same(t, current, m.Current())
				require.Equal(t, "old", ask(t, reg))
				require.Equal(t, []config.EventKind{config.Applied, config.Refused}, []config.EventKind{events[0].Kind, events[1].Kind})
				require.ErrorIs(t, events[1].Err, test.want)
				require.NotNil(t, events[1].Plan)
			})
		})
	}
}

func TestApply_FailuresOfSeveralProvidersAreToldWithTheirPlaces(t *testing.T) {
	t.Parallel()
	_, m, _ := manage(t)
	_, err := m.Apply(t.Context(), parse(t, models("name: a", "name: b, settings: {fail: no host}")))
	require.ErrorContains(t, err, `config: a.yaml:5:7: services.llm.providers[b]: registry: provider "llm/b" has not proven itself: not ready: no host`)
}

func TestApply_InPlaceKeepsTheInstanceAndItsBreaker(t *testing.T) {
	t.Parallel()
	reg, m, w := manage(t)
	apply(t, m, models("name: a, settings: {model: big}", "name: b"))
	a, _ := reg.Provider("llm", "a")
	require.NoError(t, a.ForceOpen(time.Hour, "by hand"))
	made := w.count()
	apply(t, m, models("name: a, settings: {model: big}, priority: LOW, group: 2, weight: 3, attempt_timeout: 5s, "+
		"limits: {max_concurrent: 3}, retry: {retries: 2}, breaker: {failure_threshold: 9}, health: {fall: 4}", "name: b"))
	info := a.Info()
	require.Equal(t, made, w.count())
	require.Equal(t, status.BreakerOpen, info.Breaker.State)
	require.Equal(t, 9, info.Breaker.Policy.FailureThreshold)
	require.Equal(t, registry.PriorityLow, info.Priority)
	require.Equal(t, 2, info.Group)
	require.InDelta(t, 3, info.Weight, 0)
	require.Equal(t, 5*time.Second, info.AttemptTimeout)
	require.Equal(t, 3, info.Limits.MaxConcurrent)
	require.Equal(t, 2, info.Retry.Retries)
	require.Equal(t, 4, info.HealthPolicy.Fall)
	apply(t, m, models("name: a, settings: {model: big}, no_timeout: true, no_traffic: true", "name: b"))
	require.Equal(t, registry.NoTimeout, a.AttemptTimeout())
	require.Zero(t, a.Info().Weight)
	apply(t, m, models("name: a, settings: {model: big}", "name: b"))
	require.InDelta(t, 1, a.Info().Weight, 0)
	require.Zero(t, a.Limits().MaxConcurrent)
}

// What a user met who changed a group's strategy, a domain's limits and all members one after the other.
func TestApply_GroupsAndDomainsChangeWithTheirMembersInAnyCombination(t *testing.T) {
	t.Parallel()
	reg, m, _ := manage(t)
	document := func(strategy string, limit int, a, b, c string) string {
		return fmt.Sprintf("domains: {key: {limits: {max_concurrent: %d}}}\n", limit) +
			models("name: a, domain: key, "+a, "name: b, domain: key, "+b, "name: c, domain: key, "+c) +
			fmt.Sprintf("    groups: {0: {strategy: %s}}\n", strategy)
	}
	strategies := []string{"ROUND_ROBIN", "FALLBACK"}
	for i := range 16 {
		fields := make([]string, 3)
		for k := range fields {
			fields[k] = "weight: " + strconv.Itoa(i+k+1)
			if i>>k&1 == 1 { // replaced, else in place
				fields[k] += fmt.Sprintf(", settings: {model: m%d}", i)
			}
		}
		apply(t, m, document(strategies[i%2], i+1, fields[0], fields[1], fields[2]))
		for _, info := range listing(reg) {
			require.Equal(t, strategies[i%2], info.Strategy.String())
			require.Equal(t, i+1, info.Limits.MaxConcurrent)
		}
	}
	apply(t, m, models("name: a, domain: key, group: 1", "name: b, domain: key", "name: c")+
		"    groups: {1: {strategy: ROUND_ROBIN}}\ndomains: {key: {}}\n")
	all := listing(reg)
	require.Equal(t, []string{"FALLBACK", "FALLBACK", "ROUND_ROBIN"}, []string{all[0].Strategy.String(), all[1].Strategy.String(), all[2].Strategy.String()})
	require.Zero(t, all[0].Limits)
}

func TestApply_SelectionPolicyIsSetAndGivenBack(t *testing.T) {
	t.Parallel()
	w := &workshop{}
	usual := selection.Policy{SpillOver: 2}
	reg := registrytest.New(t, registry.Options{Selection: usual})
	m, err := config.New(reg, config.Options{Kinds: []config.Kind{config.Bind(llm, "model", w.make)}})
	require.NoError(t, err)
	in := func() selection.Policy {
		policy, err := llm.Selection(reg)
		require.NoError(t, err)
		return policy
	}
	apply(t, m, models("name: a"))
	require.Equal(t, usual, in())
	for _, spill := range []string{"1.4", "1.5"} {
		apply(t, m, models("name: a")+"    selection: {spill_over: "+spill+"}\n")
		require.Equal(t, spill, fmt.Sprint(in().SpillOver))
	}
	apply(t, m, models("name: a"))
	require.Equal(t, usual, in())
}

func TestApply_CallsInFlightOfWhatLeavesAreDrained(t *testing.T) {
	t.Parallel()
	reg, m, w := manage(t)
	apply(t, m, models("name: a, settings: {model: old}"))
	began, end := make(chan struct{}), make(chan struct{})
	answered := make(chan error, 1)
	go func() {
		_, err := registry.Call(t.Context(), llm.Bind(reg, registry.Query{}), func(ctx context.Context, m model) (string, error) {
			close(began)
			<-end
			if m.(*fakeModel).closed.Load() { //nolint:forcetypeassert // of the kind
				return "", errors.New("closed under a call")
			}
			return m.Answer(), ctx.Err()
		})
		answered <- err
	}()
	<-began
	apply(t, m, models("name: a, settings: {model: new}"))
	require.Equal(t, "new", ask(t, reg))
	close(end)
	require.NoError(t, <-answered)
	require.Eventually(t, func() bool { return w.open.Load() == 1 }, 10*time.Second, time.Millisecond)
}

func TestApply_WhatTheProgramRegisteredIsLeftAlone(t *testing.T) {
	t.Parallel()
	reg, m, _ := manage(t)
	own, err := llm.Register(t.Context(), reg, registry.Provider[model]{Name: "own", Instance: &fakeModel{}})
	require.NoError(t, err)
	_, err = m.Apply(t.Context(), parse(t, models("name: own")))
	require.ErrorIs(t, err, registry.ErrExists)
	require.ErrorContains(t, err, "services.llm.providers[own]")
	apply(t, m, models("name: a"))
	apply(t, m, models("name: b"))
	require.Len(t, listing(reg), 2)
	b, _ := reg.Provider("llm", "b")
	require.NoError(t, b.Unregister(t.Context()))
	plan := apply(t, m, models("name: b"))
	require.Equal(t, 1, plan.Count(config.Add), "what was unregistered by hand comes back")
	require.True(t, own.Info().Eligible)
}

func TestApply_WaitsForItsTurnWithinItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, m, w := manage(t)
		hold := make(chan struct{})
		w.before = func(context.Context, modelSettings) error { <-hold; return nil }
		first := make(chan error, 1)
		a := parse(t, models("name: a"))
		go func() {
			_, err := m.Apply(t.Context(), a)
			first <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := m.Apply(ctx, parse(t, models("name: b")))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		close(hold)
		require.NoError(t, <-first)
		require.Equal(t, []string{"a"}, names(m.Current(), "llm"))
	})
}
