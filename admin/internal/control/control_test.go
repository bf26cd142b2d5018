package control_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin/action"
	"github.com/capreg/registry/admin/internal/control"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/reason"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var chat = registry.NewService[int]("chat")

var errDown = errors.New("down")

// inBubble runs a test of a control in a bubble, with providers a and b.
func inBubble(t *testing.T, options control.Options, test func(t *testing.T, reg *registry.Registry, c *control.Control)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		reg, err := registry.New(registry.Options{})
		require.NoError(t, err)
		for i, name := range []string{"a", "b"} {
			_, err := chat.Register(t.Context(), reg, registry.Provider[int]{Name: name, Instance: i})
			require.NoError(t, err)
		}
		options.Events = max(options.Events, 10)
		if options.ChangesPerSecond == 0 {
			options.ChangesPerSecond, options.ChangesAtOnce = 10, 20
		}
		c := control.New(reg, options)
		test(t, reg, c)
		c.Close()
		require.NoError(t, reg.Close(context.Background()))
		c.Close()
	})
}

// by is a request of an actor that may do everything.
func by(actor string) control.Ask {
	return control.Ask{Match: "*", Party: control.Party{
		Remote: "10.0.0.1", Authorize: func(action.Action) (string, error) { return actor, nil },
	}}
}

func kindOf(t *testing.T, err error) control.Kind {
	t.Helper()
	var refusal *control.Error
	require.ErrorAs(t, err, &refusal)
	return refusal.Kind
}

func TestControl_LimitsEachActorByItself(t *testing.T) {
	t.Parallel()
	inBubble(t, control.Options{ChangesPerSecond: 1, ChangesAtOnce: 2}, func(t *testing.T, _ *registry.Registry, c *control.Control) {
		a := control.Target{Service: "chat", Provider: "a"}
		for range 2 {
			_, err := c.Drain(by("first"), a)
			require.NoError(t, err)
		}
		_, err := c.Drain(by("first"), a)
		require.Equal(t, control.TooMany, kindOf(t, err))
		var refusal *control.Error
		require.ErrorAs(t, err, &refusal)
		require.Equal(t, time.Second, refusal.RetryIn)
		_, err = c.Drain(by("second"), a)
		require.NoError(t, err)
		time.Sleep(time.Second)
		_, err = c.Drain(by("first"), a)
		require.NoError(t, err)
		for i := range 3000 { // more than are known each by itself: they share what is left, and nothing grows
			_, _ = c.Drain(by(fmt.Sprint("actor", i)), a)
		}
		_, err = c.Drain(by("another"), a)
		require.Equal(t, control.TooMany, kindOf(t, err))
		time.Sleep(time.Hour)
		_, err = c.Drain(by("another"), a)
		require.NoError(t, err, "those that have been quiet are forgotten")
	})
}

func TestControl_SaysWhatMayBeDone(t *testing.T) {
	t.Parallel()
	inBubble(t, control.Options{}, func(t *testing.T, _ *registry.Registry, c *control.Control) {
		drain := action.Action{Verb: action.Drain, Service: "chat", Provider: "a"}
		require.True(t, c.MayChange(by("ops").Party, drain))
		require.False(t, c.MayChange(control.Party{}, drain))
		refuses := control.Party{Authorize: func(action.Action) (string, error) { return "", errDown }}
		require.False(t, c.MayChange(refuses, drain))
		require.NoError(t, c.MayRead(control.Party{}))
		require.Equal(t, control.Denied, kindOf(t, c.MayRead(refuses)))
		require.ErrorIs(t, c.MayRead(refuses), errDown)
		require.Equal(t, control.ReadOnly, kindOf(t, c.MayPlan(control.Party{})))
		require.Empty(t, c.Latest("", true, 10), "nothing of it is recorded")
	})
}

