package fault_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/verdict"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errCause = errors.New("cause")

type panickingError struct{}

func (panickingError) Error() string   { panic("in Error") }
func (panickingError) Is(error) bool   { panic("in Is") }
func (panickingError) Timeout() bool   { panic("in Timeout") }
func (panickingError) Temporary() bool { return true }

func TestRun_ReturnsTheErrorAndTurnsPanicsIntoErrors(t *testing.T) {
	t.Parallel()
	require.NoError(t, fault.Run(func() error { return nil }))
	require.ErrorIs(t, fault.Run(func() error { return errCause }), errCause)

	err := fault.Run(func() error { panic(errCause) })
	var panicked *verdict.PanicError
	require.ErrorAs(t, err, &panicked)
	require.Equal(t, errCause, panicked.Value)
	require.Contains(t, string(panicked.Stack), "fault_test.go")
	require.ErrorIs(t, err, errCause)
	require.Equal(t, verdict.ClassPanic, panicked.Verdict().Class)
}

func TestRunThen_TellsTheOutcomeAlsoWhenTheGoroutineExits(t *testing.T) {
	t.Parallel()
	for name, user := range map[string]func() error{
		"nil": func() error { return nil }, "error": func() error { return errCause },
		"panic": func() error { panic("value") }, "exit": func() error { runtime.Goexit(); return nil },
	} {
		told := make(chan error, 1)
		after := make(chan struct{})
		go func() {
			defer close(after)
			fault.RunThen(user, func(err error) { told <- err })
		}()
		<-after
		err := <-told
		switch name {
		case "nil":
			require.NoError(t, err)
		case "error":
			require.ErrorIs(t, err, errCause)
		case "panic":
			require.EqualError(t, err, "registry: panic: value")
		case "exit":
			require.EqualError(t, err, "registry: goroutine exited (runtime.Goexit)")
		}
	}
}

func TestText_IsOneLineWhateverTheErrorDoes(t *testing.T) {
	t.Parallel()
	require.Equal(t, "no error", fault.Text(nil))
	require.Equal(t, "a b", fault.Text(errors.New("a\nb")))
	require.Equal(t, "fault_test.panickingError whose Error method failed", fault.Text(panickingError{}))
}

func TestJoin_KeepsCausesAndReadsThemLate(t *testing.T) {
	t.Parallel()
	err := fault.Join("x: ", []error{errCause, panickingError{}, context.Canceled})
	require.ErrorIs(t, err, errCause)
	require.Equal(t, "x: cause; fault_test.panickingError whose Error method failed; context canceled", err.Error())
	require.Equal(t, "y: cause", fault.Wrap("y: ", errCause).Error())
	require.NotContains(t, fault.Wrap("a\n", errCause).Error(), "\n")
}

func TestList_IsEmptyForNil(t *testing.T) {
	t.Parallel()
	require.Empty(t, fault.List(nil))
	require.Equal(t, []error{errCause}, fault.List(errCause))
}

func TestOfContext_AddsTheCauseWhereItSaysMore(t *testing.T) {
	t.Parallel()
	plain, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, []error{context.Canceled}, fault.OfContext(plain))
	caused, cancelCause := context.WithCancelCause(t.Context())
	cancelCause(errCause)
	require.Equal(t, []error{context.Canceled, errCause}, fault.OfContext(caused))
}

func TestEndOf_IsTheDeadlineWhereThatWasTheCause(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in    time.Duration
		cause error
		want  error
	}{
		{0, context.DeadlineExceeded, context.DeadlineExceeded},
		{time.Hour, context.DeadlineExceeded, context.Canceled},
		{0, errCause, context.Canceled},
	} {
		ctx, cancel := context.WithCancelCause(unaware{t.Context(), time.Now().Add(c.in)})
		require.NoError(t, fault.EndOf(ctx))
		cancel(c.cause)
		require.Equal(t, c.want, fault.EndOf(ctx))
		require.ErrorIs(t, fault.OfContext(ctx)[0], c.want)
	}
}

// unaware is a context that does not end at its deadline, which others keep.
type unaware struct {
	context.Context

	deadline time.Time
}

func (u unaware) Deadline() (time.Time, bool) { return u.deadline, true }

func TestIsTimeout_BelievesEveryKindAndSurvivesMethodsThatPanic(t *testing.T) {
	t.Parallel()
	require.True(t, fault.IsTimeout(fmt.Errorf("read: %w", os.ErrDeadlineExceeded)))
	require.True(t, fault.IsTimeout(context.DeadlineExceeded))
	require.False(t, fault.IsTimeout(errCause))
	require.False(t, fault.IsTimeout(nil))
	require.False(t, fault.IsTimeout(panickingError{}))
}

// matching is an error of a user that matches another one by its Is method, and has no Timeout method.
type matching struct{ target error }

func (matching) Error() string          { return "matching" }
func (m matching) Is(target error) bool { return target == m.target }

// networkError is an error of package net's kind.
type networkError struct{ timeout bool }

func (networkError) Error() string   { return "network" }
func (n networkError) Timeout() bool { return n.timeout }
func (networkError) Temporary() bool { return false }

func TestIsTimeout_NeedsOneReasonAlone(t *testing.T) {
	t.Parallel()
	require.True(t, fault.IsTimeout(matching{context.DeadlineExceeded}))
	require.True(t, fault.IsTimeout(matching{os.ErrDeadlineExceeded}))
	require.True(t, fault.IsTimeout(fmt.Errorf("dial: %w", networkError{timeout: true})))
	require.False(t, fault.IsTimeout(fmt.Errorf("dial: %w", networkError{timeout: false})))
	require.False(t, fault.IsTimeout(matching{errCause}))
}
