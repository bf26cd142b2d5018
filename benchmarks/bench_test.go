// Package benchmarks_test has the contestants as benchmarks, for benchstat and for
// profiles: those of others, and ours.
package benchmarks_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/benchmarks/internal/contest"
)

// hystrix-go cannot end the goroutines of its commands.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/afex/hystrix-go/hystrix.(*metricExchange).Monitor"),
		goleak.IgnoreTopFunction("github.com/afex/hystrix-go/hystrix.(*poolMetrics).Monitor"))
}

func BenchmarkPick(b *testing.B) { compare(b, contest.OurPickers(), contest.Pickers()) }

func BenchmarkGuard(b *testing.B) { compare(b, contest.OurCalls(), contest.Guards()) }

func BenchmarkListening(b *testing.B) { compare(b, contest.OurListening(), contest.Listening()) }

// compare runs every contestant serially and on all cores.
func compare(b *testing.B, lists ...[]contest.Contestant) {
	b.Helper()
	for _, list := range lists {
		for _, c := range list {
			name := strings.NewReplacer(" ", "-", "/", "-", ",", "").Replace(c.Name)
			b.Run(name, func(b *testing.B) { serially(b, c) })
			b.Run(name+"/parallel", func(b *testing.B) { onAllCores(b, c) })
		}
	}
}

func ready(b *testing.B, c contest.Contestant) contest.Loop {
	b.Helper()
	loop, free, err := c.Make()
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, free()) })
	loop(1)
	b.ReportAllocs()
	b.ResetTimer()
	return loop
}

func serially(b *testing.B, c contest.Contestant) {
	b.Helper()
	ready(b, c)(b.N)
}

func onAllCores(b *testing.B, c contest.Contestant) {
	b.Helper()
	loop := ready(b, c)
	b.RunParallel(func(pb *testing.PB) {
		const batch = 64 // the counter that RunParallel shares is no part of the work
		for more := true; more; {
			n := 0
			for more = pb.Next(); more; more = n < batch && pb.Next() {
				n++
			}
			loop(n)
			more = n == batch
		}
	})
}
