package stream_test

import (
	"context"
	"io"
	"iter"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/stream"
)

type countedBody struct {
	io.Reader
	closed *atomic.Int64
}

func (b countedBody) Close() error { b.closed.Add(1); return nil }

func TestReader_ClosesALateBody(t *testing.T) {
	t.Parallel()
	var opened, closed atomic.Int64
	bubble(t, []model{{name: "a"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		_, err := stream.Reader(t.Context(), r, func(context.Context, model) (io.ReadCloser, error) {
			opened.Add(1)
			time.Sleep(6 * time.Second)
			return countedBody{strings.NewReader("x"), &closed}, nil
		}, stream.ReaderOptions{Options: stream.Options[[]byte]{FirstTimeout: 5 * time.Second}})
		require.Error(t, err)
		require.Equal(t, opened.Load(), closed.Load(), "opened, closed")
	})
}

// Variants: the answer ends with an error, or is complete. The reader closes nothing.
func TestReader_ThatHasReadToTheEndHasReleasedTheBody(t *testing.T) {
	t.Parallel()
	ends := map[error]error{errDown: errDown, io.EOF: nil}
	for range 50 { // where the end of the context came before that of the read, nothing released it
		for end, want := range ends {
			bubble(t, []model{{name: "a"}}, func(t *testing.T, _ *registry.Registry, r *registry.Resolver[model]) {
				var closed atomic.Int64
				body := io.MultiReader(strings.NewReader("x"), strings.NewReader("y"))
				opened, err := stream.Reader(t.Context(), r, func(context.Context, model) (io.ReadCloser, error) {
					return countedBody{failing{body, end}, &closed}, nil
				}, stream.ReaderOptions{})
				require.NoError(t, err)
				_, err = io.ReadAll(opened)
				require.ErrorIs(t, err, want)
				synctest.Wait()
				require.EqualValues(t, 1, closed.Load())
			})
		}
	}
}

func TestStream_PanicOfAnOptionReleasesTheIterator(t *testing.T) {
	t.Parallel()
	ended := false
	bubble(t, []model{{name: "a"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		require.Panics(t, func() {
			_, _ = stream.Open(t.Context(), r, func(context.Context, model) (iter.Seq2[string, error], error) {
				return func(yield func(string, error) bool) {
					defer func() { ended = true }()
					yield("x", nil)
				}, nil
			}, stream.Options[string]{Last: func(string) bool { panic("last") }})
		})
		require.True(t, ended, "the iterator was let go of")
	})
}

// Variants: behind an error as the first item, as the second one, and behind an answer that is whole.
func TestOpen_PanicOfAnIteratorThatIsLetGoOfKeepsNoLease(t *testing.T) {
	t.Parallel()
	for _, steps := range [][]step{{{err: errDown}}, {{item: "x"}, {err: errDown}}, says("x y")} {
		bubble(t, []model{{name: "a", steps: steps}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
			settings := options()
			settings.Whole, settings.MaxItems = true, 3
			require.PanicsWithError(t, "down", func() {
				_, _ = stream.Open(t.Context(), r, func(ctx context.Context, m model) (iter.Seq2[string, error], error) {
					items, err := m.stream(ctx)
					return func(yield func(string, error) bool) {
						defer panic(errDown)
						items(yield)
						yield("behind", nil)
					}, err
				}, settings)
			})
			require.Equal(t, [4]uint64{0, 1, 0, 0}, counts(t, reg, "a"))
		})
	}
}

func TestStream_LosesNothingUnderStress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, streamsUnderStress)
}

func streamsUnderStress(t *testing.T) {
	t.Helper()
	reg, err := registry.New(registry.Options{})
	require.NoError(t, err)
	for _, n := range []string{"a", "b"} {
		_, err := service.Register(t.Context(), reg, registry.Provider[model]{Name: n, Instance: model{name: n}, Limits: registry.LimitPolicy{MaxConcurrent: 20}, Breaker: registry.BreakerPolicy{FailureThreshold: 1 << 20}})
		require.NoError(t, err)
	}
	r := service.Bind(reg, registry.Query{})
	var live atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 400 {
				ctx, cancel := context.WithCancel(context.Background())
				s, err := stream.Open(ctx, r, func(ctx context.Context, m model) (iter.Seq2[string, error], error) {
					return func(yield func(string, error) bool) {
						live.Add(1)
						defer live.Add(-1)
						for range rand.IntN(6) {
							if rand.IntN(3) == 0 {
								select {
								case <-time.After(time.Duration(rand.IntN(2000)) * time.Microsecond):
								case <-ctx.Done():
									yield("", ctx.Err())
									return
								}
							}
							if !yield("x", nil) {
								return
							}
						}
						if rand.IntN(3) > 0 {
							yield("[DONE]", nil)
						}
					}, nil
				}, stream.Options[string]{
					FirstTimeout: time.Millisecond, StallTimeout: time.Millisecond, Timeout: 3 * time.Millisecond,
					Last: func(s string) bool { return s == "[DONE]" }, Whole: rand.IntN(3) == 0,
				})
				if err == nil {
					switch rand.IntN(4) {
					case 0:
						go cancel()
						_, _ = read(s)
					case 1:
						var w sync.WaitGroup
						w.Go(func() { _ = s.Close() })
						_, _ = read(s)
						w.Wait()
					case 2:
						time.Sleep(time.Duration(rand.IntN(5000)) * time.Microsecond)
						go cancel()
						_ = s.Close()
					case 3:
						_, _ = read(s)
					}
				}
				cancel()
			}
		})
	}
	wg.Wait()
	time.Sleep(100 * time.Millisecond)
	synctest.Wait()
	require.Zero(t, live.Load())
	for _, n := range []string{"a", "b"} {
		p, _ := reg.Provider("service", n)
		i := p.Info()
		require.Zero(t, i.InFlight)
		require.Equal(t, i.Attempts, i.Successes+i.Failures+i.Ignored+i.Limited)
	}
	require.NoError(t, reg.Close(t.Context()))
}
