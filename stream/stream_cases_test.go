package stream_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/stream"
	"github.com/capreg/registry/verdict"
)

// part is an item of a stream that tells what it is.
type part struct {
	kind string
	wait time.Duration
	err  error
}

var events = registry.NewService[[]part]("events")

// play yields events, each after its wait.
func play(ctx context.Context, steps []part) (iter.Seq2[part, error], error) {
	return func(yield func(part, error) bool) {
		for _, e := range steps {
			select {
			case <-time.After(e.wait):
			case <-ctx.Done():
				e.err = ctx.Err()
			}
			if !yield(e, e.err) || e.err != nil {
				return
			}
		}
	}, nil
}

// kinds reads a stream to its end.
func kinds(s *stream.Stream[part], err error) (string, error) {
	if err != nil {
		return "", err
	}
	var all []string
	for e, err := range s.All() {
		if err != nil {
			return strings.Join(all, " "), err
		}
		all = append(all, e.kind)
	}
	return strings.Join(all, " "), nil
}

func isKind(kind string) func(part) bool { return func(e part) bool { return e.kind == kind } }

// playing runs a test on fake time with providers a, b, … in groups of their own.
func playing(t *testing.T, test func(t *testing.T, reg *registry.Registry, r *registry.Resolver[[]part]), providers ...registry.Provider[[]part]) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		reg, err := registry.New(registry.Options{DrainTimeout: 5 * time.Second})
		require.NoError(t, err)
		for i, p := range providers {
			p.Name, p.Group = string(rune('a'+i)), i
			_, err := events.Register(t.Context(), reg, p)
			require.NoError(t, err)
		}
		test(t, reg, events.Bind(reg, registry.Query{}))
		require.NoError(t, reg.Close(t.Context()))
	})
}

// Variants: a preamble before an error, before the end, before a stall, in whole-answer mode, and alone.
func TestOpen_PreambleIsHeldAndDeliveredWithTheFirstItem(t *testing.T) {
	t.Parallel()
	complete := registry.Provider[[]part]{Instance: []part{{kind: "role"}, {kind: "text"}, {kind: "finish"}}}
	for _, bad := range [][]part{
		{{kind: "role"}, {err: errors.New("503")}}, {{kind: "role"}}, {{kind: "role"}, {kind: "role"}, {kind: "text", wait: time.Hour}},
	} {
		for _, whole := range []bool{false, true} {
			playing(t, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[[]part]) {
				s, err := stream.Open(t.Context(), r, play, stream.Options[part]{Last: isKind("finish"), KeepAlive: isKind("role"), Whole: whole})
				require.NoError(t, err)
				require.Equal(t, "b", s.Provider())
				got, err := kinds(s, nil)
				require.NoError(t, err)
				require.Equal(t, "role text finish", got)
			}, registry.Provider[[]part]{Instance: bad}, complete)
		}
	}
}

// Variants: what follows the end mark is another item, an error, a silence, a keep-alive, no end; read one by one or whole.
func TestStream_DeliversWhatFollowsTheEndMark(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		behind []part
		want   string
	}{
		{[]part{{kind: "usage"}}, " usage"},
		{[]part{{kind: "usage", wait: time.Second / 2}, {kind: "late", wait: time.Minute}}, " usage"},
		{[]part{{kind: "ping"}, {kind: "usage"}, {err: errors.New("reset")}}, " usage"},
		{[]part{{err: verdict.Fatal(errors.New("401"), 0)}}, ""},
		{nil, ""},
	} {
		for _, whole := range []bool{false, true} {
			playing(t, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[[]part]) {
				began := time.Now()
				got, err := kinds(stream.Open(t.Context(), r, play, stream.Options[part]{Last: isKind("finish"), KeepAlive: isKind("ping"), Whole: whole}))
				require.NoError(t, err)
				require.Equal(t, "text finish"+c.want, got)
				require.Less(t, time.Since(began), 2*time.Second)
				a, _ := reg.Provider(events.Name(), "a")
				require.EqualValues(t, 1, a.Info().Successes)
				require.Zero(t, a.Info().InFlight)
			}, registry.Provider[[]part]{Instance: append([]part{{kind: "text"}, {kind: "finish"}}, c.behind...)})
		}
	}
}

