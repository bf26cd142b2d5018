package registrytest_test

import (
	"math"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/registrytest"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
)

// describing is a selector that says something.
type describing struct {
	selection.Func

	detail func(v selection.View, i int) selection.Detail
}

func (d describing) Describe(v selection.View, i int) selection.Detail { return d.detail(v, i) }

func first(v selection.View) int { return v.Next(0) }

func TestTestSelector_PassesGoodSelectors(t *testing.T) {
	t.Parallel()
	for name, selector := range map[string]selection.Selector{
		"first":  selection.Func(first),
		"random": selection.Func(func(v selection.View) int { return v.Draw() }),
		"turns": selection.Func(func(v selection.View) int {
			at := int(v.Turn() % uint64(v.Len()))
			if at = v.Next(at); at < 0 {
				at = v.Next(0)
			}
			return at
		}),
		"least loaded, with words": describing{
			func(v selection.View) int {
				a, b := v.DrawTwo()
				if b >= 0 && v.At(b).InFlight() < v.At(a).InFlight() {
					return b
				}
				return a
			},
			func(v selection.View, i int) selection.Detail {
				return selection.Detail{Score: float64(v.At(i).InFlight()), Words: "load", Factors: []selection.FactorValue{{Name: "fit", Value: v.At(i).Fit()}}}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := spyOn(t, "Test", func(tb testing.TB) {
				registrytest.TestSelector(tb, func() selection.Selector { return selector })
			})
			require.Empty(t, s.lines)
		})
	}
}

func TestTestSelector_PassesReadyMadeSelectors(t *testing.T) {
	t.Parallel()
	for i, strategy := range selectors.All() {
		t.Run(strategy.String(), func(t *testing.T) {
			t.Parallel()
			s := spyOn(t, "Test", func(tb testing.TB) {
				registrytest.TestSelector(tb, func() selection.Selector { return selectors.All()[i].Selector() })
			})
			require.Empty(t, s.lines)
		})
	}
}

func TestTestSelector_DetectsBadSelectors(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		selector func() selection.Selector
		want     string
	}{
		"any":   {func() selection.Selector { return selection.Func(func(selection.View) int { return 0 }) }, "which is not eligible"},
		"none":  {func() selection.Selector { return selection.Func(func(selection.View) int { return -1 }) }, "picked -1"},
		"panic": {func() selection.Selector { return selection.Func(func(selection.View) int { panic("boom") }) }, "it panicked: boom"},
		"exit": {func() selection.Selector {
			return selection.Func(func(selection.View) int { runtime.Goexit(); return 0 })
		}, "it ended its goroutine"},
		"stuck": {func() selection.Selector {
			return selection.Func(func(v selection.View) int { time.Sleep(time.Hour); return v.Next(0) })
		}, "it did not return"},
		"slow": {func() selection.Selector {
			return selection.Func(func(v selection.View) int { time.Sleep(time.Millisecond); return v.Next(0) })
		}, "every pick took 1ms or longer"},
		"none left": {func() selection.Selector {
			return selection.Func(func(v selection.View) int {
				if v.Next(0) < 0 {
					panic("none left")
				}
				return v.Next(0)
			})
		}, "when all leave during a pick it panicked: none left"},
		"own dice": {func() selection.Selector {
			return selection.Func(func(v selection.View) int {
				if at := v.Next(rand.IntN(v.Len())); at >= 0 {
					return at
				}
				return v.Next(0)
			})
		}, "belong into the view"},
		"own count": {func() selection.Selector {
			var turn atomic.Uint64
			return selection.Func(func(v selection.View) int {
				n := turn.Load()
				if !v.Peeking() {
					n = turn.Add(1) - 1
				}
				if at := v.Next(int(n % uint64(v.Len()))); at >= 0 {
					return at
				}
				return v.Next(0)
			})
		}, "picks for one group depend on those for another"},
		"looks are turns": {func() selection.Selector {
			return selection.Func(func(v selection.View) int {
				kept, _ := v.State().Load().(int)
				v.State().Store(kept + 1)
				if at := v.Next(kept % v.Len()); at >= 0 {
					return at
				}
				return v.Next(0)
			})
		}, "two peeks gave different picks"},
		"always a key": {func() selection.Selector {
			return selection.Func(func(v selection.View) int {
				if v.Key() == "" {
					panic("no key")
				}
				return v.Next(0)
			})
		}, "it panicked: no key"},
		"no number": {func() selection.Selector {
			return describing{first, func(selection.View, int) selection.Detail { return selection.Detail{Score: math.NaN()} }}
		}, "the score of a candidate is NaN"},
		"factor": {func() selection.Selector {
			return describing{first, func(selection.View, int) selection.Detail {
				return selection.Detail{Factors: []selection.FactorValue{{Name: "f", Value: 2}}}
			}}
		}, `factor "f" of a candidate is 2`},
		"words panic": {func() selection.Selector {
			return describing{first, func(selection.View, int) selection.Detail { panic("words") }}
		}, "describing it panicked: words"},
		"nil": {func() selection.Selector { return selection.Func(nil) }, "it panicked"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := spyOn(t, "Test", func(tb testing.TB) { registrytest.TestSelector(tb, test.selector) })
				require.Contains(t, s.text(), test.want)
				time.Sleep(24 * time.Hour)
			})
		})
	}
}
