package contest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/afex/hystrix-go/hystrix"
	eapache "github.com/eapache/go-resiliency/breaker"
	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/fallback"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	"github.com/failsafe-go/failsafe-go/timeout"
	"github.com/go-kit/kit/endpoint"
	"github.com/go-kit/kit/sd"
	"github.com/go-kit/kit/sd/lb"
	kratos "github.com/go-kratos/kratos/v2/selector"
	"github.com/go-kratos/kratos/v2/selector/p2c"
	"github.com/go-kratos/kratos/v2/selector/random"
	"github.com/go-kratos/kratos/v2/selector/wrr"
	"github.com/samber/do/v2"
	gobreaker1 "github.com/sony/gobreaker"
	"github.com/sony/gobreaker/v2"
	"google.golang.org/grpc/balancer"
)

// Providers is the number of candidates of every contestant.
const Providers = 8

// AttemptTimeout is the default of the registry, and the timeout of the others.
const AttemptTimeout = 30 * time.Second

// Model is the picked and called type; its work is next to nothing.
type Model interface {
	Answer(ctx context.Context, prompt int) (int, error)
}

type model struct{ offset int }

func (m *model) Answer(_ context.Context, prompt int) (int, error) { return prompt + m.offset, nil }

// newModel is not inlined: the compiler would see which model it is and call it for
// some contestants without the interface.
//
//go:noinline
func newModel(offset int) Model { return &model{offset} }

// listening is a model that could be cut short: like all that wait for something it
// listens to its context.
type listening struct{ model }

func (m *listening) Answer(ctx context.Context, prompt int) (int, error) {
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	default:
		return m.model.Answer(ctx, prompt)
	}
}

//go:noinline
func newListening(offset int) Model { return &listening{model{offset}} }

// must ends a measurement whose work fails: its figures would mean nothing.
func must(err error) {
	if err != nil {
		panic(fmt.Errorf("a contestant failed: %w", err))
	}
}

func nothing() error { return nil }

// contestant is one that needs no freeing.
func contestant(name string, prepare func() Loop) Contestant {
	return Contestant{name, func() (Loop, func() error, error) { return prepare(), nothing, nil }}
}

// Pickers are the ways of others to get one of several instances.
func Pickers() []Contestant {
	pickers := []Contestant{
		SyncMap(), TurnsByHand(), lockedMap(), goKit(),
		{"gRPC round_robin picker", grpcRoundRobin},
		kratosSelector("kratos random selector", random.New),
		kratosSelector("kratos wrr selector", wrr.New),
	}
	if strconv.IntSize == 64 { // on 32 bits its unaligned counter panics
		pickers = append(pickers, kratosSelector("kratos p2c selector", p2c.New))
	}
	return append(pickers, samberDo())
}

const key = "model-0"

// The contestants that other packages name are not inlined there: the compiler would
// put the closures that they pass to generic methods on the heap, at a price that
// their users do not pay.

// SyncMap is the usual hand-written look-up.
//
//go:noinline
func SyncMap() Contestant {
	return contestant("sync.Map load and type assertion", func() Loop {
		var models sync.Map
		for i := range Providers {
			models.Store("model-"+strconv.Itoa(i), newModel(i))
		}
		return func(n int) {
			for range n {
				found, _ := models.Load(key)
				if _, ok := found.(Model); !ok {
					must(errors.ErrUnsupported)
				}
			}
		}
	})
}

// TurnsByHand is the usual hand-written look-up where instances take turns: a set by its name, of as many as
// [SyncMap] has, and an atomic counter that numbers its members.
//
//go:noinline
func TurnsByHand() Contestant {
	return contestant("sync.Map load and atomic round robin", func() Loop {
		type turns struct {
			next   atomic.Uint64
			models []Model
		}
		var sets sync.Map
		for i := range Providers {
			set := &turns{}
			for range Providers {
				set.models = append(set.models, newModel(i))
			}
			sets.Store("model-"+strconv.Itoa(i), set)
		}
		return func(n int) {
			for range n {
				found, _ := sets.Load(key)
				set, ok := found.(*turns)
				if !ok || set.models[set.next.Add(1)%uint64(len(set.models))] == nil {
					must(errors.ErrUnsupported)
				}
			}
		}
	})
}

func lockedMap() Contestant {
	return contestant("map under sync.RWMutex", func() Loop {
		var mu sync.RWMutex
		models := make(map[string]Model)
		for i := range Providers {
			models["model-"+strconv.Itoa(i)] = newModel(i)
		}
		return func(n int) {
			for range n {
				mu.RLock()
				found, ok := models[key]
				mu.RUnlock()
				if !ok || found == nil {
					must(errors.ErrUnsupported)
				}
			}
		}
	})
}

