package registry_test

import (
	"encoding/json"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/verdict"
)

// Variants: calls, leases reported and forgotten, panics, texts of any size and of several lines, an Error method that
// exits its goroutine; cancelled attempts are none.
func TestLastError_IsInInfoExplanationAndEvent(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		long := errors.New("quota of project x\nis used up " + strings.Repeat("é", 1000))
		instance, set := testkit.Settable()
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: instance, Breaker: registry.BreakerPolicy{FailureThreshold: 2}})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		events := reg.Subscribe(0)
		defer events.Close()
		r := testkit.Bind(reg)
		require.Nil(t, a.Info().LastError)
		set(long)
		testkit.MustAsk(t, r)
		began := time.Now()
		testkit.MustAsk(t, r)
		last := a.Info().LastError
		require.NotNil(t, last)
		require.Equal(t, verdict.ClassUnknown, last.Class)
		require.Equal(t, began, last.Time)
		require.True(t, strings.HasPrefix(last.Text, "quota of project x is used up"), last.Text)
		require.LessOrEqual(t, len(last.Text), 300)
		require.Equal(t, last, r.Explain().Candidates[0].LastError)
		require.Contains(t, r.Explain().String(), "last error at")
		require.Equal(t, 2, strings.Count(r.Explain().String(), "\n"), "a line for each candidate")
		asJSON, err := json.Marshal(a.Info())
		require.NoError(t, err)
		require.Contains(t, string(asJSON), `"last_error":{"text":"quota of project x is used up`)
		opened := testkit.Events(t, events)
		require.Equal(t, event.BreakerOpened, opened[0].Kind)
		require.ErrorContains(t, opened[0].Err, "unknown: quota of project x is used up")

		require.NoError(t, a.ForceOpen(time.Minute, "maintenance"))
		require.NoError(t, testkit.Events(t, events)[0].Err, "an operator opened it")
		require.NoError(t, a.Reset())
		lease, err := r.Acquire(t.Context())
		require.NoError(t, err)
		lease.Done(verdict.Permanent(testkit.ErrDown))
		require.Equal(t, verdict.ClassBadRequest, a.Info().LastError.Class)
		_, err = r.Acquire(t.Context())
		require.NoError(t, err)
		testkit.Pass(time.Hour)
		require.Equal(t, verdict.ClassForgotten, a.Info().LastError.Class, "a forgotten lease")
	})
}

type leavingError struct{}

func (leavingError) Error() string { runtime.Goexit(); return "" }

func TestLastError_OfAnErrorThatExitsLosesNoOutcome(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	a := testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(leavingError{})})
	testkit.Isolated(func() { _, _ = testkit.Ask(t.Context(), testkit.Bind(reg)) })
	testkit.RequireCounts(t, a, 0, 1, 0, 0)
	require.Zero(t, a.Info().InFlight)
}
