package registryotel_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"log/slog"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/trace"
	api "go.opentelemetry.io/otel/trace"

	"github.com/capreg/registry"
	registryotel "github.com/capreg/registry/contrib/otel"
	"github.com/capreg/registry/hedge"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/stream"
	"github.com/capreg/registry/verdict"
)

func TestObserve_CallThatFailedOverTwiceHasATreeOfItsAttempts(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry, r *recorded) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(failsAs(verdict.ClassTransport))})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Instance: testkit.Fails(failsAs(verdict.ClassRateLimited))})
		testkit.Add(t, reg, testkit.Provider{Name: "c"})
		ctx, request := r.tracer.Start(t.Context(), "request")
		_, err := registry.Call(ctx, testkit.Chat.Bind(reg, registry.Query{Handler: "h"}), r.ask, registry.Caller("me"))
		require.NoError(t, err)
		request.End()
		require.Equal(t, []string{
			"request",
			"  call chat call.attempts=3 call.failover=true caller=me class=success handler=h provider.name=c",
			"    attempt a attempt.reason=first class=transport error.type=transport provider.name=a ERROR",
			"      client",
			"    attempt b attempt.reason=failover class=rate limited error.type=rate limited provider.name=b ERROR",
			"      client",
			"    attempt c attempt.reason=failover class=success provider.name=c",
			"      client",
		}, r.tree())
	})
}