func TestControl_RefusesWhatTheRegistryRefuses(t *testing.T) {
	t.Parallel()
	inBubble(t, control.Options{}, func(t *testing.T, reg *registry.Registry, c *control.Control) {
		a := control.Target{Service: "chat", Provider: "a"}
		_, err := c.SetWeight(by("ops"), a, -1)
		require.Equal(t, control.Invalid, kindOf(t, err))
		_, err = c.SetWeight(by("ops"), a, math.NaN())
		require.Equal(t, control.Invalid, kindOf(t, err))
		_, err = c.SetLimits(by("ops"), a, registry.LimitPolicy{MaxConcurrent: -1})
		require.Equal(t, control.Invalid, kindOf(t, err))
		_, err = c.ForceOpen(by("ops"), a, 0)
		require.Equal(t, control.Invalid, kindOf(t, err))
		_, err = c.Restart(t.Context(), by("ops"), "database")
		require.Equal(t, control.NotFound, kindOf(t, err))
		status, err := c.CheckHealth(t.Context(), by("ops"), a)
		require.NoError(t, err)
		require.Equal(t, health.Healthy, status.State)
		ended, end := context.WithCancel(t.Context())
		end()
		_, err = c.SetPriority(ended, by("ops"), a, control.PriorityChange{Group: new(int)})
		require.NoError(t, err, "nothing is to be changed")
		require.NoError(t, reg.Close(t.Context()))
		_, err = c.Drain(by("ops"), a)
		require.Equal(t, control.NotFound, kindOf(t, err))
		_, err = c.Explain(t.Context(), "chat", registry.Query{}, "")
		require.Error(t, err)
		require.Equal(t, health.Unhealthy, c.Health().Overall)
	})
}

func TestFollow_ReadsEachEntryOnceInOrder(t *testing.T) {
	t.Parallel()
	inBubble(t, control.Options{Events: 100}, func(t *testing.T, reg *registry.Registry, c *control.Control) {
		cursor := c.Follow("")
		_, _, wait, ended := cursor.Read()
		require.False(t, ended)
		_, err := c.Drain(by("ops"), control.Target{Service: "chat", Provider: "a"})
		require.NoError(t, err)
		<-wait
		synctest.Wait()
		entries, lost, _, _ := cursor.Read()
		require.Zero(t, lost)
		require.Len(t, entries, 2)
		kinds := []string{entries[0].Kind(), entries[1].Kind()}
		require.ElementsMatch(t, []string{"registry", "audit"}, kinds)
		for _, e := range entries {
			require.True(t, e.Of("chat"))
			require.False(t, e.Of("search"))
			require.Contains(t, string(e.Text()), `"id":"`+e.ID+`"`)
		}
		again, _, _, _ := c.Follow(entries[0].ID).Read()
		require.Equal(t, entries[1:], again)
		require.NoError(t, reg.Close(t.Context()))
		synctest.Wait()
		for ended = false; !ended; {
			entries, _, _, ended = cursor.Read()
		}
		require.Empty(t, entries)
	})
}

// The advice names what can be done where something can be, and says nothing where all is as it should be.
func TestAdvice_IsGivenWhereSomethingCanBeDone(t *testing.T) {
	t.Parallel()
	for code, part := range map[reason.Code]string{
		reason.Eligible: "", reason.NoTraffic: "undrain it", reason.Unhealthy: "its probes", reason.BreakerOpen: "a reset closes it",
		reason.TrialsFull: "a reset closes it", reason.Parked: "credentials", reason.CoolingDown: "by itself", reason.NotReady: "is not ready",
		reason.Starting: "is not ready", reason.AtCapacity: "no free place", reason.Overridden: "",
	} {
		advice := control.Advice(&control.Row{Provider: "a", Service: "chat", Code: code})
		require.Contains(t, advice, part, code)
		require.Equal(t, part == "", advice == "", code)
	}
}

func TestControl_StandsConcurrentUse(t *testing.T) {
	t.Parallel()
	reg, err := registry.New(registry.Options{})
	require.NoError(t, err)
	for i := range 20 {
		_, err := chat.Register(t.Context(), reg, registry.Provider[int]{Name: fmt.Sprint("p", i), Instance: i})
		require.NoError(t, err)
	}
	c := control.New(reg, control.Options{Events: 100, ChangesPerSecond: 1e6, ChangesAtOnce: 1e6})
	var all sync.WaitGroup
	for i := range 4 {
		target := control.Target{Service: "chat", Provider: fmt.Sprint("p", i)}
		all.Go(func() {
			for range 15 {
				_, _ = c.Drain(by("ops"), target)
				_, _ = c.ForceOpen(by("ops"), target, time.Minute)
				_, _ = c.Reset(by("ops"), "chat", "")
				_, _ = c.Undrain(by("ops"), target)
			}
		})
		all.Go(func() {
			cursor := c.Follow("")
			for range 15 {
				_ = c.Snapshot()
				_ = c.Health()
				_, _ = c.Provider(target)
				_, _, _, _ = c.Providers(control.Filter{Text: "p"}, "", 5)
				entries, _, _, _ := cursor.Read()
				for _, e := range entries {
					_ = e.Text()
				}
			}
		})
	}
	all.Wait()
	c.Close()
	for info := range reg.All() {
		require.NotZero(t, info.Weight, info.Name)
		require.False(t, info.NoTraffic, info.Name)
	}
	require.NoError(t, reg.Close(context.Background()))
}
