package stream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/stream"
	"github.com/capreg/registry/verdict"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// step is one step of a model: it waits, then sends an item or fails.
type step struct {
	after time.Duration
	item  string
	err   error
}

// model streams its steps, heeding its context.
type model struct {
	name  string
	open  error
	steps []step
}

func (m model) stream(ctx context.Context) (iter.Seq2[string, error], error) {
	if m.open != nil {
		return nil, m.open
	}
	return func(yield func(string, error) bool) {
		for _, s := range m.steps {
			select {
			case <-time.After(s.after):
			case <-ctx.Done():
				yield("", ctx.Err())
				return
			}
			if !yield(s.item, s.err) || s.err != nil {
				return
			}
		}
	}, nil
}

// says returns the steps of a complete stream.
func says(words string) []step {
	var steps []step
	for word := range strings.FieldsSeq(words) {
		steps = append(steps, step{item: word})
	}
	return append(steps, step{item: "[DONE]"})
}

var (
	service = registry.NewService[model]("service")
	errDown = errors.New("down")
)

func options() stream.Options[string] {
	return stream.Options[string]{
		FirstTimeout: 5 * time.Second, StallTimeout: 2 * time.Second,
		KeepAlive: func(item string) bool { return item == ":" },
		Last:      func(item string) bool { return item == "[DONE]" },
	}
}

func open(ctx context.Context, m model) (iter.Seq2[string, error], error) { return m.stream(ctx) }

func bubble(t *testing.T, models []model, test func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model])) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		reg, err := registry.New(registry.Options{})
		require.NoError(t, err)
		for _, m := range models {
			_, err := service.Register(t.Context(), reg, registry.Provider[model]{Name: m.name, Instance: m})
			require.NoError(t, err)
		}
		test(t, reg, service.Bind(reg, registry.Query{}))
		require.NoError(t, reg.Close(t.Context()))
	})
}

// read returns the items and the error of a stream.
func read(s *stream.Stream[string]) (text string, failure error) {
	var items []string
	for item, err := range s.All() {
		if err != nil {
			failure = err
			break
		}
		items = append(items, item)
	}
	return strings.Join(items, " "), failure
}

// counts returns successes, failures, ignored and in flight.
func counts(t *testing.T, reg *registry.Registry, name string) [4]uint64 {
	t.Helper()
	registration, ok := reg.Provider("service", name)
	require.True(t, ok)
	info := registration.Info()
	return [4]uint64{info.Successes, info.Failures, info.Ignored, info.InFlight}
}

func TestStream_SucceedsAtItsEndAndKeepsItsSlotUntilThen(t *testing.T) {
	t.Parallel()
	steps := []step{{after: 3 * time.Second, item: "one"}, {after: time.Second, item: "two"}, {item: "[DONE]"}}
	bubble(t, []model{{name: "a", steps: steps}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		s, err := stream.Open(t.Context(), r, open, options())
		require.NoError(t, err)
		require.Equal(t, "a", s.Provider())
		require.Equal(t, 3*time.Second, s.TimeToFirst())
		time.Sleep(time.Minute) // the reader takes its time
		require.Equal(t, [4]uint64{0, 0, 0, 1}, counts(t, reg, "a"))
		text, err := read(s)
		require.NoError(t, err)
		require.Equal(t, "one two [DONE]", text)
		require.Equal(t, [4]uint64{1, 0, 0, 0}, counts(t, reg, "a"))
		a, _ := reg.Provider("service", "a")
		require.Equal(t, 3*time.Second, a.Info().MeanLatency, "the time to the first item")
		_, err = read(s)
		require.ErrorIs(t, err, stream.ErrClosed)
	})
}

func TestStream_FailsOverOnlyBeforeItsFirstItem(t *testing.T) {
	t.Parallel()
	late := []step{{item: "one"}, {err: errDown}}
	models := []model{
		{name: "closed", open: errDown},
		{name: "broken", steps: []step{{err: errDown}}},
		{name: "silent", steps: []step{{after: time.Hour}}},
		{name: "empty"},
		{name: "late", steps: late},
		{name: "spare", steps: says("never")},
	}
	bubble(t, models, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		began := time.Now()
		s, err := stream.Open(t.Context(), r, open, options())
		require.NoError(t, err)
		require.Equal(t, "late", s.Provider())
		require.Equal(t, 5*time.Second, time.Since(began), "what the silent one took")
		var classes []verdict.Class
		for _, a := range s.Attempts() {
			classes = append(classes, a.Class)
		}
		require.Equal(t, []verdict.Class{verdict.ClassUnknown, verdict.ClassUnknown, verdict.ClassStalled, verdict.ClassMalformed}, classes)
		text, err := read(s)
		require.Equal(t, "one", text)
		require.ErrorIs(t, err, errDown)
		require.Equal(t, [4]uint64{}, counts(t, reg, "spare"))
		for _, name := range []string{"closed", "broken", "silent", "empty", "late"} {
			require.Equal(t, [4]uint64{0, 1, 0, 0}, counts(t, reg, name), name)
		}
	})
}

