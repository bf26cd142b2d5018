package registry_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/verdict"
)

// Variants: errors of a holder that gave up, and those that merely contain a cancellation.
func TestLease_OfAHolderThatGaveUpBlamesNothing(t *testing.T) {
	t.Parallel()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	_, inner := registry.Call(cancelled, failing(t, errors.New("down")), ask)
	for name, c := range map[string]struct {
		err   error
		class verdict.Class
	}{
		"cancelled":       {context.Canceled, verdict.ClassCancelled},
		"of a client":     {&url.Error{Op: "Get", URL: "/", Err: context.Canceled}, verdict.ClassCancelled},
		"of a dial":       {&net.OpError{Op: "dial", Err: context.Canceled}, verdict.ClassCancelled},
		"of a call in it": {fmt.Errorf("tool: %w", inner), verdict.ClassCancelled},
		"an answer":       {errors.Join(context.Canceled, &verdict.ResponseError{StatusCode: 500}), verdict.ClassServerError},
		"its own time":    {context.DeadlineExceeded, verdict.ClassAttemptTimeout},
		"stated":          {verdict.As(context.Canceled, verdict.Verdict{Class: verdict.ClassStalled}), verdict.ClassStalled},
		"stated unknown":  {verdict.As(context.Canceled, verdict.Verdict{}), verdict.ClassUnknown},
		"stated not sent": {verdict.NotSent(context.Canceled), verdict.ClassNotSent},
		"refused":         {&net.OpError{Op: "dial", Err: errors.New("refused")}, verdict.ClassNotSent},
		"something else":  {errors.New("down"), verdict.ClassUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := testkit.New(t, registry.Options{})
			testkit.Add(t, reg, testkit.Provider{Name: "a", Breaker: registry.BreakerPolicy{FailureThreshold: 1}})
			lease, err := testkit.Bind(reg).Acquire(t.Context())
			require.NoError(t, err)
			require.Equal(t, c.class, lease.Done(c.err))
			_, err = testkit.Bind(reg).Acquire(t.Context())
			if c.class == verdict.ClassCancelled {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, registry.ErrBreakerOpen)
			}
		})
	}
}

// A holder that goes on has not given up, nor has the function of a call.
func TestLease_ThatIsMovedOnFromACancellationFailsOver(t *testing.T) {
	t.Parallel()
	r := failing(t, context.Canceled, context.Canceled)
	lease, err := r.Acquire(t.Context())
	require.NoError(t, err)
	next, err := lease.MoveOn(context.Canceled)
	require.NoError(t, err)
	require.Equal(t, verdict.ClassUnknown, next.Attempts()[0].Class)
	next.Done(nil)

	_, err = registry.Call(t.Context(), r, ask)
	var failed *registry.CallError
	require.ErrorAs(t, err, &failed)
	require.Len(t, failed.Attempts, 2)
}