// Each way to ask, beside the call above.
func TestObserve_EachKindOfCallHasATree(t *testing.T) {
	t.Parallel()
	type model = testkit.ChatModel
	down := testkit.Fails(failsAs(verdict.ClassTransport))
	for name, row := range map[string]struct {
		providers []testkit.Provider
		ask       func(t *testing.T, r *recorded, reg *registry.Registry)
		want      []string
	}{
		"first answer": {
			[]testkit.Provider{{Name: "a"}},
			func(t *testing.T, r *recorded, reg *registry.Registry) {
				_, err := registry.Call(t.Context(), testkit.Bind(reg), r.ask)
				require.NoError(t, err)
			},
			[]string{
				"call chat call.attempts=1 call.failover=false class=success provider.name=a",
				"  attempt a attempt.reason=first class=success provider.name=a",
				"    client",
			},
		},
		"hedge": {
			[]testkit.Provider{{Name: "a", Instance: testkit.Hangs()}, {Name: "b"}},
			func(t *testing.T, r *recorded, reg *registry.Registry) {
				_, err := hedge.Call(t.Context(), testkit.Bind(reg), hedge.Policy{After: time.Second}, r.ask)
				require.NoError(t, err)
				synctest.Wait()
			},
			[]string{
				"call chat call.attempts=2 call.failover=true class=success provider.name=b",
				"  attempt a attempt.reason=first class=hedge loser provider.name=a",
				"    client",
				"  attempt b attempt.reason=hedge class=success provider.name=b linked to attempt a",
				"    client",
			},
		},
		"stream": {
			[]testkit.Provider{{Name: "a", Instance: down}, {Name: "b"}},
			func(t *testing.T, r *recorded, reg *registry.Registry) {
				open := func(ctx context.Context, m model) (iter.Seq2[string, error], error) {
					answer, err := r.ask(ctx, m)
					return func(yield func(string, error) bool) { _ = yield(answer, nil) && yield("more", nil) }, err
				}
				s, err := stream.Open(t.Context(), testkit.Bind(reg), open, stream.Options[string]{})
				require.NoError(t, err)
				for _, err := range s.All() {
					require.NoError(t, err)
					time.Sleep(time.Second)
				}
			},
			[]string{
				"call chat call.attempts=2 call.failover=true class=success provider.name=b",
				"  attempt a attempt.reason=first class=transport error.type=transport provider.name=a ERROR",
				"    client",
				"  attempt b attempt.reason=failover class=success provider.name=b",
				"    client",
			},
		},
		"lease": {
			[]testkit.Provider{{Name: "a"}, {Name: "b"}},
			func(t *testing.T, r *recorded, reg *registry.Registry) {
				lease, err := testkit.Bind(reg).Acquire(t.Context())
				require.NoError(t, err)
				_, err = r.ask(lease.Context(), lease.Value)
				require.NoError(t, err)
				lease, err = lease.MoveOn(failsAs(verdict.ClassStalled))
				require.NoError(t, err)
				_, span := r.tracer.Start(lease.Context(), "work")
				span.End()
				lease.Done(nil)
			},
			[]string{
				"call chat call.attempts=2 call.failover=true class=success provider.name=b",
				"  attempt a attempt.reason=first class=stalled error.type=stalled provider.name=a ERROR",
				"    client",
				"  attempt b attempt.reason=failover class=success provider.name=b",
				"    work",
			},
		},
		"lease that expires": {
			[]testkit.Provider{{Name: "a", AttemptTimeout: time.Second}},
			func(t *testing.T, _ *recorded, reg *registry.Registry) {
				_, err := testkit.Bind(reg).Acquire(t.Context())
				require.NoError(t, err)
				testkit.Pass(time.Minute)
			},
			[]string{
				"call chat call.attempts=1 class=forgotten error.type=forgotten ERROR",
				"  attempt a attempt.reason=first class=forgotten error.type=forgotten provider.name=a ERROR",
			},
		},
		"retry": {
			[]testkit.Provider{{
				Name: "a", Instance: testkit.FailsTimes(1, "a", failsAs(verdict.ClassTransport)),
				Retry: registry.RetryPolicy{Retries: 1, FirstDelay: time.Nanosecond, MaxDelay: time.Nanosecond},
			}},
			func(t *testing.T, r *recorded, reg *registry.Registry) {
				_, err := registry.Call(t.Context(), testkit.Bind(reg), r.ask)
				require.NoError(t, err)
			},
			[]string{
				"call chat call.attempts=2 call.failover=false class=success provider.name=a",
				"  attempt a attempt.reason=first class=transport error.type=transport provider.name=a ERROR",
				"    client",
				"  attempt a attempt.reason=retry class=success provider.name=a",
				"    client",
			},
		},
		"once only": {
			[]testkit.Provider{{Name: "a", Instance: down}, {Name: "b"}},
			func(t *testing.T, r *recorded, reg *registry.Registry) {
				_, err := registry.Call(t.Context(), testkit.Bind(reg), r.ask, registry.OnceOnly())
				require.Error(t, err)
			},
			[]string{
				"call chat call.attempts=1 class=transport error.type=transport ERROR",
				"  attempt a attempt.reason=first class=transport error.type=transport provider.name=a ERROR",
				"    client",
			},
		},
		"all at once": {
			[]testkit.Provider{{Name: "a", Instance: down}, {Name: "b"}},
			func(t *testing.T, r *recorded, reg *registry.Registry) {
				leases, err := testkit.Bind(reg).AcquireAll(t.Context(), 0)
				require.NoError(t, err)
				for _, lease := range leases {
					_, err := r.ask(lease.Context(), lease.Value)
					lease.Done(err)
				}
			},
			[]string{
				"call chat call.attempts=2 call.failover=true class=success provider.name=b",
				"  attempt a attempt.reason=all class=transport error.type=transport provider.name=a ERROR",
				"    client",
				"  attempt b attempt.reason=all class=success provider.name=b",
				"    client",
			},
		},
		"trial of a mock": {
			[]testkit.Provider{{Name: "a", Mock: true}},
			func(t *testing.T, r *recorded, reg *registry.Registry) {
				a, _ := reg.Provider("chat", "a")
				require.NoError(t, a.ForceOpen(time.Second, "test"))
				testkit.Pass(2 * time.Second)
				_, err := registry.Call(t.Context(), testkit.Bind(reg), r.ask)
				require.NoError(t, err)
			},
			[]string{
				"call chat call.attempts=1 call.failover=false class=success provider.name=a",
				"  attempt a attempt.mock=true attempt.reason=first attempt.trial=true class=success provider.name=a",
				"    client",
			},
		},
		"no provider": {
			[]testkit.Provider{{Name: "a"}},
			func(t *testing.T, r *recorded, reg *registry.Registry) {
				a, _ := reg.Provider("chat", "a")
				require.NoError(t, a.ForceOpen(time.Hour, "test"))
				_, err := registry.Call(t.Context(), testkit.Bind(reg), r.ask)
				require.ErrorIs(t, err, registry.ErrBreakerOpen)
			},
			[]string{`call chat call.attempts=0 class=cannot error.type=cannot skipped=["a: breaker_open"] ERROR`},
		},
		"caller's deadline": {
			[]testkit.Provider{{Name: "a", Instance: testkit.Hangs()}},
			func(t *testing.T, r *recorded, reg *registry.Registry) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := registry.Call(ctx, testkit.Bind(reg), r.ask)
				require.ErrorIs(t, err, context.DeadlineExceeded)
			},
			[]string{
				"call chat call.attempts=1 class=caller's deadline error.type=caller's deadline ERROR",
				"  attempt a attempt.reason=first class=caller's deadline error.type=caller's deadline provider.name=a ERROR",
				"    client",
			},
		},
		"caller leaves": {
			[]testkit.Provider{{Name: "a", Instance: testkit.Hangs()}},
			func(t *testing.T, r *recorded, reg *registry.Registry) {
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				_, err := registry.Call(ctx, testkit.Bind(reg), r.ask)
				require.ErrorIs(t, err, context.Canceled)
			},
			[]string{
				"call chat call.attempts=1 class=cancelled error.type=cancelled ERROR",
				"  attempt a attempt.reason=first class=cancelled error.type=cancelled provider.name=a ERROR",
				"    client",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry, r *recorded) {
				for _, p := range row.providers {
					testkit.Add(t, reg, p)
				}
				row.ask(t, r, reg)
				require.Equal(t, row.want, r.tree())
			})
		})
	}
}

