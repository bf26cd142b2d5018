package stream_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/stream"
	"github.com/capreg/registry/verdict"
)

// with runs a test on fake time with a registry of the given options and providers.
func with(t *testing.T, o registry.Options, ps []registry.Provider[model], test func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model])) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		reg, err := registry.New(o)
		require.NoError(t, err)
		for _, p := range ps {
			p.Instance.name = p.Name
			_, err := service.Register(t.Context(), reg, p)
			require.NoError(t, err)
		}
		test(t, reg, service.Bind(reg, registry.Query{}))
		require.NoError(t, reg.Close(t.Context()))
	})
}

func TestReader_CloseDuringARead(t *testing.T) {
	t.Parallel()
	bubble(t, []model{{name: "a"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		pr, pw := io.Pipe()
		go func() { _, _ = pw.Write([]byte("x")) }()
		body, err := stream.Reader(t.Context(), r, func(ctx context.Context, _ model) (io.ReadCloser, error) {
			context.AfterFunc(ctx, func() { pr.CloseWithError(ctx.Err()) })
			return pr, nil
		}, stream.ReaderOptions{})
		require.NoError(t, err)
		b := make([]byte, 10)
		_, err = body.Read(b) // "x", the only byte there is
		require.NoError(t, err)
		done := make(chan struct{})
		go func() {
			defer close(done)
			if n, err := body.Read(b); n != 0 || err == nil {
				t.Errorf("read %d bytes that were never written, error %v", n, err)
			}
		}()
		synctest.Wait()
		began := time.Now()
		_ = body.Close()
		require.Zero(t, time.Since(began), "how long Close blocked")
		<-done
	})
}

func TestOpen_ReportHasAllAttempts(t *testing.T) {
	t.Parallel()
	bubble(t, []model{{name: "a", open: errDown}, {name: "b", steps: says("x")}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		var rep registry.CallReport
		o := options()
		o.Call = []registry.CallOption{registry.ReportTo(&rep)}
		s, err := stream.Open(t.Context(), r, open, o)
		require.NoError(t, err)
		_, _ = read(s)
		require.Len(t, rep.Attempts, 2)
	})
}

func TestStream_IsCompleteAtTheEndMark(t *testing.T) {
	t.Parallel()
	bubble(t, []model{{name: "a", steps: says("x y")}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		s, err := stream.Open(t.Context(), r, open, options())
		require.NoError(t, err)
		for item, err := range s.All() {
			require.NoError(t, err)
			if item == "[DONE]" {
				break
			}
		}
		require.Equal(t, [4]uint64{1, 0, 0, 0}, counts(t, reg, "a"), "the end mark was read: a success")
	})
}

func TestStream_ReadToTheEndMarkClosesTheBreaker(t *testing.T) {
	t.Parallel()
	bubble(t, []model{{name: "a", steps: says("x y")}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		a, _ := reg.Provider("service", "a")
		require.NoError(t, a.ForceOpen(time.Second, "x"))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		require.Equal(t, status.BreakerHalfOpen, a.Breaker().State)
		for range 100 {
			s, err := stream.Open(t.Context(), r, open, options())
			require.NoError(t, err)
			for item, err := range s.All() {
				require.NoError(t, err)
				if item == "[DONE]" {
					break
				}
			}
		}
		require.Equal(t, status.BreakerClosed, a.Breaker().State, "after 100 complete streams")
	})
}

func TestOpen_AdvancesTheRotationOnce(t *testing.T) {
	t.Parallel()
	ps := []registry.Provider[model]{
		{Name: "a", Strategy: registry.StrategyRoundRobin, Instance: model{open: errDown}, Breaker: registry.BreakerPolicy{FailureThreshold: 1000}},
		{Name: "b", Strategy: registry.StrategyRoundRobin, Instance: model{steps: says("x")}},
	}
	with(t, registry.Options{}, ps, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		first := map[string]int{}
		for range 10 {
			s, err := stream.Open(t.Context(), r, open, options())
			require.NoError(t, err)
			if len(s.Attempts()) > 0 {
				first[s.Attempts()[0].Provider]++
			} else {
				first[s.Provider()]++
			}
			_, _ = read(s)
		}
		require.Equal(t, map[string]int{"a": 5, "b": 5}, first, "T19")
	})
}

