package registry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
)

type contextKey struct{}

// within runs test inside the function of a call of a provider that has the
// given attempt timeout.
func within(t *testing.T, timeout time.Duration, test func(t *testing.T, caller, attempt context.Context)) {
	t.Helper()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		t.Helper()
		testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: timeout})
		caller := context.WithValue(t.Context(), contextKey{}, "value")
		_, err := registry.Call(caller, testkit.Bind(reg), func(ctx context.Context, _ testkit.ChatModel) (int, error) {
			test(t, caller, ctx)
			return 0, nil
		})
		require.NoError(t, err)
	})
}

func TestAttemptContext_HasValuesAndSoonerDeadline(t *testing.T) {
	t.Parallel()
	within(t, time.Second, func(t *testing.T, _, ctx context.Context) {
		t.Helper()
		require.Equal(t, "value", ctx.Value(contextKey{}), "before it is armed")
		deadline, ok := ctx.Deadline()
		require.True(t, ok)
		require.Equal(t, time.Second, time.Until(deadline))
		require.NoError(t, ctx.Err())
		require.Equal(t, "value", ctx.Value(contextKey{}), "after")
	})
}

func TestAttemptContext_IsCallersOwnWithoutTimeout(t *testing.T) {
	t.Parallel()
	within(t, registry.NoTimeout, func(t *testing.T, caller, attempt context.Context) {
		t.Helper()
		require.Equal(t, caller, attempt)
	})
}

func TestAttemptContext_EndsDerivedContexts(t *testing.T) {
	t.Parallel()
	within(t, time.Second, func(t *testing.T, _, ctx context.Context) {
		t.Helper()
		derived, cancel := context.WithCancel(ctx)
		defer cancel()
		deadline, stop := context.WithTimeout(derived, time.Hour)
		defer stop()
		time.Sleep(time.Second)
		synctest.Wait()
		require.ErrorIs(t, derived.Err(), context.DeadlineExceeded)
		require.ErrorIs(t, context.Cause(deadline), registry.ErrAttemptTimeout)
		require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)
	})
}

func TestAttemptContext_HasEndedAfterAttempt(t *testing.T) {
	t.Parallel()
	for name, asksBefore := range map[string]bool{"asked before": true, "asked only afterwards": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				testkit.Add(t, reg, testkit.Provider{Name: "a"})
				var kept, body context.Context
				_, err := registry.Call(t.Context(), testkit.Bind(reg), func(ctx context.Context, _ testkit.ChatModel) (int, error) {
					kept = ctx //nolint:fatcontext // what a careless user does
					if asksBefore {
						var cancel context.CancelFunc
						body, cancel = context.WithCancel(ctx) // as that of a response whose body is still read
						t.Cleanup(cancel)
					}
					return 0, nil
				})
				require.NoError(t, err)
				<-kept.Done()
				require.Equal(t, context.Canceled, kept.Err())
				require.ErrorContains(t, context.Cause(kept), "the attempt is over")
				if asksBefore {
					require.ErrorContains(t, context.Cause(body), "the attempt is over")
				}
				derived, cancel := context.WithCancel(kept)
				defer cancel()
				<-derived.Done()
			})
		})
	}
}

func TestAttemptContext_IsSafeWhileAttemptEnds(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		var listeners sync.WaitGroup
		for range 50 {
			_, err := registry.Call(t.Context(), testkit.Bind(reg), func(ctx context.Context, _ testkit.ChatModel) (int, error) {
				for range 4 {
					listeners.Go(func() { <-ctx.Done() })
				}
				return 0, nil
			})
			require.NoError(t, err)
		}
		listeners.Wait()
	})
}

func TestAttemptContext_CauseTellsCallerFromAttempt(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: time.Minute})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var cause error
		_, err := registry.Call(ctx, testkit.Bind(reg), func(ctx context.Context, _ testkit.ChatModel) (int, error) {
			<-ctx.Done()
			cause = context.Cause(ctx)
			return 0, ctx.Err()
		})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, cause, registry.ErrAttemptTimeout)
	})
}

func TestAttemptContext_TimeoutStaysCauseAfterRemoval(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: time.Second})
		var cause error
		var caller sync.WaitGroup
		caller.Go(func() {
			_, err := registry.Call(t.Context(), testkit.Bind(reg), func(ctx context.Context, _ testkit.ChatModel) (int, error) {
				<-ctx.Done()
				time.Sleep(10 * time.Second) // it takes its time
				cause = context.Cause(ctx)
				return 0, ctx.Err()
			})
			require.ErrorIs(t, err, registry.ErrAttemptTimeout)
		})
		synctest.Wait()
		drain, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		require.ErrorIs(t, a.Unregister(drain), registry.ErrStuck)
		caller.Wait()
		require.ErrorIs(t, cause, registry.ErrAttemptTimeout)
		require.NotErrorIs(t, cause, registry.ErrClosed)
	})
}

