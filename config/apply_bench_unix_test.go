//go:build unix

package config_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/config"
	"github.com/capreg/registry/registrytest"
)

// processorTime returns the time that this process has had of processors.
func processorTime() time.Duration {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used) // it never fails
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// thousand returns a document with a thousand providers in ten services, the settings of every tenth by a version.
func thousand(version int) string {
	var b strings.Builder
	b.WriteString("services:\n")
	for s := range 10 {
		fmt.Fprintf(&b, "  s%d:\n    groups: {1: {strategy: ROUND_ROBIN}}\n    providers:\n", s)
		for p := range 100 {
			of := 0
			if p%10 == 0 {
				of = version
			}
			fmt.Fprintf(&b, "    - {name: p%d-%d, kind: model, settings: {model: m%d, cache: 1MiB}, group: %d, tags: [a, b], weight: %d, breaker: {failure_threshold: 3}}\n",
				s, p, of, p%2, 1+version*(p%3)%7)
		}
	}
	b.WriteString("queries: {a: {service: s0}, b: {service: s1, where: {tags: [a]}}}\n")
	return b.String()
}

func thousandManager(tb testing.TB) (*registry.Registry, *config.Manager) {
	tb.Helper()
	w := &workshop{}
	var kinds []config.Kind
	for s := range 10 {
		kinds = append(kinds, config.Bind(registry.NewService[model](fmt.Sprintf("s%d", s)), "model", w.make))
	}
	reg := registrytest.New(tb, registry.Options{})
	m, err := config.New(reg, config.Options{Kinds: kinds})
	require.NoError(tb, err)
	return reg, m
}

func BenchmarkParse_Thousand(b *testing.B) {
	text := []byte(thousand(0))
	for b.Loop() {
		_, err := config.Parse("a.yaml", text)
		require.NoError(b, err)
	}
}

// The time of the processor is what a plan costs, however busy the machine is.
func BenchmarkPlan_Thousand(b *testing.B) {
	_, m := thousandManager(b)
	first, err := config.Parse("a.yaml", []byte(thousand(0)))
	require.NoError(b, err)
	second, err := config.Parse("a.yaml", []byte(thousand(1)))
	require.NoError(b, err)
	_, err = m.Apply(b.Context(), first)
	require.NoError(b, err)
	before := processorTime()
	for b.Loop() {
		_, err := m.Plan(b.Context(), second)
		require.NoError(b, err)
	}
	b.ReportMetric(float64((processorTime()-before).Microseconds())/1000/float64(b.N), "cpu-ms/op")
}

func BenchmarkApply_Thousand(b *testing.B) {
	_, m := thousandManager(b)
	documents := make([]*config.Document, 2)
	for i := range documents {
		var err error
		documents[i], err = config.Parse("a.yaml", []byte(thousand(i)))
		require.NoError(b, err)
	}
	before := processorTime()
	for i := 0; b.Loop(); i++ {
		_, err := m.Apply(b.Context(), documents[i%2])
		require.NoError(b, err)
	}
	b.ReportMetric(float64((processorTime()-before).Microseconds())/1000/float64(b.N), "cpu-ms/op")
}

// Look-ups go on while documents of a thousand providers are applied, and while nothing happens: one in a hundred takes
// as long or longer than the times that are reported.
func BenchmarkApply_LookUpsDuringIt(b *testing.B) {
	reg, m := thousandManager(b)
	documents := make([]*config.Document, 2)
	for i := range documents {
		var err error
		documents[i], err = config.Parse("a.yaml", []byte(thousand(i)))
		require.NoError(b, err)
	}
	_, err := m.Apply(b.Context(), documents[0])
	require.NoError(b, err)
	resolver := registry.NewService[model]("s0").Bind(reg, registry.Query{})
	lookUps := func(until func() bool) (took []time.Duration) {
		for !until() {
			began := time.Now()
			_, err := resolver.Get(b.Context())
			took = append(took, time.Since(began))
			require.NoError(b, err)
			if len(took)%100 == 0 {
				runtime.Gosched() // the rest of the program has a turn
			}
		}
		slices.Sort(took)
		return took
	}
	began := time.Now()
	idle := lookUps(func() bool { return time.Since(began) > time.Second })
	var busy []time.Duration
	for i := 0; b.Loop(); i++ {
		var over atomic.Bool
		go func() {
			defer over.Store(true)
			_, err = m.Apply(b.Context(), documents[(i+1)%2])
		}()
		busy = append(busy, lookUps(over.Load)...)
		require.NoError(b, err)
	}
	slices.Sort(busy)
	for name, took := range map[string][]time.Duration{"idle": idle, "apply": busy} {
		b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), name+"-p99-ns")
		b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), name+"-p50-ns")
	}
	b.ReportMetric(0, "ns/op")
}