// A delay has an attribute. A hook that ends the goroutine before an attempt leaves no span open.
func TestObserve_EverySpanEnds(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry, r *recorded) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		remove, err := reg.AddHooks(registry.Hooks{BeforeAttempt: func(ctx context.Context, _ registry.CallReport, _ registry.Attempt) context.Context {
			runtime.Goexit()
			return ctx
		}})
		require.NoError(t, err)
		go func() { _, _ = registry.Call(t.Context(), testkit.Bind(reg), r.ask) }()
		synctest.Wait()
		lines := r.tree()
		require.Len(t, lines, 2)
		require.Contains(t, lines[0], "class=ignored")
		require.Contains(t, lines[1], "attempt a")
		remove()
		require.Panics(t, func() {
			_, _ = registry.Call(t.Context(), testkit.Bind(reg), func(context.Context, testkit.ChatModel) (string, error) { panic("model") })
		})
		require.Equal(t, []string{
			"call chat call.attempts=1 class=panic error.type=panic ERROR",
			"  attempt a attempt.reason=first class=panic error.type=panic provider.name=a ERROR",
		}, r.tree())
	})
}

func TestObserve_WaitBeforeAnAttemptIsShown(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry, r *recorded) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{MaxConcurrent: 1}})
		first, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		time.AfterFunc(3*time.Second, func() { first.Done(nil) })
		_, err = registry.Call(t.Context(), testkit.Bind(reg), r.ask)
		require.NoError(t, err)
		require.True(t, slices.ContainsFunc(r.tree(), func(line string) bool {
			return line == "  attempt a attempt.delay=3 attempt.reason=queued class=success provider.name=a"
		}))
	})
}

// Every class has its attributes: a class that is new is here by itself.
func TestObserve_EveryClassIsShown(t *testing.T) {
	t.Parallel()
	for _, class := range verdict.Classes() {
		t.Run(class.String(), func(t *testing.T) {
			t.Parallel()
			bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry, r *recorded) {
				testkit.Add(t, reg, testkit.Provider{Name: "a"})
				var ended verdict.Class
				_, err := reg.AddHooks(registry.Hooks{AfterAttempt: func(_ context.Context, _ registry.CallReport, a registry.Attempt) { ended = a.Class }})
				require.NoError(t, err)
				lease, err := testkit.Bind(reg).Acquire(t.Context())
				require.NoError(t, err)
				lease.Done(failsAs(class))
				spans := r.spans.GetSpans()
				require.Len(t, spans, 2)
				attempt := spans[0]
				attributes := make(map[string]string)
				for _, a := range attempt.Attributes {
					attributes[string(a.Key)] = a.Value.String()
				}
				require.Equal(t, ended.String(), attributes["registry.class"])
				switch ended {
				case verdict.ClassSuccess, verdict.ClassSlow, verdict.ClassHedgeLoser:
					require.NotContains(t, attributes, "error.type")
				default:
					require.Equal(t, ended.String(), attributes["error.type"])
					require.Equal(t, testkit.ErrDown.Error(), attempt.Status.Description)
				}
			})
		})
	}
}