func goKit() Contestant {
	return contestant("go-kit lb round robin", func() Loop {
		var endpoints sd.FixedEndpointer
		for i := range Providers {
			m := newModel(i)
			endpoints = append(endpoints, endpoint.Endpoint(func(ctx context.Context, prompt any) (any, error) {
				return m.Answer(ctx, prompt.(int)) //nolint:forcetypeassert // never called
			}))
		}
		rotation := lb.NewRoundRobin(endpoints)
		return func(n int) {
			for range n {
				_, err := rotation.Endpoint()
				must(err)
			}
		}
	})
}

func grpcRoundRobin() (Loop, func() error, error) {
	picker, closing, err := roundRobinPicker(Providers)
	if err != nil {
		return nil, nil, err
	}
	return func(n int) {
		info := balancer.PickInfo{FullMethodName: "/llm/Chat", Ctx: context.Background()}
		for range n {
			_, err := picker.Pick(info)
			must(err)
		}
	}, closing, nil
}

// kratosSelector selects a node and reports that it is done, the way kratos
// counts the calls in flight.
func kratosSelector[O any](name string, build func(...O) kratos.Selector) Contestant {
	return contestant(name, func() Loop {
		picks := build()
		var nodes []kratos.Node
		for i := range Providers {
			nodes = append(nodes, kratos.NewNode("http", "10.0.0."+strconv.Itoa(i)+":80", nil))
		}
		picks.Apply(nodes)
		return func(n int) {
			for range n {
				_, done, err := picks.Select(context.Background())
				must(err)
				done(context.Background(), kratos.DoneInfo{})
			}
		}
	})
}

func samberDo() Contestant {
	return contestant("samber/do Invoke", func() Loop {
		injector := do.New()
		do.ProvideValue(injector, newModel(0))
		for i := range Providers - 1 { // the container has as many as there are with the others
			do.ProvideNamedValue(injector, "model-"+strconv.Itoa(i), newModel(i))
		}
		return func(n int) {
			for range n {
				_, err := do.Invoke[Model](injector)
				must(err)
			}
		}
	})
}

// Guards are the ways of others to make one guarded call. What they are given is a
// closure over something of the caller's, as it is in programs.
func Guards() []Contestant {
	return []Contestant{
		Gobreaker(), gobreakerV1(), eapacheBreaker(), withTimeout(), TimeoutAndGobreaker(),
		failsafeBreaker(), failsafeByHand(), failsafeThree(), FailsafeStack(), hystrixDo(),
	}
}

// Listening are those of them that bound a call, with a function that listens.
func Listening() []Contestant {
	const suffix = ", listening"
	return []Contestant{
		timeoutAndGobreakerOf(TimeoutAndGobreaker().Name+suffix, newListening),
		failsafeThreeOf(failsafeThree().Name+suffix, newListening),
		failsafeStackOf(FailsafeStack().Name+suffix, newListening),
	}
}

// Gobreaker is gobreaker/v2 alone.
//
//go:noinline
func Gobreaker() Contestant {
	return contestant("gobreaker/v2 Execute", func() Loop {
		guard := gobreaker.NewCircuitBreaker[int](gobreaker.Settings{})
		m := newModel(0)
		return func(n int) {
			ctx := context.Background()
			for prompt := range n {
				_, err := guard.Execute(func() (int, error) { return m.Answer(ctx, prompt) })
				must(err)
			}
		}
	})
}

func gobreakerV1() Contestant {
	return contestant("gobreaker v1 Execute", func() Loop {
		guard := gobreaker1.NewCircuitBreaker(gobreaker1.Settings{})
		m := newModel(1000) // answers that an any cannot hold without an allocation, as most are
		return func(n int) {
			ctx := context.Background()
			for prompt := range n {
				_, err := guard.Execute(func() (any, error) { return m.Answer(ctx, prompt) })
				must(err)
			}
		}
	})
}

func eapacheBreaker() Contestant {
	return contestant("eapache breaker Run", func() Loop {
		guard := eapache.New(5, 3, time.Minute)
		m := newModel(0)
		return func(n int) {
			ctx := context.Background()
			for prompt := range n {
				must(guard.Run(func() error {
					_, err := m.Answer(ctx, prompt)
					return err
				}))
			}
		}
	})
}

func withTimeout() Contestant {
	return contestant("context.WithTimeout alone", func() Loop {
		m := newModel(0)
		return func(n int) {
			for prompt := range n {
				ctx, cancel := context.WithTimeout(context.Background(), AttemptTimeout)
				_, err := m.Answer(ctx, prompt)
				cancel()
				must(err)
			}
		}
	})
}

