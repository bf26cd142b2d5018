package request_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/request"
)

// limited runs a test with a limit of a minute around a context with a value.
func limited(t *testing.T, test func(t *testing.T, ctx *request.Limited, end context.CancelCauseFunc)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		outer, end := context.WithCancelCause(request.With(t.Context(), request.Metadata{Caller: "me"}))
		defer end(nil)
		var ctx request.Limited
		ctx.Init(outer, time.Now().Add(time.Minute))
		defer ctx.End()
		test(t, &ctx, end)
	})
}

func TestLimited_EndsAtItsDeadline(t *testing.T) {
	t.Parallel()
	for _, waits := range []bool{true, false} {
		limited(t, func(t *testing.T, ctx *request.Limited, _ context.CancelCauseFunc) {
			begun := time.Now()
			deadline, has := ctx.Deadline()
			require.True(t, has)
			require.Equal(t, begun.Add(time.Minute), deadline)
			require.NoError(t, ctx.Err())
			if waits {
				<-ctx.Done()
				require.Equal(t, deadline, time.Now())
			} else {
				time.Sleep(time.Minute)
			}
			require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)
			require.ErrorIs(t, context.Cause(ctx), context.DeadlineExceeded)
			<-ctx.Done()
			require.Equal(t, "me", request.Of(ctx).Caller)
		})
	}
}

func TestLimited_HasACauseThoughNothingHasAskedBefore(t *testing.T) {
	t.Parallel()
	limited(t, func(t *testing.T, ctx *request.Limited, _ context.CancelCauseFunc) {
		require.NoError(t, context.Cause(ctx))
		time.Sleep(time.Minute)
		require.ErrorIs(t, context.Cause(ctx), context.DeadlineExceeded)
	})
}

func TestLimited_EndsWithWhatItIsMadeOf(t *testing.T) {
	t.Parallel()
	gone := errors.New("gone")
	for _, waits := range []bool{true, false} {
		limited(t, func(t *testing.T, ctx *request.Limited, end context.CancelCauseFunc) {
			if waits {
				require.NotNil(t, ctx.Done())
			}
			end(gone)
			require.ErrorIs(t, ctx.Err(), context.Canceled)
			require.ErrorIs(t, context.Cause(ctx), gone)
			<-ctx.Done()
			require.ErrorIs(t, context.Cause(ctx), gone)
		})
	}
	limited(t, func(t *testing.T, ctx *request.Limited, _ context.CancelCauseFunc) {
		var sooner request.Limited
		sooner.Init(ctx, time.Now().Add(time.Hour))
		defer sooner.End()
		want, _ := ctx.Deadline()
		deadline, _ := sooner.Deadline()
		require.Equal(t, want, deadline)
	})
}

func TestLimited_EndsWhenItsWorkIsDone(t *testing.T) {
	t.Parallel()
	for _, waits := range []bool{true, false} {
		limited(t, func(t *testing.T, ctx *request.Limited, _ context.CancelCauseFunc) {
			if waits {
				require.NotNil(t, ctx.Done())
			}
			ctx.End()
			ctx.End()
			require.ErrorIs(t, ctx.Err(), context.Canceled)
			<-ctx.Done()
		})
	}
}

func TestLimited_EndsContextsThatAreMadeOfIt(t *testing.T) {
	t.Parallel()
	limited(t, func(t *testing.T, ctx *request.Limited, _ context.CancelCauseFunc) {
		derived, cancel := context.WithCancel(ctx)
		defer cancel()
		ctx.End()
		require.ErrorIs(t, derived.Err(), context.Canceled, "at once: no goroutine follows")
	})
}

func TestUnlimited_IsTheContextWithoutTheDeadline(t *testing.T) {
	t.Parallel()
	limited(t, func(t *testing.T, ctx *request.Limited, _ context.CancelCauseFunc) {
		outer, deadline := request.Unlimited(ctx)
		require.Equal(t, ctx.Context, outer)
		want, _ := ctx.Deadline()
		require.Equal(t, want, deadline)
		again, none := request.Unlimited(outer)
		require.Equal(t, outer, again)
		require.Zero(t, none)
	})
}
