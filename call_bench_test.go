package registry_test

import (
	"context"
	"errors"
	"strconv"
	"testing"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
)

// populated returns a registry of n providers, the first `down` of them unhealthy.
func populated(tb testing.TB, n, down int, p testkit.Provider) *registry.Registry {
	tb.Helper()
	reg := testkit.New(tb, registry.Options{})
	tb.Cleanup(func() {
		if err := reg.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	for i := range n {
		p.Name = strconv.Itoa(i)
		registration := testkit.Add(tb, reg, p)
		if i < down {
			if err := registration.MarkUnhealthy(testkit.ErrDown); err != nil {
				tb.Fatal(err)
			}
		}
	}
	return reg
}

func mustGet(r *registry.Resolver[testkit.ChatModel]) {
	if _, err := r.Get(context.Background()); err != nil {
		panic(err)
	}
}

func mustCall(r *registry.Resolver[testkit.ChatModel]) {
	if _, err := registry.Call(context.Background(), r, testkit.Return); err != nil {
		panic(err)
	}
}

func BenchmarkGet(b *testing.B) {
	for _, c := range []struct {
		name     string
		n, down  int
		strategy selection.Strategy
	}{
		{"fallback/1", 1, 0, registry.StrategyFallback},
		{"fallback/10000", 10_000, 0, registry.StrategyFallback},
		{"fallback/10000-one-up", 10_000, 9_999, registry.StrategyFallback},
		{"round-robin/8", 8, 0, registry.StrategyRoundRobin},
		{"round-robin/8-one-up", 8, 7, registry.StrategyRoundRobin},
		{"round-robin/10000", 10_000, 0, registry.StrategyRoundRobin},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := testkit.Bind(populated(b, c.n, c.down, testkit.Provider{Strategy: c.strategy}))
			b.ReportAllocs()
			for b.Loop() {
				mustGet(r)
			}
		})
	}
	for _, strategy := range selectors.All() {
		b.Run(strategy.String()+"/8", func(b *testing.B) {
			r := testkit.Chat.Bind(populated(b, 8, 0, testkit.Provider{Strategy: strategy}), registry.Query{Key: "session"})
			b.ReportAllocs()
			for b.Loop() {
				mustGet(r)
			}
		})
	}
	b.Run("parallel", func(b *testing.B) {
		r := testkit.Bind(populated(b, 8, 0, testkit.Provider{}))
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				mustGet(r)
			}
		})
	})
	b.Run("ad-hoc", func(b *testing.B) {
		reg := populated(b, 8, 0, testkit.Provider{Capabilities: []string{"chat", "tools"}})
		query := registry.Query{Require: []string{"tools", "chat"}}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := testkit.Chat.Get(context.Background(), reg, query); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkCall(b *testing.B) {
	for _, c := range []struct {
		name string
		p    testkit.Provider
	}{
		{"timeout", testkit.Provider{}},
		{"no-timeout", testkit.Provider{AttemptTimeout: registry.NoTimeout}},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := testkit.Bind(populated(b, 8, 0, c.p))
			b.ReportAllocs()
			for b.Loop() {
				mustCall(r)
			}
		})
		b.Run(c.name+"-parallel", func(b *testing.B) {
			r := testkit.Bind(populated(b, 8, 0, c.p))
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					mustCall(r)
				}
			})
		})
	}
	b.Run("listening", func(b *testing.B) {
		r := testkit.Bind(populated(b, 8, 0, testkit.Provider{}))
		b.ReportAllocs()
		for b.Loop() {
			_, err := registry.Call(context.Background(), r, func(ctx context.Context, _ testkit.ChatModel) (<-chan struct{}, error) { return ctx.Done(), nil })
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("failover", func(b *testing.B) {
		reg := populated(b, 1, 0, testkit.Provider{
			Instance: testkit.Fails(testkit.ErrDown), Priority: registry.PriorityCritical, Breaker: registry.BreakerPolicy{FailureThreshold: 1 << 30},
		})
		testkit.Add(b, reg, testkit.Provider{Name: "spare"})
		r := testkit.Bind(reg)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := testkit.Ask(context.Background(), r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("none", func(b *testing.B) {
		r := testkit.Bind(populated(b, 8, 8, testkit.Provider{}))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := registry.Call(context.Background(), r, testkit.Fail); err == nil {
				b.Fatal("no error")
			}
		}
	})
}

func BenchmarkAcquire(b *testing.B) {
	r := testkit.Bind(populated(b, 8, 0, testkit.Provider{}))
	b.ReportAllocs()
	for b.Loop() {
		lease, err := r.Acquire(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		lease.Done(nil)
	}
}

// BenchmarkChange registers, looks up and removes one provider among many.
func BenchmarkChange(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			reg := populated(b, n, 0, testkit.Provider{})
			b.ReportAllocs()
			for b.Loop() {
				if err := testkit.Add(b, reg, testkit.Provider{Name: "one more"}).Unregister(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkHealthFlip makes one of many providers unhealthy and healthy again while a plan is in force.
func BenchmarkHealthFlip(b *testing.B) {
	reg := populated(b, 10_000, 0, testkit.Provider{})
	r := testkit.Bind(reg)
	victim, _ := reg.Provider("chat", "5000")
	b.ReportAllocs()
	for b.Loop() {
		if err := errors.Join(victim.MarkUnhealthy(testkit.ErrDown), victim.MarkHealthy()); err != nil {
			b.Fatal(err)
		}
		mustGet(r)
	}
}

func BenchmarkCallObserved(b *testing.B) {
	for _, c := range []struct {
		name    string
		n, down int
	}{{"1", 1, 0}, {"10-down", 10, 9}, {"10000-down", 10_000, 9_999}, {"10000", 10_000, 0}} {
		b.Run(c.name, func(b *testing.B) {
			reg := populated(b, c.n, c.down, testkit.Provider{})
			if _, err := reg.AddHooks(registry.Hooks{AfterCall: func(context.Context, registry.CallReport) {}}); err != nil {
				b.Fatal(err)
			}
			r := testkit.Bind(reg)
			b.ReportAllocs()
			for b.Loop() {
				mustCall(r)
			}
		})
	}
}

// What a subscription to a registry of 10,000 providers costs: the first one, one more, and one more after a change.
func BenchmarkSubscribe(b *testing.B) {
	reg := populated(b, 10_000, 0, testkit.Provider{})
	one, _ := reg.Provider("chat", "5000")
	for name, before := range map[string]func(i int){
		"shared":         func(int) {},
		"after-a-change": func(i int) { _ = one.MarkUnhealthy(errors.New(strconv.Itoa(i))) },
		"after-all-have-changed": func(int) {
			for p := range reg.All() {
				h, _ := reg.Provider("chat", p.Name)
				_, _ = h.SetAttemptTimeout(0)
			}
		},
	} {
		b.Run(name, func(b *testing.B) {
			reg.Subscribe(0).Close()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				before(i)
				b.StartTimer()
				reg.Subscribe(0).Close()
			}
		})
	}
}
