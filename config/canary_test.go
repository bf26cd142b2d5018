package config_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/config"
)

// load calls the service ten times a second until the test ends. Providers whose model is "bad" fail at every other call.
func (f *following) load(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	resolver := llm.Bind(f.reg, registry.Query{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			_, _ = registry.Call(ctx, resolver, func(_ context.Context, m model) (string, error) {
				if m.Answer() == "bad" && i%2 == 0 {
					return "", errors.New("bad")
				}
				return m.Answer(), nil
			})
			time.Sleep(100 * time.Millisecond)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

func TestCanary_WorseDocumentIsTakenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var v config.Value
		v.Set(parse(t, models("name: a, settings: {model: good}")))
		f := follow(t, &v, config.FollowOptions{Canary: &config.Canary{For: 30 * time.Second}})
		require.Equal(t, config.Applied, f.next(t).Kind)
		f.load(t)
		time.Sleep(10 * time.Second)
		v.Set(parse(t, models("name: a, settings: {model: bad}, breaker: {failure_threshold: 100}")))
		require.Equal(t, config.Applied, f.next(t).Kind)
		e := f.next(t)
		require.Equal(t, config.Reverted, e.Kind)
		var worse *config.WorseError
		require.ErrorAs(t, e.Err, &worse)
		require.Equal(t, "llm", worse.Service)
		require.InDelta(t, 0.5, worse.After, 0.1)
		require.Zero(t, worse.Before)
		require.Equal(t, "good", ask(t, f.reg))
		require.Equal(t, 1, e.Plan.Count(config.Replace))
	})
}

func TestCanary_GoodDocumentStays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg, m, _ := manage(t)
		f := &following{reg: reg, m: m}
		canary := config.Canary{For: 10 * time.Second}
		began := time.Now()
		_, err := m.ApplyCanary(t.Context(), parse(t, models("name: a, settings: {model: good}")), canary)
		require.NoError(t, err)
		require.Zero(t, time.Since(began), "there is nothing to go back to")
		f.load(t)
		_, err = m.ApplyCanary(t.Context(), parse(t, models("name: a, settings: {model: better}")), canary)
		require.NoError(t, err)
		require.Equal(t, 10*time.Second, time.Since(began))
		require.Equal(t, "better", ask(t, reg))
		_, err = m.ApplyCanary(t.Context(), parse(t, models("name: a, settings: {model: better}")), canary)
		require.NoError(t, err)
		require.Equal(t, 10*time.Second, time.Since(began), "nothing changed")

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = m.ApplyCanary(ctx, parse(t, models("name: a, settings: {model: best}")), canary)
		require.NoError(t, err)
		require.Equal(t, "best", ask(t, reg))
		for _, wrong := range []config.Canary{{For: -1}, {Worse: 2}, {Every: -1}} {
			_, err = m.ApplyCanary(t.Context(), parse(t, models("name: b")), wrong)
			require.ErrorIs(t, err, registry.ErrInvalid)
		}
		require.Equal(t, []string{"a"}, names(m.Current(), "llm"))
	})
}

func TestCanary_WhatWasAppliedMeanwhileStays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg, m, _ := manage(t)
		f := &following{reg: reg, m: m}
		apply(t, m, models("name: a, settings: {model: good}"))
		f.load(t)
		bad := parse(t, models("name: a, settings: {model: bad}, breaker: {failure_threshold: 100}"))
		watched := make(chan error, 1)
		go func() {
			_, err := m.ApplyCanary(t.Context(), bad, config.Canary{For: 30 * time.Second, Every: 10 * time.Second})
			watched <- err
		}()
		time.Sleep(5 * time.Second)
		apply(t, m, models("name: a, settings: {model: fixed}"))
		require.NoError(t, <-watched)
		require.Equal(t, "fixed", ask(t, reg))
	})
}