// Of a request whose trace is not recorded, and one that the sampler does not want.
func TestObserve_SampledOutCallsLeaveNoSpans(t *testing.T) {
	t.Parallel()
	r := record(trace.WithSampler(trace.ParentBased(trace.NeverSample())))
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		observer, err := registryotel.Observe(reg, registryotel.Options{TracerProvider: r.provider})
		require.NoError(t, err)
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown)})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		var place api.SpanContext
		var told string
		ask := func(ctx context.Context, m testkit.ChatModel) (string, error) {
			place, told = api.SpanContextFromContext(ctx), registryhttp.MetadataOf(ctx).TraceParent
			return r.ask(ctx, m)
		}
		_, err = registry.Call(t.Context(), testkit.Bind(reg), ask)
		require.NoError(t, err)
		require.Empty(t, r.spans.GetSpans())
		require.True(t, place.IsValid() && !place.IsSampled(), "the decision holds for what is below")
		require.Equal(t, "00-"+place.TraceID().String()+"-"+place.SpanID().String()+"-00", told, "also for other processes")

		ctx, parent := r.tracer.Start(t.Context(), "request")
		defer parent.End()
		_, err = registry.Call(registryotel.WithTrace(ctx), testkit.Bind(reg), ask)
		require.NoError(t, err)
		require.Empty(t, r.spans.GetSpans())
		require.Equal(t, parent.SpanContext(), place, "no span was made")
		require.Contains(t, told, parent.SpanContext().SpanID().String())
		require.NoError(t, observer.Close(t.Context()))
	})
}

func TestObserve_PartOfTheCallsBeginsATrace(t *testing.T) {
	t.Parallel()
	const calls = 2000
	for roots, within := range map[float64][2]int{0: {calls, calls}, 1: {calls, calls}, 0.5: {calls / 4, calls * 3 / 4}, -1: {0, 0}} {
		testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			r := record()
			observer, err := registryotel.Observe(reg, registryotel.Options{TracerProvider: r.provider, Roots: roots})
			require.NoError(t, err)
			testkit.Add(t, reg, testkit.Provider{Name: "a"})
			for range calls {
				_, err := registry.Call(t.Context(), testkit.Bind(reg), testkit.Return)
				require.NoError(t, err)
			}
			traced := len(r.spans.GetSpans()) / 2
			require.GreaterOrEqual(t, traced, within[0], "%v", roots)
			require.LessOrEqual(t, traced, within[1], "%v", roots)
			r.spans.Reset()
			ctx, span := r.tracer.Start(t.Context(), "request")
			_, err = registry.Call(ctx, testkit.Bind(reg), testkit.Return)
			require.NoError(t, err)
			span.End()
			require.Len(t, r.spans.GetSpans(), 3, "below a span that is recorded")
			require.NoError(t, observer.Close(t.Context()))
		})
	}
}

func TestObserve_SeveralObserversAreApart(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry, first *recorded) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		second := record()
		observer, err := registryotel.Observe(reg, registryotel.Options{TracerProvider: second.provider})
		require.NoError(t, err)
		_, err = registry.Call(t.Context(), testkit.Bind(reg), testkit.Return)
		require.NoError(t, err)
		require.Len(t, first.tree(), 2)
		require.Len(t, second.spans.GetSpans(), 2)
		require.NoError(t, observer.Close(t.Context()))
		require.NoError(t, observer.Close(t.Context()), "again")
		_, err = registry.Call(t.Context(), testkit.Bind(reg), testkit.Return)
		require.NoError(t, err)
		require.Len(t, first.tree(), 2)
		require.Len(t, second.spans.GetSpans(), 2)
	})
}

func TestObserve_LinesOfTheLogHaveThePlaceInTheTrace(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	options := registry.Options{LogFailed: true, Slog: slog.New(slog.NewTextHandler(&log, nil))}
	bubble(t, options, func(t *testing.T, reg *registry.Registry, r *recorded) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.ErrDown)})
		ctx := registryhttp.WithMetadata(t.Context(), registryhttp.Metadata{Correlation: "request-7"})
		_, err := registry.Call(ctx, testkit.Bind(reg), r.ask)
		require.Error(t, err)
		synctest.Wait()
		call := r.spans.GetSpans()[2]
		require.Equal(t, "call chat", call.Name)
		require.Contains(t, log.String(), "trace_id="+call.SpanContext.TraceID().String())
		require.Contains(t, log.String(), "span_id="+call.SpanContext.SpanID().String())
		require.Contains(t, log.String(), "correlation_id=request-7")
	})
}

func TestObserve_ErrorsAreOneShortLine(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry, r *recorded) {
		text := "two\nlines" + string(bytes.Repeat([]byte("x"), 1000))
		testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(errors.New(text))})
		_, err := registry.Call(t.Context(), testkit.Bind(reg), r.ask)
		require.Error(t, err)
		for _, span := range r.spans.GetSpans() {
			require.NotContains(t, span.Status.Description, "\n")
			require.LessOrEqual(t, len(span.Status.Description), 310)
		}
	})
}

func TestWithTrace_WithoutASpanIsTheContext(t *testing.T) {
	t.Parallel()
	require.Equal(t, t.Context(), registryotel.WithTrace(t.Context()))
}
