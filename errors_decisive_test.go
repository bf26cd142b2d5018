package registry_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/verdict"
)

// failing returns a resolver of providers that fail with the errors, in order.
func failing(t *testing.T, errs ...error) *registry.Resolver[testkit.ChatModel] {
	t.Helper()
	reg := testkit.New(t, registry.Options{})
	for i, err := range errs {
		testkit.Add(t, reg, testkit.Provider{
			Name: strconv.Itoa(i), Instance: testkit.Fails(err), Window: 1000 * (i + 1), Breaker: registry.BreakerPolicy{FailureThreshold: 100},
		})
	}
	return testkit.Bind(reg)
}

func ask(ctx context.Context, m testkit.ChatModel) (string, error) { return m.Chat(ctx, "") }

func TestCallError_IsAboutTheAnswerThatEndedTheCall(t *testing.T) {
	t.Parallel()
	status := func(code int) error { return &verdict.ResponseError{StatusCode: code} }
	tooLong := verdict.As(status(413), verdict.Verdict{Class: verdict.ClassTooLong})
	for name, c := range map[string]struct {
		errs    []error
		options []registry.CallOption
		status  int
		class   verdict.Class
	}{
		"an answer after a failure": {[]error{status(500), status(404)}, nil, 404, verdict.ClassResource},
		"all failed":                {[]error{status(500), status(502)}, nil, 502, verdict.ClassServerError},
		"limited at last":           {[]error{status(500), status(429)}, nil, 429, verdict.ClassRateLimited},
		"too long, then a failure":  {[]error{tooLong, status(500)}, nil, 413, verdict.ClassTooLong},
		"once only":                 {[]error{status(500), status(404)}, []registry.CallOption{registry.OnceOnly()}, 500, verdict.ClassServerError},
		"once only, moved on":       {[]error{status(429), status(400)}, []registry.CallOption{registry.OnceOnly()}, 400, verdict.ClassBadRequest},
		"a stated verdict":          {[]error{status(500), verdict.Permanent(status(503))}, nil, 503, verdict.ClassBadRequest},
		"dead keys":                 {[]error{verdict.As(status(401), verdict.Verdict{Class: verdict.ClassFatal})}, nil, 401, verdict.ClassFatal},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := registry.Call(t.Context(), failing(t, c.errs...), ask, c.options...)
			var response *verdict.ResponseError
			require.ErrorAs(t, err, &response)
			require.Equal(t, c.status, response.StatusCode)
			require.Equal(t, c.class, verdict.Of(err).Class)
			require.Equal(t, c.class, verdict.Of(fmt.Errorf("wrapped: %w", err)).Class)
			var failed *registry.CallError
			require.ErrorAs(t, err, &failed)
			for _, attempt := range failed.Attempts {
				require.ErrorIs(t, err, attempt.Err, "each can be found")
			}
			require.Len(t, failed.Unwrap(), len(failed.Attempts)+len(failed.Skipped()))
		})
	}
}

func TestCallError_HasTheDelayOfALimit(t *testing.T) {
	t.Parallel()
	_, err := registry.Call(t.Context(), failing(t, errors.New("down"), verdict.RateLimited(errors.New("slow down"), time.Minute)), ask)
	require.Equal(t, verdict.Verdict{Class: verdict.ClassRateLimited, After: time.Minute}, verdict.Of(err))
}

func TestCallError_OfACallersEndIsAboutThat(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	_, err := registry.Call(ctx, failing(t, errors.New("down"), errors.New("down")), func(context.Context, testkit.ChatModel) (string, error) {
		cancel()
		return "", &verdict.ResponseError{StatusCode: 500}
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, verdict.ClassCancelled, verdict.Of(err).Class)

	ctx, cancel = context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	_, err = registry.Call(ctx, failing(t, errors.New("down")), ask)
	require.Equal(t, verdict.ClassCallerDeadline, verdict.Of(err).Class)
	require.Zero(t, verdict.Of(&registry.CallError{}))
}

// Variants: as it is, and wrapped; the verdicts that would take the provider of the outer call out of use.
func TestCallError_WithinAnotherCallIsAPlainFailure(t *testing.T) {
	t.Parallel()
	for name, inner := range map[string]error{
		"fatal":       verdict.As(errors.New("dead key"), verdict.Verdict{Class: verdict.ClassFatal}),
		"limited":     verdict.RateLimited(errors.New("slow down"), time.Minute),
		"bad request": verdict.Permanent(errors.New("no")),
	} {
		for _, format := range []string{"%w", "tool: %w"} {
			t.Run(name+" "+format, func(t *testing.T) {
				t.Parallel()
				within := failing(t, inner)
				_, err := registry.Call(t.Context(), failing(t, nil), func(ctx context.Context, _ testkit.ChatModel) (string, error) {
					_, err := registry.Call(ctx, within, ask)
					return "", fmt.Errorf(format, err)
				})
				var failed *registry.CallError
				require.ErrorAs(t, err, &failed)
				require.Equal(t, verdict.ClassUnknown, failed.Attempts[0].Class)
			})
		}
	}
}
