// Command startup measures the orchestrator of a start: how much longer a start takes
// than its longest chain, and what planning, starting and reporting cost beside a
// bare topological sort written by hand.
//
//	go run ./benchmarks/startup
//
// Each figure that has a bar is followed by ok or short; the last line has all of
// them, for programs to read.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "startup:", err)
		os.Exit(1) //nolint:gocritic // the process ends; stop has nothing left to undo
	}
}

const (
	eagerAtMost = 1.05 // mean of wall time / longest chain
	planAtMost  = 2.0  // median time / that of the sort written by hand
)

// run measures, and writes the results. A missed bar is no error.
func run(ctx context.Context, arguments []string, to io.Writer) error {
	out := &page{to: to}
	flags := flag.NewFlagSet("startup", flag.ContinueOnError)
	flags.SetOutput(to)
	graphs := flags.Int("graphs", 200, "how many random graphs are started to see how long that takes")
	atOnce := flags.Int("at-once", 4, "how many of them at once; they only wait")
	rounds := flags.Int("rounds", 41, "how often each graph of components that do nothing is started; the median counts")
	seed := flags.Uint64("seed", 1, "of the random graphs")
	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if *graphs < 1 || *atOnce < 1 || *rounds < 1 {
		return errors.New("-graphs, -at-once and -rounds are 1 or more")
	}
	out.printf("%s %s/%s, %d CPUs\n\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())

	eager, batches, err := measureWaiting(ctx, *seed, *graphs, *atOnce)
	if err != nil {
		return err
	}
	out.printf("%d graphs of %d components that wait for 5 to 50 ms: wall time / longest chain\n", *graphs, waitingSize)
	out.printf("  as soon as needs are ready   mean %.3f  p90 %.3f  max %.3f  %s\n",
		eager.mean, eager.p90, eager.most, verdict(eager.mean, eagerAtMost))
	out.printf("  batch by batch               mean %.3f  p90 %.3f  max %.3f\n\n", batches.mean, batches.p90, batches.most)

	var ratios []float64
	for _, size := range []int{1_000, 10_000} {
		g := drawGraph(*seed, size)
		contenders := []contender{orchestrated(g), byHand(g)}
		if size <= largestForContainers {
			contenders = append(contenders, inFx(g), inDo(g))
		}
		roomy, err := race(ctx, contenders, *rounds, roomyHeap)
		if err != nil {
			return err
		}
		alone, err := race(ctx, contenders, *rounds, 0)
		if err != nil {
			return err
		}
		out.printf("%d components that do nothing: median of %d rounds, / by hand\n", size, *rounds)
		out.printf("%26s  %18s  %19s  %9s\n", "", "in a roomy heap", "with nothing beside", "allocates")
		for i, c := range contenders {
			times, timesAlone := ratio(roomy[i].took, roomy[1].took), ratio(alone[i].took, alone[1].took)
			out.printf("  %-24s  %10v %7.2f  %11v %7.2f  %6d kB", c.name, roomy[i].took.Round(time.Microsecond), times,
				alone[i].took.Round(time.Microsecond), timesAlone, roomy[i].bytes>>10)
			if i == 0 {
				ratios = append(ratios, times)
				out.printf("  %s", verdict(times, planAtMost))
			}
			out.printf("\n")
		}
		out.printf("\n")
	}
	out.printf("eager %.3f batch %.3f plan1k %.2f plan10k %.2f\n", eager.mean, batches.mean, ratios[0], ratios[1])
	return out.err
}

// page is written to until that fails.
type page struct {
	to  io.Writer
	err error
}

func (p *page) printf(format string, values ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.to, format, values...)
	}
}

func verdict(got, atMost float64) string {
	word := "ok"
	if got > atMost {
		word = "short"
	}
	return fmt.Sprintf("%s (at most %.2f)", word, atMost)
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }

// distribution sums up many figures.
type distribution struct{ mean, p90, most float64 }

func sumUp(figures []float64) distribution {
	sorted := slices.Sorted(slices.Values(figures))
	sum := 0.0
	for _, figure := range sorted {
		sum += figure
	}
	return distribution{
		mean: sum / float64(len(sorted)), p90: sorted[(len(sorted)*9-1)/10], most: sorted[len(sorted)-1],
	}
}
