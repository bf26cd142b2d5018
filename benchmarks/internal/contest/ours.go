package contest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/status"
)

var service = registry.NewService[Model]("model")

// Setting configures a measured registry. The zero value is eight
// providers of one group with everything as it is by default.
type Setting struct {
	Providers   int // default: 8
	Strategy    selection.Strategy
	Open        int           // the number of first providers whose breakers are open, by failed calls; many: forced open
	Timeout     time.Duration // of an attempt; default: the registry's
	Probed      bool          // their health is known from probes
	Listening   bool          // their functions listen to the context
	NoDurations bool          // nothing is measured but counts
	Full        bool          // retries and a bulkhead for each, and the last one is the fallback of the others
}

// Populate returns a registry in that setting. Names are numbers from 0 on.
func (s Setting) Populate() (*registry.Registry, error) {
	reg, err := registry.New(registry.Options{NoDurations: s.NoDurations})
	if err != nil {
		return nil, err
	}
	if s.Providers == 0 {
		s.Providers = Providers
	}
	for i := range s.Providers {
		p := registry.Provider[Model]{
			Name: strconv.Itoa(i), Instance: newModel(i), Strategy: s.Strategy, AttemptTimeout: s.Timeout,
			Capabilities: []string{"chat", "tools"},
		}
		if s.Listening {
			p.Instance = newListening(i)
		}
		if i < s.Open {
			p.Breaker.RecoveryTimeout = 24 * time.Hour // longer than any measurement
		}
		if s.Probed {
			p.Health = health.Policy{Probe: func(context.Context) error { return nil }, Interval: time.Hour}
		}
		if s.Full {
			p.Retry = registry.RetryPolicy{Retries: 2}
			p.Limits = registry.LimitPolicy{MaxConcurrent: Concurrent}
			if i == s.Providers-1 {
				p.Group = 1
			}
		}
		if err := s.register(reg, p, i < s.Open); err != nil {
			return nil, errors.Join(err, reg.Close(context.Background()))
		}
	}
	return reg, nil
}

func (s Setting) register(reg *registry.Registry, p registry.Provider[Model], open bool) error {
	registration, err := service.Register(context.Background(), reg, p)
	if err != nil {
		return err
	}
	if s.Probed {
		if _, err := registration.CheckHealth(context.Background()); err != nil {
			return err
		}
	}
	if open && s.Open > Providers {
		return registration.ForceOpen(24*time.Hour, "down")
	}
	if open {
		return trip(reg, registration)
	}
	return nil
}

var errDown = errors.New("down")

// trip lets calls fail until the breaker of the only provider with a closed one opens.
func trip(reg *registry.Registry, registration *registry.Registration) error {
	const patience = 100
	for range patience {
		if registration.Breaker().State == status.BreakerOpen {
			return nil
		}
		_, err := registry.Call(context.Background(), Bind(reg), func(context.Context, Model) (int, error) { return 0, errDown })
		if !errors.Is(err, errDown) {
			return fmt.Errorf("a call that was to fail: %w", err)
		}
	}
	return fmt.Errorf("the breaker of %s did not open", registration.Name())
}

// contestant is one that works on a registry in the setting.
func (s Setting) contestant(name string, work func(*registry.Registry) Loop) Contestant {
	return Contestant{name, func() (Loop, func() error, error) {
		reg, err := s.Populate()
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", name, err)
		}
		return work(reg), func() error { return reg.Close(context.Background()) }, nil
	}}
}

// Bind returns the resolver of any model.
func Bind(reg *registry.Registry) *registry.Resolver[Model] {
	return service.Bind(reg, registry.Query{})
}

// Get is Resolver.Get.
func Get(name string, s Setting) Contestant {
	return s.contestant(name, func(reg *registry.Registry) Loop { return Getting(Bind(reg)) })
}

// Getting gets instances from a resolver.
func Getting(r *registry.Resolver[Model]) Loop {
	return func(n int) {
		for range n {
			_, err := r.Get(context.Background())
			must(err)
		}
	}
}