func TestStream_WithoutEndMarkIsTruncated(t *testing.T) {
	t.Parallel()
	bubble(t, []model{{name: "a", steps: []step{{item: "one"}}}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		s, err := stream.Open(t.Context(), r, open, options())
		require.NoError(t, err)
		text, err := read(s)
		require.Equal(t, "one", text)
		require.ErrorIs(t, err, stream.ErrTruncated)
		require.Equal(t, [4]uint64{0, 1, 0, 0}, counts(t, reg, "a"))

		s, err = stream.Open(t.Context(), r, open, stream.Options[string]{})
		require.NoError(t, err)
		_, err = read(s)
		require.NoError(t, err, "without a mark every end is one")
	})
}

func TestStream_KeepAlivesResetNoTimeLimit(t *testing.T) {
	t.Parallel()
	var alive []step
	for range 100 {
		alive = append(alive, step{after: 500 * time.Millisecond, item: ":"})
	}
	models := []model{{name: "a", steps: alive}, {name: "b", steps: append([]step{{item: "one"}}, alive...)}}
	bubble(t, models, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		began := time.Now()
		s, err := stream.Open(t.Context(), r, open, options())
		require.NoError(t, err)
		require.Equal(t, 5*time.Second, time.Since(began))
		text, err := read(s)
		require.Equal(t, "one", text)
		require.ErrorIs(t, err, stream.ErrStalled)
		require.Equal(t, 7*time.Second, time.Since(began))
		require.Equal(t, [4]uint64{0, 1, 0, 0}, counts(t, reg, "a"))
		require.Equal(t, [4]uint64{0, 1, 0, 0}, counts(t, reg, "b"))
	})
}

func TestOpen_WholeAnswerFailsOverFromACutStream(t *testing.T) {
	t.Parallel()
	models := []model{
		{name: "cut", steps: []step{{item: "half"}, {err: io.ErrUnexpectedEOF}}},
		{name: "truncated", steps: []step{{item: "half"}}},
		{name: "stalled", steps: []step{{item: "half"}, {after: time.Hour, item: "late"}}},
		{name: "good", steps: says("a whole answer")},
	}
	bubble(t, models, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		whole := options()
		whole.Whole = true
		s, err := stream.Open(t.Context(), r, open, whole)
		require.NoError(t, err)
		require.Equal(t, "good", s.Provider())
		require.Equal(t, [4]uint64{1, 0, 0, 0}, counts(t, reg, "good"), "it has ended already")
		text, err := read(s)
		require.NoError(t, err)
		require.Equal(t, "a whole answer [DONE]", text)
		for _, name := range []string{"cut", "truncated", "stalled"} {
			require.Equal(t, [4]uint64{0, 1, 0, 0}, counts(t, reg, name), name)
		}
		whole.MaxItems = 2
		_, err = stream.Open(t.Context(), r, open, whole)
		require.ErrorIs(t, err, stream.ErrTooLong)
	})
}

func TestStream_EarlyBreakBlamesNoProviderAndReleasesIt(t *testing.T) {
	t.Parallel()
	bubble(t, []model{{name: "a", steps: says("one two three")}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		s, err := stream.Open(t.Context(), r, open, options())
		require.NoError(t, err)
		for _, err := range s.All() {
			require.NoError(t, err)
			break
		}
		require.Equal(t, [4]uint64{0, 0, 1, 0}, counts(t, reg, "a"))

		s, err = stream.Open(t.Context(), r, open, options())
		require.NoError(t, err)
		require.NoError(t, s.Close(), "without reading")
		require.NoError(t, s.Close())
		require.Equal(t, [4]uint64{0, 0, 2, 0}, counts(t, reg, "a"))
	})
}

func TestClose_DuringARead(t *testing.T) {
	t.Parallel()
	steps := []step{{item: "one"}, {after: time.Second, item: "two"}, {after: time.Hour, item: "never"}}
	bubble(t, []model{{name: "a", steps: steps}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		patient := options()
		patient.StallTimeout = 2 * time.Hour
		s, err := stream.Open(t.Context(), r, open, patient)
		require.NoError(t, err)
		var reader sync.WaitGroup
		reader.Go(func() {
			text, err := read(s)
			if text != "one two" || !errors.Is(err, stream.ErrClosed) {
				t.Error(text, err)
			}
		})
		time.Sleep(time.Minute)
		require.NoError(t, s.Close())
		reader.Wait()
		require.Equal(t, [4]uint64{0, 0, 1, 0}, counts(t, reg, "a"))
	})
}

