// Command ratios measures the registry against its parts and its peers, and checks the
// ratios against bars.
//
//	go run ./benchmarks/ratios
//
// It prints a line for each bar,
//
//	name ours-ns theirs-ns ratio bar ok|short
//
// and ends with status 1 when one is short. Every figure is the median of rounds in
// which the contestants took turns, the fastest of which counts: garbage collections
// are in none, but with long turns (-turns 1 -turn 20ms). Where a bar is absolute, the
// second figure is the allowed value, and the bar is 1. Names say it where a figure is no
// time: -allocs are allocations of one operation, -bytes are bytes.
//
// The bar scale needs two cores that are free at the same time. It is the round with the
// median ratio, of the medians of turns.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"

	"github.com/capreg/registry/benchmarks/internal/bars"
	"github.com/capreg/registry/benchmarks/internal/contest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "ratios:", err)
		os.Exit(1) //nolint:gocritic // the process ends; stop has nothing left to undo
	}
}

// errShort reports a run with a bar that was missed.
var errShort = errors.New("a bar is short")

func run(ctx context.Context, arguments []string, out io.Writer) error {
	flags := flag.NewFlagSet("ratios", flag.ContinueOnError)
	flags.SetOutput(out)
	settings := contest.Settings{}
	settings.Flags(flags)
	many := flags.Int("many", 100_000, "how many providers are registered and removed")
	only := flags.String("only", "", "measure only the bars whose names match this regular expression")
	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if err := settings.Check(); err != nil {
		return err
	}
	if *many < 1 {
		return errors.New("-many is more than 0")
	}
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	short := false
	for _, race := range bars.Races(*many) {
		matches := func(b bars.Bar) bool { return wanted.MatchString(b.Name) }
		if !slices.ContainsFunc(race.Bars, matches) {
			continue
		}
		figures, err := race.Measure(ctx, settings)
		if err != nil {
			return err
		}
		for i, b := range race.Bars {
			if !matches(b) {
				continue
			}
			if _, err := fmt.Fprintln(out, b.Line(figures[i])); err != nil {
				return err
			}
			short = short || !b.Met(figures[i])
		}
	}
	if short {
		return errShort
	}
	return nil
}
