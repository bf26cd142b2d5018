// Command selection runs every strategy with the same load over the same eight providers,
// of which one is slow and one fails at once, and prints the results that callers got.
//
//	go run ./benchmarks/selection
//
// It exits with 1 when LATENCY_AWARE or LEAST_LOADED are not ahead of ROUND_ROBIN in
// both the 99th percentile and the errors. The last line has all figures, for programs
// to read.
//
// Calls arrive at random times, independent of earlier ones (an open loop). Each is made
// once, without fail-over, and no breaker opens, so that only the pick counts; the same
// calls with breakers and fail-over are listed beside it. The strategies run at the same
// time, each in a registry of its own; the providers sleep, so the machine has little to
// do.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "selection:", err)
		os.Exit(1) //nolint:gocritic // the process ends; stop has nothing left to undo
	}
}

// errBehind causes the exit status 1.
var errBehind = errors.New("a strategy that heeds load or latency is not ahead of ROUND_ROBIN")

// strategies are all that are compared.
func strategies() []selection.Strategy {
	return append([]selection.Strategy{registry.StrategyFallback, registry.StrategyRoundRobin}, selectors.All()...)
}

// run simulates, and writes the results.
func run(ctx context.Context, arguments []string, to io.Writer) error {
	flags := flag.NewFlagSet("selection", flag.ContinueOnError)
	flags.SetOutput(to)
	load := workload{}
	flags.IntVar(&load.calls, "calls", 3000, "how many calls each strategy shares out")
	flags.Float64Var(&load.rate, "rate", 240, "how many of them begin in a second")
	flags.Uint64Var(&load.seed, "seed", 1, "of arrivals and service times")
	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if load.calls < 100 || !(load.rate > 0 && load.rate <= 10_000) {
		return errors.New("-calls is 100 or more, -rate more than 0 and at most 10000")
	}
	rows, err := simulateAll(ctx, load)
	if err != nil {
		return err
	}
	if err := write(to, load, rows); err != nil {
		return err
	}
	return compare(rows)
}

// row holds the results of one strategy.
type row struct {
	strategy       string
	alone, guarded outcome
}

// simulateAll runs every strategy at the same time.
func simulateAll(ctx context.Context, load workload) ([]row, error) {
	all := strategies()
	rows, failures := make([]row, len(all)), make([]error, 2*len(all))
	var waiting sync.WaitGroup
	for i, strategy := range all {
		rows[i].strategy = strategy.String()
		waiting.Go(func() { rows[i].alone, failures[2*i] = simulate(ctx, strategy, load, false) })
		waiting.Go(func() { rows[i].guarded, failures[2*i+1] = simulate(ctx, strategy, load, true) })
	}
	waiting.Wait()
	return rows, errors.Join(failures...)
}

func write(to io.Writer, load workload, rows []row) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%d calls at %g a second over 8 providers of %d places that take %v,\n", load.calls, load.rate, places, usual)
	fmt.Fprintf(&text, "but for one that takes %v and one that fails within %v:\n\n", slow, quick)
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	// Flush returns the first error.
	_, _ = fmt.Fprintln(table, "\tp50\tp99\terrors\tslow one\tfailing one\t│\tp50\tp99\terrors\t")
	for _, r := range rows {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%.2f%%\t%.1f%%\t%.1f%%\t│\t%s\t%s\t%.2f%%\t\n", r.strategy,
			ms(r.alone.p50), ms(r.alone.p99), 100*r.alone.errors, 100*r.alone.toSlow, 100*r.alone.toFailing,
			ms(r.guarded.p50), ms(r.guarded.p99), 100*r.guarded.errors)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	text.WriteString("\nleft: one provider asked for each call; right: with breakers and fail-over.\n\n")
	for i, r := range rows {
		if i > 0 {
			text.WriteString(" ")
		}
		fmt.Fprintf(&text, "%s %.1f %.4f", strings.ToLower(r.strategy), float64(r.alone.p99)/1e6, r.alone.errors)
	}
	text.WriteString("\n")
	_, err := io.WriteString(to, text.String())
	return err
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }

// compare reports the strategies that are not ahead.
func compare(rows []row) error {
	by := make(map[string]outcome)
	for _, r := range rows {
		by[r.strategy] = r.alone
	}
	turns := by["ROUND_ROBIN"]
	for _, name := range []string{"LATENCY_AWARE", "LEAST_LOADED"} {
		if got := by[name]; got.p99 >= turns.p99 || got.errors >= turns.errors {
			return fmt.Errorf("%w: %s has p99 %v and %.2f%% errors, ROUND_ROBIN %v and %.2f%%",
				errBehind, name, got.p99, 100*got.errors, turns.p99, 100*turns.errors)
		}
	}
	return nil
}
