package registry_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
)

type greeter interface {
	Greet(ctx context.Context) (string, error)
}

type greet func(context.Context) (string, error)

func (g greet) Greet(ctx context.Context) (string, error) { return g(ctx) }

var greeting = registry.NewService[greeter]("greeting")

func TestSmoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg, err := registry.New(registry.Options{})
		require.NoError(t, err)
		sub := reg.Subscribe(0)
		boom := errors.New("boom")
		down := true
		_, err = greeting.Register(t.Context(), reg, registry.Provider[greeter]{Name: "a", Instance: greet(func(ctx context.Context) (string, error) {
			if down {
				return "", boom
			}
			return "a", nil
		})})
		require.NoError(t, err)
		_, err = greeting.Register(t.Context(), reg, registry.Provider[greeter]{Name: "b", Instance: greet(func(ctx context.Context) (string, error) { return "b", nil })})
		require.NoError(t, err)
		r := greeting.Bind(reg, registry.Query{})
		call := func() string {
			s, err := registry.Call(t.Context(), r, func(ctx context.Context, g greeter) (string, error) { return g.Greet(ctx) })
			require.NoError(t, err)
			return s
		}
		for range 6 {
			require.Equal(t, "b", call())
		}
		t.Log(r.Explain())
		down = false
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, "b", call())
		time.Sleep(1)
		synctest.Wait()
		require.Equal(t, "a", call())
		t.Log(r.Explain())
		require.Equal(t, "a", call())
		require.Equal(t, "a", call())
		t.Log(r.Explain())
		require.NoError(t, reg.Close(t.Context()))
		for e := range sub.All(t.Context()) {
			t.Log(e.Sequence, e.Kind, e.Provider, e.From, e.To, e.Reason)
		}
		_, err = r.Get(t.Context())
		t.Log(err)
	})
}

func BenchmarkGet(b *testing.B) {
	reg, _ := registry.New(registry.Options{})
	for range 8 {
		_, err := greeting.Register(b.Context(), reg, registry.Provider[greeter]{Instance: greet(func(ctx context.Context) (string, error) { return "b", nil })})
		require.NoError(b, err)
	}
	r := greeting.Bind(reg, registry.Query{})
	ctx := b.Context()
	b.Run("get", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = r.Get(ctx)
		}
	})
	b.Run("call", func(b *testing.B) {
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			_, _ = registry.Call(ctx, r, func(ctx context.Context, g greeter) (int, error) { n++; return n, nil })
		}
	})
	b.Run("callNoTimeout", func(b *testing.B) {
		for reg := range reg.All() {
			_ = reg
		}
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			_, _ = registry.Call(ctx, r, func(ctx context.Context, g greeter) (int, error) { n++; return n, nil }, registry.AttemptTimeout(registry.NoTimeout))
		}
	})
}