func TestAttemptContext_EndsAtDrainTimeoutWithCause(t *testing.T) {
	t.Parallel()
	for name, asksBefore := range map[string]bool{"waiting": true, "asking afterwards": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				a := testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: time.Hour})
				testkit.Add(t, reg, testkit.Provider{Name: "b"})
				var cause error
				var caller sync.WaitGroup
				caller.Go(func() {
					answer, err := registry.Call(t.Context(), testkit.Bind(reg), func(ctx context.Context, m testkit.ChatModel) (string, error) {
						if answer, _ := m.Chat(ctx, "?"); answer == "b" {
							return answer, nil
						}
						if !asksBefore {
							time.Sleep(3 * time.Second)
						}
						derived, stop := context.WithCancel(ctx)
						defer stop()
						<-derived.Done()
						cause = context.Cause(ctx)
						require.Equal(t, context.Canceled, ctx.Err())
						require.Equal(t, context.Canceled, derived.Err())
						return "", ctx.Err()
					})
					require.NoError(t, err, "the call moves on")
					require.Equal(t, "b", answer)
				})
				synctest.Wait()
				drain, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				err := a.Unregister(drain)
				if asksBefore {
					require.NoError(t, err, "it heeded its context")
				} else {
					require.ErrorIs(t, err, registry.ErrStuck)
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.ErrorContains(t, err, `provider "chat/a": still running: 1 call in flight`)
				}
				caller.Wait()
				require.ErrorIs(t, cause, registry.ErrClosed)
				require.NoError(t, a.Unregister(t.Context()), "now it has ended")
				testkit.RequireCounts(t, a, 0, 0, 1, 0)
			})
		})
	}
}

func TestAttemptContext_CanBePrintedWhileArmed(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	testkit.Add(t, reg, testkit.Provider{Name: "p"})
	_, err := registry.Call(t.Context(), testkit.Bind(reg), func(ctx context.Context, _ testkit.ChatModel) (int, error) {
		var wg sync.WaitGroup
		wg.Go(func() { _ = ctx.Done() })
		wg.Go(func() { _ = fmt.Sprintf("%v", ctx) })
		wg.Wait()
		return 0, nil
	})
	require.NoError(t, err)
	_ = reg.Close(t.Context())
}

func TestAttemptContext_CauseIsSetWithoutEarlierUse(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "p", AttemptTimeout: time.Second})
		caller, cancel := context.WithCancel(t.Context())
		defer cancel()
		for name, c := range map[string]context.Context{"background": context.Background(), "cancellable": caller} {
			_, _ = registry.Call(c, testkit.Bind(reg), func(ctx context.Context, _ testkit.ChatModel) (int, error) {
				time.Sleep(2 * time.Second)
				if cause := context.Cause(ctx); !errors.Is(cause, registry.ErrAttemptTimeout) {
					t.Errorf("%s: cause is %v", name, cause)
				}
				return 0, nil
			})
		}
	})
}

func TestAttemptContext_IncomparableCauseDoesNotPanic(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	p := testkit.Add(t, reg, testkit.Provider{Name: "p"})
	_ = p.MarkUnhealthy(listErrors{testkit.ErrDown})
	_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
	_, err2 := testkit.Ask(t.Context(), testkit.Bind(reg))
	require.NotPanics(t, func() { errors.Is(err, err2) })
	require.NotPanics(t, func() {
		var u *registry.UnavailableError
		errors.As(err2, &u)
		target := errors.Unwrap(u.Candidates()[0].Err)
		errors.Is(err, target)
	})
	_ = reg.Close(t.Context())
}

func TestAttemptContext_PanickingDeadlineLeaksNothing(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	p := testkit.Add(t, reg, testkit.Provider{Name: "p"})
	_ = testkit.Recovered(func() { _, _ = testkit.Ask(testkit.BadDeadlineContext{Context: t.Context()}, testkit.Bind(reg)) })
	if n := p.Info().InFlight; n != 0 {
		t.Error("in flight for ever:", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.NoError(t, reg.Close(ctx))
}

func TestAttemptContext_PanickingAfterFuncIsContained(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		p := testkit.Add(t, reg, testkit.Provider{Name: "p"})
		ended := make(chan error, 1)
		go func() {
			_, err := registry.Call(testkit.BadAfterFuncContext{Context: t.Context(), DoneChannel: make(chan struct{})}, testkit.Bind(reg), func(ctx context.Context, _ testkit.ChatModel) (int, error) {
				<-ctx.Done()
				return 0, ctx.Err()
			})
			ended <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, p.Unregister(ctx))
		require.ErrorIs(t, <-ended, registry.ErrClosed)
	})
}

// listErrors is an error that cannot be compared.
type listErrors []error

func (listErrors) Error() string { return "list" }

// interruptedContext does something after it was asked whether it has ended.
type interruptedContext struct {
	context.Context //nolint:containedctx // a context around another

	after func()
}

func (c *interruptedContext) Err() error { err := c.Context.Err(); c.after(); return err }

func TestAttemptContext_BodyReadAfterItsCallSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done() // the rest of the body never comes
	}))
	t.Cleanup(server.Close)
	client := server.Client()
	for name, timeout := range map[string]time.Duration{"without a deadline": 0, "with a timeout": time.Hour} {
		reg := testkit.New(t, registry.Options{})
		testkit.Add(t, reg, testkit.Provider{Name: "a", AttemptTimeout: timeout})
		response, err := registry.Call(t.Context(), testkit.Bind(reg), func(ctx context.Context, _ testkit.ChatModel) (*http.Response, error) {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, http.NoBody)
			if err != nil {
				return nil, err
			}
			return client.Do(request)
		})
		require.NoError(t, err, name)
		_, err = io.ReadAll(response.Body)
		require.ErrorIs(t, err, context.Canceled, name)
		require.ErrorContains(t, err, "the body of a response, needs Acquire or package stream", name)
		require.NoError(t, response.Body.Close(), name)
	}
}