func TestStream_EndsWithItsCaller(t *testing.T) {
	t.Parallel()
	steps := []step{{item: "one"}, {after: time.Hour, item: "two"}}
	bubble(t, []model{{name: "a", steps: steps}, {name: "b"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		patient := options()
		patient.StallTimeout = 2 * time.Hour
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		s, err := stream.Open(ctx, r, open, patient)
		require.NoError(t, err)
		_, err = read(s)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, [4]uint64{0, 0, 1, 0}, counts(t, reg, "a"))
		_, err = stream.Open(ctx, r, open, patient)
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestStream_TimeoutReplacesTheAttemptTimeout(t *testing.T) {
	t.Parallel()
	var steps []step
	for range 1000 {
		steps = append(steps, step{after: time.Second, item: "tick"})
	}
	bubble(t, []model{{name: "a", steps: steps}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		events := reg.Subscribe(0)
		defer events.Close()
		limited := options()
		limited.Timeout = 5 * time.Minute
		s, err := stream.Open(t.Context(), r, open, limited)
		require.NoError(t, err)
		text, err := read(s)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.InDelta(t, 299, strings.Count(text, "tick"), 1)
		require.Equal(t, [4]uint64{0, 0, 1, 0}, counts(t, reg, "a"), "it yielded an item each second")
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		for e := range events.All(ended) {
			require.NotEqual(t, event.LeaseExpired, e.Kind)
		}
	})
}

func TestStream_OnceOnlyFailsOverOnlyIfNothingSent(t *testing.T) {
	t.Parallel()
	once := options()
	once.Call = []registry.CallOption{registry.OnceOnly()}
	models := []model{{name: "refused", open: verdict.NotSent(errDown)}, {name: "broken", open: errDown}, {name: "spare", steps: says("x")}}
	bubble(t, models, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		_, err := stream.Open(t.Context(), r, open, once)
		require.ErrorIs(t, err, errDown)
		var failed *registry.CallError
		require.ErrorAs(t, err, &failed)
		require.True(t, failed.OnceOnly)
		require.Len(t, failed.Attempts, 2)
		require.Equal(t, [4]uint64{}, counts(t, reg, "spare"))
	})
}

func TestOpen_ReturnsACallersMistakeAtOnce(t *testing.T) {
	t.Parallel()
	bubble(t, []model{{name: "a", open: verdict.Permanent(errDown)}, {name: "b", steps: says("x")}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		_, err := stream.Open(t.Context(), r, open, options())
		require.ErrorIs(t, err, errDown)
		require.Equal(t, [4]uint64{}, counts(t, reg, "b"))
	})
}

func TestOpen_ErrorNamesEveryProviderWhenAllFail(t *testing.T) {
	t.Parallel()
	bubble(t, []model{{name: "a", open: errDown}, {name: "b", open: errDown}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		a, _ := reg.Provider("service", "a")
		require.NoError(t, a.ForceOpen(time.Minute, "test"))
		_, err := stream.Open(t.Context(), r, open, options())
		require.ErrorIs(t, err, errDown)
		require.ErrorIs(t, err, registry.ErrBreakerOpen)
		require.ErrorContains(t, err, "b: unknown after 0s: down; a: breaker open")
	})
	bubble(t, nil, func(t *testing.T, _ *registry.Registry, r *registry.Resolver[model]) {
		_, err := stream.Open(t.Context(), r, open, options())
		require.ErrorIs(t, err, registry.ErrUnavailable)
	})
}

func TestStream_PanicIsRecordedAndReachesTheReader(t *testing.T) {
	t.Parallel()
	bubble(t, []model{{name: "a"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		require.PanicsWithValue(t, "open", func() {
			_, _ = stream.Open(t.Context(), r, func(context.Context, model) (iter.Seq2[string, error], error) { panic("open") }, options())
		})
		s, err := stream.Open(t.Context(), r, func(context.Context, model) (iter.Seq2[string, error], error) {
			return func(yield func(string, error) bool) {
				yield("one", nil)
				panic("stream")
			}, nil
		}, options())
		require.NoError(t, err)
		require.PanicsWithValue(t, "stream", func() { _, _ = read(s) })
		require.Equal(t, [4]uint64{0, 2, 0, 0}, counts(t, reg, "a"))
	})
}

func TestOpen_RefusesBadInput(t *testing.T) {
	t.Parallel()
	bubble(t, []model{{name: "a", steps: says("x")}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		for field, o := range map[string]stream.Options[string]{
			"Options.FirstTimeout": {FirstTimeout: -1}, "Options.StallTimeout": {StallTimeout: -1},
			"Options.Timeout": {Timeout: -1}, "Options.MaxItems": {MaxItems: -1},
		} {
			_, err := stream.Open(t.Context(), r, open, o)
			var bad *registry.FieldError
			require.ErrorAs(t, err, &bad, field)
			require.Equal(t, field, bad.Field)
		}
		_, err := stream.Open[model, string](t.Context(), r, nil, options())
		require.ErrorIs(t, err, registry.ErrInvalid)
		var none context.Context
		_, err = stream.Open(none, r, open, options())
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = stream.Reader[model](t.Context(), r, nil, stream.ReaderOptions{})
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = stream.Open(t.Context(), r, func(context.Context, model) (iter.Seq2[string, error], error) { return nil, nil }, options())
		require.ErrorContains(t, err, "nothing to read")
		require.Equal(t, [4]uint64{0, 1, 0, 0}, counts(t, reg, "a"))
	})
}

// bodies reads what models say as bytes.
func body(steps string, rest io.Reader) func(context.Context, model) (io.ReadCloser, error) {
	return func(context.Context, model) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(strings.NewReader(steps), rest)), nil
	}
}

func TestReader_FindsTheEndMarkAcrossChunks(t *testing.T) {
	t.Parallel()
	end := []byte("data: [DONE]\n\n")
	bubble(t, []model{{name: "a"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		text := "data: one\n\ndata: [DONE]\n\n"
		for name, chunked := range map[string]func(io.Reader) io.Reader{
			"all at once": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader, "with its end": iotest.DataErrReader,
		} {
			opened, err := stream.Reader(t.Context(), r, func(context.Context, model) (io.ReadCloser, error) {
				return io.NopCloser(chunked(strings.NewReader(text + "and more"))), nil
			}, stream.ReaderOptions{End: end})
			require.NoError(t, err, name)
			all, err := io.ReadAll(opened)
			require.NoError(t, err, name)
			require.Equal(t, text, string(all), name)
			require.NoError(t, opened.Close())
		}
		require.Equal(t, [4]uint64{3, 0, 0, 0}, counts(t, reg, "a"))
	})
}

func TestReader_CutBodyNeverReturnsEOF(t *testing.T) {
	t.Parallel()
	bubble(t, []model{{name: "a"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		for name, c := range map[string]struct {
			rest io.Reader
			want error
		}{
			"truncated": {strings.NewReader(""), stream.ErrTruncated}, "cut": {iotest.ErrReader(io.ErrUnexpectedEOF), io.ErrUnexpectedEOF},
		} {
			opened, err := stream.Reader(t.Context(), r, body("half", c.rest), stream.ReaderOptions{End: []byte("END")})
			require.NoError(t, err, name)
			all, err := io.ReadAll(opened)
			require.ErrorIs(t, err, c.want, name)
			require.Equal(t, "half", string(all))
			require.NoError(t, opened.Close())
		}
		require.Equal(t, [4]uint64{0, 2, 0, 0}, counts(t, reg, "a"))
		opened, err := stream.Reader(t.Context(), r, body("half", strings.NewReader("")), stream.ReaderOptions{})
		require.NoError(t, err)
		require.NoError(t, opened.Close())
		_, err = opened.Read(make([]byte, 1))
		require.ErrorIs(t, err, stream.ErrClosed)
	})
}

func ExampleOpen() {
	ctx := context.Background()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = reg.Close(ctx) }()
	for _, m := range []model{{name: "broken", open: errDown}, {name: "good", steps: says("hello there")}} {
		if _, err := service.Register(ctx, reg, registry.Provider[model]{Name: m.name, Instance: m}); err != nil {
			panic(err)
		}
	}
	s, err := stream.Open(ctx, service.Bind(reg, registry.Query{}),
		func(ctx context.Context, m model) (iter.Seq2[string, error], error) { return m.stream(ctx) },
		stream.Options[string]{Last: func(item string) bool { return item == "[DONE]" }})
	if err != nil {
		panic(err)
	}
	for item, err := range s.All() {
		fmt.Println(s.Provider(), item, err)
	}
	// Output:
	// good hello <nil>
	// good there <nil>
	// good [DONE] <nil>
}