func TestOpen_ErrorKeepsTheCauseOfTheCaller(t *testing.T) {
	t.Parallel()
	bubble(t, []model{{name: "a"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		mine := errors.New("the user pressed stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(mine) })
		_, err := stream.Open(ctx, r, func(ctx context.Context, _ model) (iter.Seq2[string, error], error) {
			<-ctx.Done()
			return nil, errors.New("request aborted")
		}, options())
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, mine)
	})
}

func TestOpen_WaitsForACooldownByOption(t *testing.T) {
	t.Parallel()
	limited := true
	bubble(t, []model{{name: "a", steps: says("x")}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		o := options()
		o.Call = []registry.CallOption{registry.WaitForCooldown()}
		s, err := stream.Open(ctx, r, func(ctx context.Context, m model) (iter.Seq2[string, error], error) {
			if limited {
				limited = false
				return nil, verdict.RateLimited(errDown, 20*time.Second)
			}
			return m.stream(ctx)
		}, o)
		require.NoError(t, err)
		_, err = read(s)
		require.NoError(t, err)
	})
}

func TestOpen_LateFirstItemFailsOver(t *testing.T) {
	t.Parallel()
	bubble(t, []model{{name: "a"}, {name: "b", steps: says("x")}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		s, err := stream.Open(t.Context(), r, func(ctx context.Context, m model) (iter.Seq2[string, error], error) {
			if m.name == "b" {
				return m.stream(ctx)
			}
			return func(yield func(string, error) bool) {
				time.Sleep(6 * time.Second) // FirstTimeout is 5 s
				for _, item := range []string{"1", "2", "[DONE]"} {
					if !yield(item, nil) {
						return
					}
					if ctx.Err() != nil {
						yield("", ctx.Err())
						return
					}
				}
			}, nil
		}, options())
		require.NoError(t, err)
		_, err = read(s)
		require.NoError(t, err, "either move on, or go on: not committed to a context that is dead")
	})
}

func TestOpen_ItemAtTheLimitDoesNotCommit(t *testing.T) {
	t.Parallel()
	broken := 0
	for range 50 {
		bubble(t, []model{{name: "a", steps: []step{{item: "1", after: 5 * time.Second}, {item: "2", after: time.Millisecond}, {item: "[DONE]"}}}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
			s, err := stream.Open(t.Context(), r, open, options())
			if err != nil {
				return
			}
			if _, err := read(s); err != nil {
				broken++
			}
		})
	}
	require.Zero(t, broken)
}

// The caller's deadline blames the only provider where that is silent for far longer than it ever was.
func TestOpen_SilenceUntilTheDeadlineCounts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		answers  bool
		deadline time.Duration
		state    status.BreakerState
	}{
		{false, 29 * time.Second, status.BreakerClosed},
		{true, 3900 * time.Millisecond, status.BreakerClosed},
		{true, 4 * time.Second, status.BreakerOpen},
	} {
		bubble(t, []model{{name: "a"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
			a, _ := reg.Provider("service", "a")
			steps := []step{{after: time.Hour}}
			slow := func(ctx context.Context, _ model) (iter.Seq2[string, error], error) {
				return model{steps: steps}.stream(ctx)
			}
			if c.answers {
				steps = []step{{after: time.Second, item: "x"}}
				s, err := stream.Open(t.Context(), r, slow, stream.Options[string]{})
				require.NoError(t, err)
				_, err = read(s)
				require.NoError(t, err)
				steps = []step{{after: time.Hour}}
			}
			for range 5 {
				ctx, cancel := context.WithTimeout(t.Context(), c.deadline)
				_, err := stream.Open(ctx, r, slow, stream.Options[string]{}) // 30 s for the first item
				require.Error(t, err)
				cancel()
			}
			require.Equal(t, c.state, a.Breaker().State)
		})
	}
}

// The time for the first item is that of an attempt of a call: explicit at its word, else cut by what is measured,
// without blame for one that is slow, until it hangs.
func TestOpen_ABackupLosesNoStream(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		a, b       time.Duration // until the first item
		first      time.Duration
		read, open int // of 20, at least; exactly so many of a's breaker
	}{
		{"explicit", 7 * time.Second, 7 * time.Second, 9 * time.Second, 20, 0},
		{"explicit, longer than the deadline", 7 * time.Second, 7 * time.Second, time.Minute, 20, 0},
		{"by default", 7 * time.Second, 7 * time.Second, 0, 20, 0},
		{"one hangs", time.Hour, time.Second, 0, 20, 1},
		{"one hangs, the other is slow", time.Hour, 7 * time.Second, 0, 19, 1},
		{"one hangs, explicit and longer than the deadline", time.Hour, time.Second, time.Minute, 15, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, []model{
				{name: "a", steps: []step{{after: c.a, item: "x"}}}, {name: "b", steps: []step{{after: c.b, item: "x"}}},
			}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
				complete := 0
				for range 20 {
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					s, err := stream.Open(ctx, r, open, stream.Options[string]{FirstTimeout: c.first})
					if err == nil {
						_, err = read(s)
					}
					if err == nil {
						complete++
					}
					cancel()
				}
				require.GreaterOrEqual(t, complete, c.read)
				a, _ := reg.Provider("service", "a")
				require.Equal(t, c.open, int(a.Breaker().Opened-a.Breaker().HalfOpened))
				require.Zero(t, a.Info().Failures)
			})
		})
	}
}