// GetByQuery is Service.Get with a query that is made each time.
func GetByQuery(name string, s Setting) Contestant {
	return s.contestant(name, func(reg *registry.Registry) Loop {
		return func(n int) {
			for range n {
				_, err := service.Get(context.Background(), reg, registry.Query{Handler: "Speak", Require: []string{"tools", "chat"}})
				must(err)
			}
		}
	})
}

// GetByQueries is Service.Get with that many different queries in turn.
func GetByQueries(name string, kinds int) Contestant {
	return Setting{}.contestant(name, func(reg *registry.Registry) Loop {
		queries := make([]registry.Query, kinds)
		for i := range queries {
			queries[i] = registry.Query{Handler: fmt.Sprintf("handler-%04d", i), Require: []string{"tools", "chat"}}
			_, err := service.Get(context.Background(), reg, queries[i]) // makes its plan, once
			must(err)
		}
		next := 0
		return func(n int) {
			for range n {
				next = (next + 1) % kinds
				_, err := service.Get(context.Background(), reg, queries[next])
				must(err)
			}
		}
	})
}

// Call is registry.Call.
func Call(name string, s Setting) Contestant {
	return s.contestant(name, func(reg *registry.Registry) Loop { return Calling(Bind(reg)) })
}

// Calling calls through a resolver. It is not inlined for the same reason as the
// contestants of others.
//
//go:noinline
func Calling(r *registry.Resolver[Model]) Loop {
	return func(n int) {
		ctx := context.Background()
		for prompt := range n {
			_, err := registry.Call(ctx, r, func(ctx context.Context, m Model) (int, error) { return m.Answer(ctx, prompt) })
			must(err)
		}
	}
}

func call(r *registry.Resolver[Model], prompt int) (int, error) {
	return registry.Call(context.Background(), r, func(ctx context.Context, m Model) (int, error) {
		return m.Answer(ctx, prompt)
	})
}

// Refused is a call that no provider admits.
func Refused(name string, s Setting) Contestant {
	return s.contestant(name, func(reg *registry.Registry) Loop {
		r := Bind(reg)
		if _, err := call(r, 0); !errors.Is(err, registry.ErrBreakerOpen) {
			must(fmt.Errorf("a call that was to be refused: %w", err))
		}
		return func(n int) {
			for prompt := range n {
				if _, err := call(r, prompt); err == nil {
					must(errors.ErrUnsupported)
				}
			}
		}
	})
}

// Lease is Acquire and Done.
func Lease(name string, s Setting) Contestant {
	return s.contestant(name, func(reg *registry.Registry) Loop {
		r := Bind(reg)
		return func(n int) {
			for range n {
				lease, err := r.Acquire(context.Background())
				must(err)
				lease.Done(nil)
			}
		}
	})
}

// Explain is Resolver.Explain.
func Explain(name string, s Setting) Contestant {
	return s.contestant(name, func(reg *registry.Registry) Loop {
		r := Bind(reg)
		return func(n int) {
			for range n {
				if len(r.Explain().Candidates) == 0 {
					must(errors.ErrUnsupported)
				}
			}
		}
	})
}

// OurPickers are the ways of the registry to give out an instance.
func OurPickers() []Contestant {
	return []Contestant{
		Get("Get, FALLBACK", Setting{}),
		Get("Get, ROUND_ROBIN", Setting{Strategy: registry.StrategyRoundRobin}),
		GetByQuery("Get by a query given each time", Setting{}),
	}
}

// OurCalls are the guarded calls of the registry.
func OurCalls() []Contestant {
	return []Contestant{
		Call("Call without attempt timeout", Setting{Probed: true, Timeout: registry.NoTimeout}),
		Call("Call", Setting{Probed: true}),
		Call("Call with retry, bulkhead and fallback", Setting{Probed: true, Full: true}),
		Lease("Acquire and Done", Setting{Probed: true}),
	}
}

// OurListening are guarded calls of functions that listen to their context.
func OurListening() []Contestant {
	return []Contestant{
		Call("Call, listening", Setting{Probed: true, Listening: true}),
		Call("Call with retry, bulkhead and fallback, listening", Setting{Probed: true, Full: true, Listening: true}),
	}
}
