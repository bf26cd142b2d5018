package stream_test

import (
	"context"
	"fmt"
	"io"
	"iter"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/stream"
	"github.com/capreg/registry/verdict"
)

// ticking yields an item each interval, for ever, and then fails with the error of its context.
func ticking(interval time.Duration) func(context.Context, model) (iter.Seq2[string, error], error) {
	return func(ctx context.Context, _ model) (iter.Seq2[string, error], error) {
		return func(yield func(string, error) bool) {
			for {
				select {
				case <-time.After(interval):
				case <-ctx.Done():
					yield("", ctx.Err())
					return
				}
				if !yield("tick", nil) {
					return
				}
			}
		}, nil
	}
}

// five opens five streams and reads each to its end, taking pause for each item.
func five(
	t *testing.T, r *registry.Resolver[model], open func(context.Context, model) (iter.Seq2[string, error], error),
	o stream.Options[string], deadline, pause time.Duration,
) (last error) {
	t.Helper()
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		s, err := stream.Open(ctx, r, open, o)
		require.NoError(t, err)
		for _, last = range s.All() {
			time.Sleep(pause)
		}
		require.Error(t, last)
		cancel()
	}
	return last
}

// Variants: the stream's own time, the caller's, both at once; a reader that is fast, slow, slower than a stall, and
// that comes back after the end; items handed over as they come, or held until the end mark.
func TestStream_LongStreamsAndSlowReadersBlameNoProvider(t *testing.T) {
	t.Parallel()
	const short, long = 10 * time.Second, time.Hour
	for _, times := range [][2]time.Duration{{short, long}, {long, short}, {short, short}} {
		own, callers := times[0], times[1]
		for _, pause := range []time.Duration{0, time.Second, 6 * time.Second, time.Minute} {
			bubble(t, []model{{name: "a"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
				o := options()
				o.Timeout = own
				require.ErrorIs(t, five(t, r, ticking(time.Second/2), o, callers, pause), context.DeadlineExceeded)
				requireNotBlamed(t, reg)
			})
		}
		bubble(t, []model{{name: "a"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
			o := options()
			o.Timeout, o.Whole = own, true
			for range 5 {
				ctx, cancel := context.WithTimeout(t.Context(), callers)
				_, err := stream.Open(ctx, r, ticking(time.Second/2), o)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				cancel()
			}
			requireNotBlamed(t, reg)
		})
	}
}

// requireNotBlamed checks that five streams said nothing about their provider.
func requireNotBlamed(t *testing.T, reg *registry.Registry) {
	t.Helper()
	require.Equal(t, [4]uint64{0, 0, 5, 0}, counts(t, reg, "a"))
	a, _ := reg.Provider("service", "a")
	require.Equal(t, status.BreakerClosed, a.Breaker().State)
}

func TestOpen_WholeAnswerThatTakesItsTimeGoesToTheNextProvider(t *testing.T) {
	t.Parallel()
	bubble(t, []model{{name: "a"}, {name: "b", steps: says("x")}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		o := options()
		o.Timeout, o.Whole = 10*time.Second, true
		for range 5 {
			s, err := stream.Open(t.Context(), r, func(ctx context.Context, m model) (iter.Seq2[string, error], error) {
				if m.name == "a" {
					return ticking(time.Second)(ctx, m)
				}
				return m.stream(ctx)
			}, o)
			require.NoError(t, err)
			require.Equal(t, "b", s.Provider())
			require.Equal(t, verdict.ClassAttemptTimeout, s.Attempts()[0].Class)
		}
		require.Equal(t, [4]uint64{0, 0, 5, 0}, counts(t, reg, "a"))
	})
}

// A reader that leaves items unread does not hide that the provider stalls while it is waited for.
func TestStream_StallIsMeasuredWithoutTheReadersTime(t *testing.T) {
	t.Parallel()
	bubble(t, []model{{name: "a"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		patient := five(t, r, func(ctx context.Context, m model) (iter.Seq2[string, error], error) {
			m.steps = []step{{item: "1"}, {after: 1900 * time.Millisecond, item: "2"}, {after: 1900 * time.Millisecond, err: errDown}}
			return m.stream(ctx)
		}, options(), time.Hour, time.Minute)
		require.ErrorIs(t, patient, errDown, "no item took two seconds")
		a, _ := reg.Provider("service", "a")
		require.NoError(t, a.Reset())
		stalled := five(t, r, func(ctx context.Context, m model) (iter.Seq2[string, error], error) {
			m.steps = []step{{item: "1"}, {after: 2100 * time.Millisecond, item: "2"}}
			return m.stream(ctx)
		}, options(), time.Hour, time.Minute)
		require.ErrorIs(t, stalled, stream.ErrStalled)
		require.Equal(t, status.BreakerOpen, a.Breaker().State)
	})
}

// Servers hang up on readers that leave their answer unread. Variants: a reset, a cut, an end without the end mark,
// for slow readers and for fast ones; an error that says something else.
func TestStream_CutOfWhatWasLeftUnreadBlamesNoProvider(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err    error
		pause  time.Duration
		blamed bool
	}{
		{syscall.ECONNRESET, time.Minute, false},
		{io.ErrUnexpectedEOF, time.Minute, false},
		{nil, time.Minute, false},
		{fmt.Errorf("read: %w", syscall.ECONNRESET), 1500 * time.Millisecond, false},
		{syscall.ECONNRESET, 0, true},
		{io.ErrUnexpectedEOF, 100 * time.Millisecond, true},
		{nil, 0, true},
		{errDown, time.Minute, true},
		{verdict.As(io.ErrUnexpectedEOF, verdict.Verdict{Class: verdict.ClassServerError}), time.Minute, true},
	} {
		bubble(t, []model{{name: "a"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
			steps := []step{{item: "1"}, {item: "2"}}
			if c.err != nil {
				steps = append(steps, step{err: c.err})
			}
			err := five(t, r, func(ctx context.Context, m model) (iter.Seq2[string, error], error) {
				m.steps = steps
				return m.stream(ctx)
			}, options(), time.Hour, c.pause)
			if c.err == nil {
				c.err = stream.ErrTruncated
			}
			require.ErrorIs(t, err, c.err)
			want := [4]uint64{0, 0, 5, 0}
			if c.blamed {
				want = [4]uint64{0, 5, 0, 0}
			}
			require.Equal(t, want, counts(t, reg, "a"), "%v %v", c.err, c.pause)
		})
	}
}

func TestReader_SlowReaderBlamesNoProvider(t *testing.T) {
	t.Parallel()
	bubble(t, []model{{name: "a"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		for range 5 {
			body, err := stream.Reader(t.Context(), r, func(ctx context.Context, _ model) (io.ReadCloser, error) {
				read, write := io.Pipe()
				go func() {
					for ctx.Err() == nil {
						if _, err := write.Write([]byte("data: x\n\n")); err != nil {
							return
						}
					}
				}()
				context.AfterFunc(ctx, func() { _ = read.CloseWithError(ctx.Err()) })
				return read, nil
			}, stream.ReaderOptions{End: []byte("data: [DONE]\n\n"), Options: stream.Options[[]byte]{Timeout: 10 * time.Second}})
			require.NoError(t, err)
			for err == nil {
				_, err = body.Read(make([]byte, 1))
				time.Sleep(time.Second / 3)
			}
			require.ErrorIs(t, err, registry.ErrAttemptTimeout)
			require.NotErrorIs(t, err, stream.ErrStalled)
			require.NoError(t, body.Close())
		}
		require.Equal(t, [4]uint64{0, 0, 5, 0}, counts(t, reg, "a"))
	})
}