// Behind its first item, a stream that is still being read when the caller's time is over blames no provider, also
// where that time is its Timeout.
func TestOpen_CallerDeadlineBehindTheFirstItemIsNeutral(t *testing.T) {
	t.Parallel()
	var steps []step
	for range 100 {
		steps = append(steps, step{after: time.Second, item: "x"})
	}
	bubble(t, []model{{name: "a", steps: steps}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		a, _ := reg.Provider("service", "a")
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			s, err := stream.Open(ctx, r, open, stream.Options[string]{Timeout: 10 * time.Second})
			require.NoError(t, err)
			_, err = read(s)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			cancel()
		}
		require.Equal(t, status.BreakerClosed, a.Breaker().State)
		require.Zero(t, a.Info().Failures)
	})
}

func TestOpen_AttemptsShareTheIdempotencyKey(t *testing.T) {
	t.Parallel()
	bubble(t, []model{{name: "a"}, {name: "b", steps: says("x")}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		var keys []string
		s, err := stream.Open(t.Context(), r, func(ctx context.Context, m model) (iter.Seq2[string, error], error) {
			keys = append(keys, registry.IdempotencyKey(ctx))
			if m.name == "a" {
				return nil, errDown
			}
			return m.stream(ctx)
		}, options())
		require.NoError(t, err)
		_, _ = read(s)
		require.Equal(t, keys[0], keys[1], "T12: one key per call")
	})
}

func TestOpen_RefusedStreamFailsOverWhenAllowed(t *testing.T) {
	t.Parallel()
	bubble(t, []model{{name: "a", open: verdict.As(errDown, verdict.Verdict{Class: verdict.ClassRefused})}, {name: "b", steps: says("x")}}, func(t *testing.T, reg *registry.Registry, _ *registry.Resolver[model]) {
		r := service.Bind(reg, registry.Query{TryRefused: true})
		s, err := stream.Open(t.Context(), r, open, options())
		require.NoError(t, err)
		_, err = read(s)
		require.NoError(t, err)
	})
}

func TestClose_BlamesNoProviderWhateverTheClassifierReturns(t *testing.T) {
	t.Parallel()
	ps := []registry.Provider[model]{{Name: "a", Instance: model{steps: says("x y z")}}}
	with(t, registry.Options{Classify: func(err error) verdict.Verdict {
		return verdict.Verdict{Class: verdict.ClassServerError}
	}}, ps, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		s, err := stream.Open(t.Context(), r, open, options())
		require.NoError(t, err)
		_ = s.Close()
		require.Equal(t, [4]uint64{0, 0, 1, 0}, counts(t, reg, "a"), "says nothing about the provider")
	})
}

func TestOpen_DoesNotAmplifyAnOutage(t *testing.T) {
	t.Parallel()
	ps := []registry.Provider[model]{
		{Name: "a", Instance: model{open: errDown}, Breaker: registry.BreakerPolicy{FailureThreshold: 1e6}},
		{Name: "b", Instance: model{open: errDown}, Breaker: registry.BreakerPolicy{FailureThreshold: 1e6}},
		{Name: "c", Instance: model{open: errDown}, Breaker: registry.BreakerPolicy{FailureThreshold: 1e6}},
	}
	with(t, registry.Options{}, ps, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		total := func() (n uint64) {
			for info := range reg.All() {
				n += info.Attempts
			}
			return n
		}
		for range 100 {
			_, _ = registry.Call(t.Context(), r, func(ctx context.Context, m model) (string, error) { _, err := m.stream(ctx); return "", err })
		}
		calls := total()
		for range 100 {
			_, _ = stream.Open(t.Context(), r, open, options())
		}
		require.Less(t, total()-calls, uint64(150))
	})
}

func TestOpen_PanicFailsOverByOption(t *testing.T) {
	t.Parallel()
	ps := []registry.Provider[model]{{Name: "a"}, {Name: "b", Instance: model{steps: says("x")}}}
	with(t, registry.Options{PanicsAsErrors: true}, ps, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		require.NotPanics(t, func() {
			s, err := stream.Open(t.Context(), r, func(ctx context.Context, m model) (iter.Seq2[string, error], error) {
				if m.name == "a" {
					panic("bug")
				}
				return m.stream(ctx)
			}, options())
			require.NoError(t, err)
			_, _ = read(s)
		})
	})
}

func TestStream_ForgottenStreamIsReleasedAfterItsTimeout(t *testing.T) {
	t.Parallel()
	bubble(t, []model{{name: "a", steps: says("1 2 3")}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		var cleaned bool
		_, err := stream.Open(t.Context(), r, func(ctx context.Context, m model) (iter.Seq2[string, error], error) {
			return func(yield func(string, error) bool) {
				defer func() { cleaned = true }()
				for {
					if !yield("x", nil) {
						return
					}
				}
			}, nil
		}, options())
		require.NoError(t, err)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		require.True(t, cleaned)
	})
}
