package config_test

import (
	"context"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/config"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// fail makes the next call of a provider fail with an error.
func fail(t *testing.T, reg *registry.Registry, name string, failure error) {
	t.Helper()
	resolver := llm.Bind(reg, registry.Query{Only: []string{name}})
	_, err := registry.Call(t.Context(), resolver, func(context.Context, model) (string, error) { return "", failure })
	require.Error(t, err)
}

const threeModels = `services:
  llm:
    providers:
      - {name: open, kind: model, settings: {model: a}, breaker: {failure_threshold: 1, recovery_timeout: 1h}}
      - {name: parked, kind: model, settings: {model: b, key: "${env:CONFIG_TEST_KEY}"}, domain: key}
      - {name: same key, kind: model, settings: {model: c, key: "${env:CONFIG_TEST_KEY}"}, domain: key}
      - {name: well, kind: model, settings: {model: d}}
domains: {key: {}}
`

// learn lets a registry find out that a provider fails, and that a key is dead.
func learn(t *testing.T, reg *registry.Registry) {
	t.Helper()
	fail(t, reg, "open", errors.New("down"))
	fail(t, reg, "parked", verdict.As(errors.New("the key "+secret+" is revoked"), verdict.Verdict{
		Class: verdict.ClassFatal, Scope: verdict.ScopeDomain, After: 5 * time.Hour,
	}))
}

func keptAway(reg *registry.Registry) (names []string) {
	for _, info := range listing(reg) {
		if !info.Eligible {
			names = append(names, info.Name)
		}
	}
	return names
}

func TestState_ParkedKeysAndOpenBreakersSurviveARestart(t *testing.T) {
	t.Setenv("CONFIG_TEST_KEY", secret)
	path := filepath.Join(t.TempDir(), "state.json")
	reg, m, _ := manage(t)
	apply(t, m, threeModels)
	learn(t, reg)
	before := listing(reg)
	require.Equal(t, []string{"open", "parked", "same key"}, keptAway(reg))
	require.NoError(t, m.Save(path))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NotContains(t, string(text), "s3cr", "%s", text)
	require.Contains(t, string(text), "the key ${env:CONFIG_TEST_KEY} is revoked")
	if runtime.GOOS != "windows" {
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode())
	}

	reg, m, _ = manage(t)
	restored, err := m.Restore(path)
	require.NoError(t, err)
	require.Equal(t, 3, restored.Providers)
	require.Less(t, restored.Age, time.Hour)
	apply(t, m, threeModels)
	require.Equal(t, []string{"open", "parked", "same key"}, keptAway(reg))
	for i, info := range listing(reg) {
		require.Equal(t, before[i].Breaker.State, info.Breaker.State, info.Name)
		require.Equal(t, before[i].Cooldown.Parked, info.Cooldown.Parked, info.Name)
		require.WithinDuration(t, before[i].Cooldown.Until, info.Cooldown.Until, time.Second, info.Name)
		require.InDelta(t, before[i].Breaker.RetryIn, info.Breaker.RetryIn, float64(time.Minute), info.Name)
	}

	t.Setenv("CONFIG_TEST_KEY", "a new key")
	reg, m, _ = manage(t)
	_, err = m.Restore(path)
	require.NoError(t, err)
	apply(t, m, threeModels)
	require.Equal(t, []string{"open"}, keptAway(reg), "a new key is not parked")
}

