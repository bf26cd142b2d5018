package probe_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/probe"
)

func inWords(reason string) string { return reason + ", in words" }

func oneCause() []string { return []string{"a/b"} }

func TestCondition_IsThatOfAHealthyProviderUntilItIsMarked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c probe.Condition
		c.Begin(policy())
		began := time.Now()
		require.False(t, c.Changed(false))
		_, _, tell := c.Publish(false, inWords)
		require.False(t, tell)
		require.Equal(t, health.Status{State: health.Healthy, Score: 1, Since: began}, c.Status(false, oneCause))
		require.Equal(t, health.Status{State: health.Draining, Score: 1, Since: began}, c.Status(true, oneCause))
		require.False(t, c.AwaitFirst(), "nothing is probed")
		require.Empty(t, c.History())

		time.Sleep(time.Minute)
		c.Mark(errDown, "down")
		require.True(t, c.Changed(false))
		require.False(t, c.IsUnhealthy(), "that is not published yet")
		change, cause, tell := c.Publish(false, inWords)
		require.True(t, tell)
		require.Equal(t, errDown, cause)
		require.Equal(t, health.Transition{
			Time: time.Now(), From: health.Healthy, To: health.Unhealthy, Reason: "down, in words",
		}, change)
		require.Equal(t, []health.Transition{change}, c.History())
		require.True(t, c.UnhealthySince(time.Now()))
		require.False(t, c.UnhealthySince(began))
		require.False(t, c.Answers(false))
		require.Equal(t, []string{"a/b"}, c.Status(false, oneCause).Because)
		require.Zero(t, c.Score())

		_, _, tell = c.Publish(false, inWords)
		require.False(t, tell, "it was told")
		c.Mark(errGone, "gone")
		change, cause, tell = c.Publish(false, inWords)
		require.True(t, tell, "another mark is told, and is no transition")
		require.Equal(t, errGone, cause)
		require.Equal(t, health.Unhealthy, change.From)
		require.Len(t, c.History(), 1)
		_, _, tell = c.Publish(false, inWords)
		require.False(t, tell, "it was told, too")

		c.Mark(nil, "")
		change, _, tell = c.Publish(false, inWords)
		require.True(t, tell)
		require.Equal(t, health.Healthy, change.To)
		require.Empty(t, change.Reason)
		require.Len(t, c.History(), 2)
		require.True(t, c.Answers(false))
	})
}

func TestCondition_OfOneThatHasLeftIsDraining(t *testing.T) {
	t.Parallel()
	var c probe.Condition
	c.Begin(policy())
	c.Mark(errDown, "down")
	state, reason, cause := c.State(true)
	require.Equal(t, health.Draining, state)
	require.Empty(t, reason)
	require.NoError(t, cause)
	require.True(t, c.Changed(true))
	require.False(t, c.Answers(true))
}

func TestCondition_AwaitsTheFirstResultOfItsProbes(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		var p target
		s := h.provider(probe.Identity{Name: "a"})
		var c probe.Condition
		h.locked(func() {
			c.Begin(policy())
			c.Watch = s.watch
			c.Watch.Configure(policy(), p.probe, health.Unknown)
			require.True(t, c.AwaitFirst())
			require.False(t, c.Changed(false), "that it is unknown counts as published")
		})
		synctest.Wait()
		h.locked(func() {
			require.True(t, c.Changed(false))
			change, _, tell := c.Publish(false, inWords)
			require.True(t, tell)
			require.Equal(t, health.Unknown, change.From)
			require.Equal(t, health.Healthy, change.To)
		})
	})
}

func TestCondition_MarkOverrulesProbesAndItsEndDoesToo(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		p := target{err: health.Out(errDown)}
		s := h.watched("a", policy(), p.probe)
		h.locked(func() {
			var c probe.Condition
			c.Begin(policy())
			c.Watch = s.watch
			c.Mark(errGone, "gone")
			state, _, cause := c.Watch.State()
			require.Equal(t, health.Unhealthy, state, "what the probes say stays")
			require.ErrorIs(t, cause, errDown)
			c.Mark(nil, "")
			state, _, _ = c.State(false)
			require.Equal(t, health.Healthy, state)
		})
	})
}

func TestCondition_ThatIsHealthyAgainBeginsTheCountOfRecoveries(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		marked := policy()
		marked.RecoverLimit = 1
		ran := 0
		marked.Recover = func(context.Context) error { ran++; return errDown }
		s := h.watched("a", marked, nil)
		var c probe.Condition
		h.locked(func() {
			c.Begin(marked)
			c.Watch = s.watch
		})
		for _, want := range []int{1, 2} {
			h.locked(func() {
				c.Mark(errDown, "down")
				_, _, _ = c.Publish(false, inWords)
				s.published = health.Unhealthy
				c.Watch.Recover()
			})
			pass(time.Minute)
			h.locked(func() {
				c.Watch.Recover()
				require.Equal(t, want, ran, "it has reached its limit")
				c.Mark(nil, "")
				_, _, _ = c.Publish(false, inWords)
			})
		}
	})
}