// TimeoutAndGobreaker is gobreaker/v2 with a context that ends.
func TimeoutAndGobreaker() Contestant {
	return timeoutAndGobreakerOf("context.WithTimeout and gobreaker/v2", newModel)
}

//go:noinline
func timeoutAndGobreakerOf(name string, build func(int) Model) Contestant {
	return contestant(name, func() Loop {
		guard := gobreaker.NewCircuitBreaker[int](gobreaker.Settings{})
		m := build(0)
		return func(n int) {
			for prompt := range n {
				ctx, cancel := context.WithTimeout(context.Background(), AttemptTimeout)
				_, err := guard.Execute(func() (int, error) { return m.Answer(ctx, prompt) })
				cancel()
				must(err)
			}
		}
	})
}

// failsafeLoop calls through policies, the outermost first. The function gets the
// context of its execution, which a timeout ends.
func failsafeLoop(m Model, policies ...failsafe.Policy[int]) Loop {
	executor := failsafe.With(policies...)
	return func(n int) {
		for prompt := range n {
			_, err := executor.GetWithExecution(func(e failsafe.Execution[int]) (int, error) {
				return m.Answer(e.Context(), prompt)
			})
			must(err)
		}
	}
}

// failsafeBreaker needs no execution: nothing ends its context.
func failsafeBreaker() Contestant {
	return contestant("failsafe-go breaker", func() Loop {
		executor := failsafe.With(circuitbreaker.NewWithDefaults[int]())
		m := newModel(0)
		return func(n int) {
			ctx := context.Background()
			for prompt := range n {
				_, err := executor.Get(func() (int, error) { return m.Answer(ctx, prompt) })
				must(err)
			}
		}
	})
}

// failsafeByHand is the breaker without an executor, which is a way that its
// documentation shows.
func failsafeByHand() Contestant {
	return contestant("failsafe-go breaker, by hand", func() Loop {
		guard := circuitbreaker.NewWithDefaults[int]()
		m := newModel(0)
		return func(n int) {
			ctx := context.Background()
			for prompt := range n {
				if !guard.TryAcquirePermit() {
					must(circuitbreaker.ErrOpen)
				}
				_, err := m.Answer(ctx, prompt)
				if err != nil {
					guard.RecordError(err)
					must(err)
				}
				guard.RecordSuccess()
			}
		}
	})
}

func failsafeThree() Contestant {
	return failsafeThreeOf("failsafe-go retry, breaker, timeout", newModel)
}

func failsafeThreeOf(name string, build func(int) Model) Contestant {
	return contestant(name, func() Loop {
		return failsafeLoop(build(0), retrypolicy.NewWithDefaults[int](), circuitbreaker.NewWithDefaults[int](),
			timeout.New[int](AttemptTimeout))
	})
}

// Concurrent is the number of slots of the bulkheads.
const Concurrent = 64

// FailsafeStack is all of failsafe-go that a call of the registry has as well.
func FailsafeStack() Contestant {
	return failsafeStackOf("failsafe-go fallback, retry, breaker, bulkhead, timeout", newModel)
}

//go:noinline
func failsafeStackOf(name string, build func(int) Model) Contestant {
	return contestant(name, func() Loop {
		spare := build(1)
		return failsafeLoop(build(0),
			fallback.NewWithFunc(func(e failsafe.Execution[int]) (int, error) { return spare.Answer(e.Context(), 0) }),
			retrypolicy.NewWithDefaults[int](), circuitbreaker.NewWithDefaults[int](),
			bulkhead.New[int](Concurrent), timeout.New[int](AttemptTimeout),
		)
	})
}

func hystrixDo() Contestant {
	const command = "answer"
	return contestant("hystrix-go DoC", func() Loop {
		hystrix.ConfigureCommand(command, hystrix.CommandConfig{
			Timeout:               int(AttemptTimeout.Milliseconds()),
			MaxConcurrentRequests: 10_000, // it gives places back some time after a call has returned
		})
		m := newModel(0)
		return func(n int) {
			for prompt := range n {
				must(hystrix.DoC(context.Background(), command, func(ctx context.Context) error {
					_, err := m.Answer(ctx, prompt)
					return err
				}, nil))
			}
		}
	})
}

// Clock is the minimum cost of a call that measures its duration.
func Clock() Contestant {
	return contestant("the clock, read twice", func() Loop {
		epoch := time.Now()
		return func(n int) {
			for range n {
				if began := time.Since(epoch); time.Since(epoch) < began {
					must(errors.ErrUnsupported)
				}
			}
		}
	})
}

// Bare is the work itself.
func Bare() Contestant {
	return contestant("the function itself", func() Loop {
		m := newModel(0)
		return func(n int) {
			ctx := context.Background()
			for prompt := range n {
				_, err := m.Answer(ctx, prompt)
				must(err)
			}
		}
	})
}