// Variants: restored by a later process, and kept by a replacement; a provider with a probe is judged by that.
func TestState_MarksOfOperatorsSurvive(t *testing.T) {
	t.Parallel()
	probed := config.BindImplementation(llm, "probed", func(modelSettings) (config.Implementation[model], error) {
		return config.Implementation[model]{Instance: &fakeModel{of: &workshop{}}, Probe: func(context.Context) error { return nil }}, nil
	})
	const document = "services: {llm: {providers: [{name: a, kind: model}, {name: b, kind: model}, {name: p, kind: probed}]}}"
	path := filepath.Join(t.TempDir(), "state.json")
	reg, m, _ := manage(t, probed)
	apply(t, m, document)
	for _, name := range []string{"a", "p"} {
		handle, _ := reg.Provider("llm", name)
		require.NoError(t, handle.MarkUnhealthy(errors.New("for maintenance")))
	}
	require.NoError(t, m.Save(path))
	apply(t, m, strings.ReplaceAll(document, "kind: model", "kind: model, tags: [x]"))
	a, _ := reg.Provider("llm", "a")
	require.EqualError(t, a.Health().Err, "for maintenance", "of the replacement")

	reg, m, _ = manage(t, probed)
	restored, err := m.Restore(path)
	require.NoError(t, err)
	require.Equal(t, 1, restored.Providers)
	apply(t, m, document)
	require.Equal(t, []string{"a"}, keptAway(reg))
	a, _ = reg.Provider("llm", "a")
	require.EqualError(t, a.Health().Err, "for maintenance")
	require.NoError(t, a.MarkHealthy())
	require.Empty(t, keptAway(reg))
	require.NoError(t, m.Save(path))
	restored, err = m.Restore(path)
	require.NoError(t, err)
	require.Zero(t, restored.Providers, "the mark is over")
}

func TestState_IsKeptByAReplacementOfTheSameKindAndSettings(t *testing.T) {
	t.Setenv("CONFIG_TEST_KEY", secret)
	reg, m, _ := manage(t)
	apply(t, m, threeModels)
	learn(t, reg)
	tagged := strings.ReplaceAll(threeModels, "kind: model,", "kind: model, tags: [x],")
	plan := apply(t, m, tagged)
	require.Equal(t, 4, plan.Count(config.Replace))
	require.Contains(t, plan.String(), "queue, open breaker, cooldown, measurements")
	require.Equal(t, []string{"open", "parked", "same key"}, keptAway(reg))
	apply(t, m, strings.ReplaceAll(tagged, "model: a", "model: another"))
	require.Equal(t, []string{"parked", "same key"}, keptAway(reg), "another model starts afresh")
}

const measuredModels = `services:
  llm:
    groups: {0: {strategy: LATENCY_AWARE}, 1: {strategy: ROUND_ROBIN}}
    providers:
      - {name: slow, kind: model, settings: {model: 2s}}
      - {name: quick, kind: model, settings: {model: 100ms}}
      - {name: a, kind: model, settings: {model: 1ms}, group: 1}
      - {name: b, kind: model, settings: {model: 1ms}, group: 1}
      - {name: c, kind: model, settings: {model: 1ms}, group: 1}
`

// asked makes a call of one of the named models, which takes as long as the model is called, and returns which it was.
func asked(t *testing.T, reg *registry.Registry, names ...string) string {
	t.Helper()
	var report registry.CallReport
	resolver := llm.Bind(reg, registry.Query{Only: names})
	_, err := registry.Call(t.Context(), resolver, func(_ context.Context, m model) (string, error) {
		takes, err := time.ParseDuration(m.Answer())
		time.Sleep(takes)
		return "", err
	}, registry.ReportTo(&report))
	require.NoError(t, err)
	return report.Attempts[0].Provider
}

func performance(reg *registry.Registry, name string) status.Performance {
	handle, _ := reg.Provider("llm", name)
	return handle.Performance()
}

func TestState_WhatAttemptsHaveTaughtSurvivesARestartAndFades(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "state.json")
		reg, m, _ := manage(t)
		apply(t, m, measuredModels)
		require.Equal(t, "slow", asked(t, reg, "slow"))
		require.Equal(t, "quick", asked(t, reg, "quick"))
		last := asked(t, reg, "a", "b", "c")
		known := performance(reg, "slow")
		require.Positive(t, known.Latency)
		require.NoError(t, m.Save(path))
		restarted := func() (*registry.Registry, *config.Manager) {
			reg, m, _ := manage(t)
			restored, err := m.Restore(path)
			require.NoError(t, err)
			require.Equal(t, 3, restored.Providers)
			return reg, m
		}

		time.Sleep(5 * time.Second)
		reg, m = restarted()
		apply(t, m, measuredModels)
		now := performance(reg, "slow")
		require.InDelta(t, float64(known.Latency)*math.Exp(-0.5), float64(now.Latency), float64(10*time.Millisecond))
		require.Equal(t, 2*time.Second, now.Longest)
		require.Equal(t, "quick", llm.Bind(reg, registry.Query{Only: []string{"slow", "quick"}}).Explain().Winner)
		next := map[string]string{"a": "b", "b": "c", "c": "a"}[last]
		require.Equal(t, next, asked(t, reg, "a", "b", "c"), "the turn after the last one before")

		reg, m = restarted()
		apply(t, m, strings.ReplaceAll(measuredModels, "2s", "1s"))
		require.Zero(t, performance(reg, "slow").Longest, "another model starts afresh")

		time.Sleep(2 * time.Minute)
		reg, m = restarted()
		apply(t, m, measuredModels)
		require.Zero(t, performance(reg, "slow").Latency, "little of it would be left")
		require.Equal(t, 2*time.Second, performance(reg, "slow").Longest)

		time.Sleep(time.Hour)
		reg, m = restarted()
		apply(t, m, measuredModels)
		require.Equal(t, status.Performance{At: time.Now()}, performance(reg, "slow"), "too old")
	})
}

