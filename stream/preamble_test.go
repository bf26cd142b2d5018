package stream_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/stream"
)

// What commits to a provider where nothing was said about it: an event that carries something.
func TestOpen_PreambleOfEventsIsKnown(t *testing.T) {
	t.Parallel()
	for data, silent := range map[string]bool{
		`{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}`: true,
		`{"choices":[{"delta":{"role":"assistant","content":null,"refusal":null}}]}`:               true,
		`{"choices":[{"delta":{}}],"usage":null}`:                                                  true,
		`{"choices":[],"prompt_filter_results":[{"prompt_index":0}]}`:                              true,
		`{"type":"message_start","message":{"id":"m","content":[],"usage":{"input_tokens":1}}}`:    true,
		`{"type":"ping"}`: true,
		`{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`: true,
		`{"type":"response.created","response":{}}`:                                          true,
		``: true,
		`{"choices":[{"delta":{"content":"x"}}]}`:                                                  false,
		`{"choices":[{"delta":{"role":"assistant","tool_calls":[{"index":0}]}}]}`:                  false,
		`{"choices":[{"delta":{"reasoning_content":"hm"}}]}`:                                       false,
		`{"choices":[{"delta":{}},{"delta":{"content":"x"}}]}`:                                     false,
		`{"choices":[{"delta":{},"finish_reason":"stop"}]}`:                                        false,
		`{"choices":[{"text":"x"}]}`:                                                               false,
		`{"choices":[{"message":{"content":"x"}}]}`:                                                false,
		`{"choices":[{"delta":"x"}]}`:                                                              false,
		`{"choices":[],"usage":{"total_tokens":3}}`:                                                false,
		`{"choices":[],"error":{"message":"x"}}`:                                                   false,
		`{"type":"content_block_start","content_block":{"type":"tool_use","name":"f","input":{}}}`: false,
		`{"type":"content_block_delta","delta":{"type":"text_delta","text":"x"}}`:                  false,
		`{"candidates":[]}`: false, `{}`: false, `[]`: false, `hello`: false, `{"choices":"x"}`: false, `{"cho`: false,
	} {
		event := "data: " + data + "\n\n"
		for _, form := range []string{"events", "bytes"} {
			bubble(t, []model{{name: "a"}, {name: "b"}}, func(t *testing.T, _ *registry.Registry, r *registry.Resolver[model]) {
				body := func(m model) io.Reader {
					if m.name == "a" {
						return failing{strings.NewReader(event), errDown}
					}
					return strings.NewReader("data: spare\n\n")
				}
				var got string
				var err error
				if form == "events" {
					var s *stream.Stream[stream.Event]
					s, err = stream.Open(t.Context(), r, func(_ context.Context, m model) (iter.Seq2[stream.Event, error], error) {
						return stream.SSE(body(m)), nil
					}, stream.Options[stream.Event]{})
					require.NoError(t, err)
					var all []string
					all, err = told(s.All())
					got = strings.Join(all, "")
				} else {
					var opened io.ReadCloser
					opened, err = stream.Reader(t.Context(), r, func(_ context.Context, m model) (io.ReadCloser, error) {
						return io.NopCloser(body(m)), nil
					}, stream.ReaderOptions{})
					require.NoError(t, err)
					var all []byte
					all, err = io.ReadAll(opened)
					got = string(all)
				}
				if silent {
					require.NoError(t, err, "%s %s", form, data)
					require.Contains(t, got, "spare")
				} else {
					require.ErrorIs(t, err, errDown, "%s %s", form, data)
					require.Contains(t, got, data)
				}
			})
		}
	}
}