// Variants: the provider is replaced, the stream's own time is over, the caller has a cause; while a read is in
// progress and between two.
func TestStream_ErrorsCarryTheirCause(t *testing.T) {
	t.Parallel()
	slow := registry.Provider[[]part]{Instance: []part{{kind: "text"}, {kind: "text", wait: time.Minute}}}
	mine := errors.New("the user pressed stop")
	for _, between := range []bool{false, true} {
		read := func(s *stream.Stream[part], err error) error {
			if err == nil && between {
				time.Sleep(30 * time.Second)
			}
			_, err = kinds(s, err)
			return err
		}
		playing(t, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[[]part]) {
			time.AfterFunc(time.Second, func() {
				next := slow
				next.Name, next.Replace = "a", true
				_, _ = events.Register(context.Background(), reg, next)
			})
			require.ErrorIs(t, read(stream.Open(t.Context(), r, play, stream.Options[part]{StallTimeout: time.Hour})), registry.ErrClosed)
			require.ErrorIs(t, read(stream.Open(t.Context(), r, play, stream.Options[part]{Timeout: 10 * time.Second})), registry.ErrAttemptTimeout)
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { cancel(mine) })
			require.ErrorIs(t, read(stream.Open(ctx, r, play, stream.Options[part]{})), mine)
		}, slow)
	}
}

func TestOpen_TrialOfALongStreamKeepsNoOtherOut(t *testing.T) {
	t.Parallel()
	playing(t, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[[]part]) {
		a, _ := reg.Provider(events.Name(), "a")
		require.NoError(t, a.ForceOpen(time.Second, "test"))
		time.Sleep(2 * time.Second)
		for range 40 {
			s, err := stream.Open(t.Context(), r, play, stream.Options[part]{StallTimeout: time.Hour})
			require.NoError(t, err)
			go func() { _, _ = kinds(s, nil) }()
			time.Sleep(5 * time.Second)
		}
		time.Sleep(2 * time.Minute)
		require.Equal(t, status.BreakerClosed, a.Breaker().State)
	}, registry.Provider[[]part]{Instance: []part{{kind: "text"}, {kind: "finish", wait: time.Minute}}})
}

// Variants: CRLF, no space, no last newline, none at all; in one piece and byte by byte.
func TestReader_FindsEndMarkInEveryFormOfServerSentEvents(t *testing.T) {
	t.Parallel()
	for body, complete := range map[string]bool{
		"data: {}\r\n\r\ndata: [DONE]\r\n\r\n": true, "data:{}\n\ndata:[DONE]\n\n": true, "data: {}\n\ndata: [DONE]\n": true,
		"data: {}\n\ndata: [DONE]": true, "data: {}\r\n\r\ndata:[DONE]\r\n": true, "data: [DONE]\n\n": true,
		"data: {}\n\n": false, "data: {}\n\nevent: data: [DONE]\n": false, "data: [DONE] not\n\n": false, "": false,
	} {
		for _, sizes := range [][]byte{nil, []byte(strings.Repeat("\x01", 100))} {
			reg, err := registry.New(registry.Options{})
			require.NoError(t, err)
			bodies := registry.NewService[int]("bodies")
			_, err = bodies.Register(t.Context(), reg, registry.Provider[int]{Instance: 1})
			require.NoError(t, err)
			got, err := readAll(t.Context(), bodies.Bind(reg, registry.Query{}), &pieces{[]byte(body), sizes}, []byte("data: [DONE]\n\n"))
			if complete {
				require.NoError(t, err, "%q", body)
				require.Equal(t, body, string(got))
			} else {
				require.ErrorIs(t, err, stream.ErrTruncated, "%q", body)
			}
			require.NoError(t, reg.Close(t.Context()))
		}
	}
}

// nothing is a body that neither gives bytes nor ends.
type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, nil }
func (nothing) Close() error             { return nil }

func TestReader_BodyThatGivesNothingEndsTheStream(t *testing.T) {
	t.Parallel()
	playing(t, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[[]part]) {
		_, err := stream.Reader(t.Context(), r, func(context.Context, []part) (io.ReadCloser, error) { return nothing{}, nil }, stream.ReaderOptions{})
		require.ErrorIs(t, err, io.ErrNoProgress)
		a, _ := reg.Provider(events.Name(), "a")
		require.Zero(t, a.Info().InFlight)
	}, registry.Provider[[]part]{Instance: []part{}})
}