func TestState_WhatAttemptsHaveTaughtIsKeptByAReplacementOfTheSameKindAndSettings(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg, m, _ := manage(t)
		apply(t, m, measuredModels)
		asked(t, reg, "slow")
		last := asked(t, reg, "a", "b", "c")
		plan := apply(t, m, strings.ReplaceAll(measuredModels, "kind: model,", "kind: model, tags: [x],"))
		require.Equal(t, 5, plan.Count(config.Replace))
		require.Contains(t, plan.String(), "open breaker, cooldown, measurements")
		known := performance(reg, "slow")
		require.InDelta(t, float64(2*time.Second), float64(known.Latency), float64(10*time.Millisecond))
		require.Equal(t, 2*time.Second, known.Longest)
		require.Equal(t, map[string]string{"a": "b", "b": "c", "c": "a"}[last], asked(t, reg, "a", "b", "c"))
		apply(t, m, strings.ReplaceAll(measuredModels, "2s", "1s"))
		require.Zero(t, performance(reg, "slow").Longest)
	})
}

func TestState_WhatIsNoStateIsRefused(t *testing.T) {
	t.Parallel()
	_, m, _ := manage(t)
	dir := write(t, map[string]string{
		"empty": "", "text": "oh", "version": `{"version": 7, "providers": []}`, "salt": `{"version": 1, "salt": "xyz"}`,
	})
	for _, name := range []string{"empty", "text", "version", "salt"} {
		_, err := m.Restore(filepath.Join(dir, name))
		require.ErrorIs(t, err, registry.ErrInvalid, name)
	}
	_, err := m.Restore(filepath.Join(dir, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestState_SaveIntoADirectoryThatIsMissingIsAnError(t *testing.T) {
	t.Parallel()
	_, m, _ := manage(t)
	require.ErrorIs(t, m.Save(filepath.Join(t.TempDir(), "none", "state.json")), os.ErrNotExist)
}

// smallDisk returns a directory with a file system of 16 KiB of its own.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	var refused error
	for _, as := range [][]string{{"mount"}, {"sudo", "-n", "mount"}} {
		mount := append(slices.Clone(as), "-t", "tmpfs", "-o", "size=16k,mode=0777", "tmpfs", dir)
		err := exec.CommandContext(t.Context(), mount[0], mount[1:]...).Run()
		if err != nil {
			refused = errors.Join(refused, err)
			continue
		}
		t.Cleanup(func() {
			umount := append(slices.Clone(as[:len(as)-1]), "umount", dir)
			require.NoError(t, exec.CommandContext(context.Background(), umount[0], umount[1:]...).Run())
		})
		return dir
	}
	t.Skip("a small file system cannot be mounted here: ", refused)
	return ""
}

func TestState_FullDiskLeavesTheOldFileAsItIs(t *testing.T) {
	dir := smallDisk(t)
	t.Setenv("CONFIG_TEST_KEY", secret)
	reg, m, _ := manage(t)
	apply(t, m, threeModels)
	learn(t, reg)
	path := filepath.Join(dir, "state.json")
	require.NoError(t, m.Save(path))
	was, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Error(t, os.WriteFile(filepath.Join(dir, "full"), make([]byte, 32<<10), 0o600))
	require.ErrorContains(t, m.Save(path), "the state is not saved")
	now, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(was), string(now))
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 2, "no half of a file is left")
}