func TestOpen_EndMarkIsNoPreamble(t *testing.T) {
	t.Parallel()
	bubble(t, []model{{name: "a"}}, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[model]) {
		s, err := stream.Open(t.Context(), r, func(context.Context, model) (iter.Seq2[stream.Event, error], error) {
			return stream.SSE(strings.NewReader("event: ping\ndata\n\nevent: done\ndata\n\n")), nil
		}, stream.Options[stream.Event]{Last: func(e stream.Event) bool { return e.Name == "done" }})
		require.NoError(t, err)
		got, err := told(s.All())
		require.NoError(t, err)
		require.Equal(t, []string{"ping|", "done|"}, got)
		require.Equal(t, [4]uint64{1, 0, 0, 0}, counts(t, reg, "a"))
	})
}

// Of items of which nothing is known the first one is held for a moment. Variants: an error, an end without the mark, a panic,
// an exit, and another item, within that time and after it; a reader that waits for it, and one that comes late or never.
func TestOpen_HoldsTheFirstItemForAMoment(t *testing.T) {
	t.Parallel()
	spare := registry.Provider[[]part]{Instance: []part{{kind: "role"}, {kind: "text"}, {kind: "finish"}}}
	for _, second := range []part{{err: errors.New("503")}, {kind: "none"}} {
		for _, after := range []time.Duration{0, 50 * time.Millisecond, 150 * time.Millisecond} {
			steps := []part{{kind: "role"}, {kind: "role", wait: after, err: second.err}}
			if second.kind == "none" {
				steps = []part{{kind: "role"}}
			}
			playing(t, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[[]part]) {
				began := time.Now()
				s, err := stream.Open(t.Context(), r, play, stream.Options[part]{Last: isKind("finish")})
				require.NoError(t, err)
				require.LessOrEqual(t, time.Since(began), 100*time.Millisecond)
				got, err := kinds(s, nil)
				if after < 100*time.Millisecond || second.kind == "none" {
					require.NoError(t, err)
					require.Equal(t, "role text finish", got)
				} else {
					require.ErrorIs(t, err, second.err)
					require.Equal(t, "role", got)
				}
				a, _ := reg.Provider(events.Name(), "a")
				require.EqualValues(t, 1, a.Info().Failures)
				require.Zero(t, a.Info().InFlight)
			}, registry.Provider[[]part]{Instance: steps}, spare)
		}
	}
	for _, pause := range []time.Duration{0, 50 * time.Millisecond, time.Second, 20 * time.Second} {
		late := registry.Provider[[]part]{Instance: []part{{kind: "text"}, {kind: "text", wait: 10 * time.Second}, {kind: "finish", wait: 25 * time.Second}}}
		playing(t, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[[]part]) {
			s, err := stream.Open(t.Context(), r, play, stream.Options[part]{Last: isKind("finish")})
			require.NoError(t, err)
			require.Zero(t, s.TimeToFirst(), "it was held, not late")
			time.Sleep(pause)
			got, err := kinds(s, nil)
			require.NoError(t, err)
			require.Equal(t, "text text finish", got)
			a, _ := reg.Provider(events.Name(), "a")
			require.EqualValues(t, 1, a.Info().Successes)
		}, late)
	}
}

