package effects_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/breaker"
	"github.com/capreg/registry/internal/effects"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/pace"
	"github.com/capreg/registry/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEffects_WhatNeedsTheFlagSetsIt(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		change  func(e *effects.Effects)
		tracked bool
	}{
		"nothing":         {func(*effects.Effects) {}, false},
		"success":         {func(e *effects.Effects) { e.MoveBudget(breaker.Success) }, false},
		"neutral outcome": {func(e *effects.Effects) { e.MoveBudget(breaker.Neutral) }, false},
		"unanswered":      {func(e *effects.Effects) { e.MoveBudget(breaker.Unanswered) }, false},
		"failure":         {func(e *effects.Effects) { e.MoveBudget(breaker.Failure) }, true},
		"refill":          {func(e *effects.Effects) { e.RefillBudget() }, false},
		"policy":          {func(e *effects.Effects) { e.SetRetryPolicy(limit.RetryPolicy{Budget: 1}) }, false},
		"failure by a policy": {func(e *effects.Effects) {
			e.SetRetryPolicy(limit.RetryPolicy{Budget: 1})
			e.MoveBudget(breaker.Failure)
		}, true},
		"growth":             {func(e *effects.Effects) { e.SetCooldownGrown(true) }, true},
		"no growth":          {func(e *effects.Effects) { e.SetCooldownGrown(false) }, false},
		"answer":             {func(e *effects.Effects) { e.NoteAnswer(time.Second) }, false},
		"wait":               {func(e *effects.Effects) { e.NoteWait(time.Second) }, true},
		"end of a wait":      {func(e *effects.Effects) { e.EndWait() }, false},
		"breaker that looks": {func(e *effects.Effects) { e.Track() }, true},
	} {
		var e effects.Effects
		row.change(&e)
		require.Equal(t, row.tracked, e.Tracked(), name)
	}
}

func TestEffects_FailuresSpendTheBudgetAndSuccessesRefundIt(t *testing.T) {
	t.Parallel()
	var e effects.Effects
	require.Nil(t, e.Retry())
	e.MoveBudget(breaker.Failure)
	require.Equal(t, 10, e.Retry().Policy.Budget, "the default")

	previous := e.SetRetryPolicy(limit.RetryPolicy{Budget: 2, Refund: 1, Floor: 1e-9})
	require.Equal(t, 10, previous.Budget)
	known := e.Retry()
	require.True(t, known.Allow())
	e.MoveBudget(breaker.Failure)
	known.Allow() // the floor
	require.False(t, known.Allow())
	e.MoveBudget(breaker.Success)
	require.True(t, known.Allow())
	e.MoveBudget(breaker.Failure)
	e.MoveBudget(breaker.Failure)
	require.False(t, known.Allow())
	e.RefillBudget()
	require.True(t, known.Allow())
}

func TestEffects_PolicyReplacesTheOneBefore(t *testing.T) {
	t.Parallel()
	var e effects.Effects
	policy, left := e.RetryPolicy()
	require.Equal(t, 10, policy.Budget, "the default")
	require.Equal(t, status.Budget{Left: 10}, left)
	require.Equal(t, policy, e.SetRetryPolicy(limit.RetryPolicy{Budget: 4}))

	policy, left = e.RetryPolicy()
	require.Equal(t, limit.RetryPolicy{Budget: 4}, policy)
	require.Equal(t, status.Budget{Left: 4}, left)
	e.MoveBudget(breaker.Failure)
	e.MoveBudget(breaker.Failure)
	_, left = e.RetryPolicy()
	require.Equal(t, status.Budget{Left: 2, Low: true}, left)
	require.Equal(t, policy, e.SetRetryPolicy(limit.RetryPolicy{Budget: 6}))
	_, left = e.RetryPolicy()
	require.Equal(t, status.Budget{Left: 6}, left, "a full budget")
}

func TestEffects_GrowthAndPaceAreRemembered(t *testing.T) {
	t.Parallel()
	var e effects.Effects
	require.False(t, e.CooldownGrown())
	e.SetCooldownGrown(true)
	require.True(t, e.CooldownGrown())
	e.SetCooldownGrown(false)
	require.False(t, e.CooldownGrown())

	require.True(t, e.NoteAnswer(2*time.Second))
	require.False(t, e.NoteAnswer(time.Second))
	e.NoteWait(3 * time.Second)
	require.Equal(t, pace.Known{Longest: 2 * time.Second, Waited: 3 * time.Second}, e.KnownPace(0))
	e.EndWait()
	require.Zero(t, e.KnownPace(0).Waited)
}

func TestEffects_GoOnFromThePaceOfBefore(t *testing.T) {
	t.Parallel()
	var answers, waits effects.Effects
	var all pace.Pace
	answers.ContinuePace(pace.Known{Longest: time.Second}, 0, &all)
	require.Equal(t, pace.Known{Longest: time.Second}, answers.KnownPace(0))
	require.Equal(t, time.Second, all.Known(0).Longest, "the service knows the answer, too")
	require.False(t, answers.Tracked())
	waits.ContinuePace(pace.Known{Waited: 2 * time.Second}, 0, &all)
	require.Equal(t, 2*time.Second, waits.KnownPace(0).Waited)
	require.True(t, waits.Tracked(), "a success has a wait to end")
	require.Zero(t, all.Known(0).Waited)
}

func TestEffects_ThatGoOnFromNoAnswerTellTheServiceNothing(t *testing.T) {
	t.Parallel()
	var e effects.Effects
	var all pace.Pace
	e.ContinuePace(pace.Known{Waited: time.Second}, 0, &all)
	require.Equal(t, pace.Known{}, all.Known(0))
}