// The read that has begun ends with the stream. Variants: closed at once, closed while a reader waits, forgotten until its time is
// over, the caller leaves, the read fails with no reader there.
func TestStream_ReadThatHasBegunEndsWithIt(t *testing.T) {
	t.Parallel()
	hour := registry.Provider[[]part]{Instance: []part{{kind: "text"}, {kind: "text", wait: time.Hour}}}
	for name, end := range map[string]func(t *testing.T, s *stream.Stream[part], cancel func()){
		"closed": func(t *testing.T, s *stream.Stream[part], _ func()) {
			t.Helper()
			require.NoError(t, s.Close())
			_, err := kinds(s, nil)
			require.ErrorIs(t, err, stream.ErrClosed)
		},
		"closed while it is read": func(t *testing.T, s *stream.Stream[part], _ func()) {
			t.Helper()
			time.AfterFunc(time.Second, func() { _ = s.Close() })
			got, err := kinds(s, nil)
			require.ErrorIs(t, err, stream.ErrClosed)
			require.Equal(t, "text", got)
		},
		"forgotten": func(*testing.T, *stream.Stream[part], func()) { time.Sleep(time.Minute) },
		"the caller leaves": func(t *testing.T, s *stream.Stream[part], cancel func()) {
			t.Helper()
			cancel()
			synctest.Wait()
			got, err := kinds(s, nil)
			require.ErrorIs(t, err, context.Canceled)
			require.Equal(t, "text", got)
		},
		"it is read too late": func(t *testing.T, s *stream.Stream[part], _ func()) {
			t.Helper()
			time.Sleep(time.Minute)
			got, err := kinds(s, nil)
			require.ErrorIs(t, err, stream.ErrStalled)
			require.Equal(t, "text", got)
		},
	} {
		playing(t, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[[]part]) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			released := false
			s, err := stream.Open(ctx, r, func(ctx context.Context, steps []part) (iter.Seq2[part, error], error) {
				items, err := play(ctx, steps)
				return func(yield func(part, error) bool) {
					defer func() { released = true }()
					items(yield)
				}, err
			}, stream.Options[part]{})
			require.NoError(t, err)
			end(t, s, cancel)
			synctest.Wait()
			require.True(t, released, name)
			a, _ := reg.Provider("service", "a")
			require.Zero(t, a.Info().InFlight, name)
		}, hour)
	}
}

// Variants: before Open has returned, and after; a panic and an exit.
func TestStream_PanicOfAReadThatHasBegun(t *testing.T) {
	t.Parallel()
	for _, exit := range []bool{false, true} {
		for _, after := range []time.Duration{0, time.Second} {
			playing(t, func(t *testing.T, reg *registry.Registry, r *registry.Resolver[[]part]) {
				returned, panicked := false, any(nil)
				done := make(chan struct{})
				go func() {
					defer close(done)
					defer func() { panicked = recover() }()
					s, err := stream.Open(t.Context(), r, func(context.Context, []part) (iter.Seq2[part, error], error) {
						return func(yield func(part, error) bool) {
							yield(part{}, nil)
							time.Sleep(after)
							if exit {
								runtime.Goexit()
							}
							panic("boom")
						}, nil
					}, stream.Options[part]{})
					if err == nil {
						_, _ = kinds(s, nil)
					}
					returned = true
				}()
				<-done
				require.False(t, returned)
				if !exit {
					require.Equal(t, "boom", panicked)
				}
				a, _ := reg.Provider(events.Name(), "a")
				require.EqualValues(t, 1, a.Info().Failures)
				require.Zero(t, a.Info().InFlight)
			}, registry.Provider[[]part]{Instance: []part{}})
		}
	}
}

// A thread that is locked, as that of a user interface is, may open a stream that another goroutine ends, and the other way round.
func TestStream_IsForAnyThread(t *testing.T) {
	t.Parallel()
	for _, locked := range []bool{true, false} {
		reg, err := registry.New(registry.Options{})
		require.NoError(t, err)
		_, err = events.Register(t.Context(), reg, registry.Provider[[]part]{Name: "a", Instance: []part{}})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan *stream.Stream[part])
		go func() {
			if locked {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
			}
			s, err := stream.Open(ctx, events.Bind(reg, registry.Query{}), func(context.Context, []part) (iter.Seq2[part, error], error) {
				return func(yield func(part, error) bool) {
					for yield(part{kind: "x"}, nil) {
						continue
					}
				}, nil
			}, stream.Options[part]{})
			if err != nil {
				t.Error(err)
			}
			done <- s
		}()
		s := <-done
		if !locked {
			runtime.LockOSThread()
		}
		for item, err := range s.All() {
			if err != nil || item.kind != "x" {
				t.Error(item, err)
			}
			break
		}
		if !locked {
			runtime.UnlockOSThread()
		}
		cancel()
		require.NoError(t, reg.Close(context.WithoutCancel(t.Context())))
	}
}
