// Command ratios measures the registry against what it is made of, and against
// bars that say how much faster it has to be.
//
//	go run ./benchmarks/ratios
//
// It prints a line for each bar,
//
//	name ours-ns theirs-ns ratio bar ok|short
//
// and ends with status 1 when one is short. Every figure is the median of rounds
// in which the contestants took turns. Where a bar is absolute, the second figure
// is what is allowed, and the bar is 1. Names say it where a figure is no time:
// -allocs are allocations of one operation, -bytes are bytes.
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
	"time"

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

// errShort is a run with a bar that is not met.
var errShort = errors.New("a bar is short")

func run(ctx context.Context, arguments []string, out io.Writer) error {
	flags := flag.NewFlagSet("ratios", flag.ContinueOnError)
	flags.SetOutput(out)
	settings := contest.Settings{}
	flags.IntVar(&settings.Rounds, "rounds", 101, "how often the contestants take turns; the median counts")
	flags.DurationVar(&settings.Turn, "turn", 3*time.Millisecond, "how long a turn is")
	many := flags.Int("many", 100_000, "how many providers are registered and removed")
	only := flags.String("only", "", "measure only the bars whose names match this regular expression")
	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if settings.Rounds < 1 || settings.Turn <= 0 || *many < 1 {
		return errors.New("-rounds, -turn and -many are more than 0")
	}
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	short := false
	for _, r := range races(*many) {
		if !r.matches(wanted) {
			continue
		}
		figures, err := r.measure(ctx, settings)
		if err != nil {
			return err
		}
		for i, b := range r.bars {
			if !wanted.MatchString(b.name) {
				continue
			}
			f := figures[i]
			if _, err := fmt.Fprintln(out, b.line(f)); err != nil {
				return err
			}
			short = short || !b.met(f)
		}
	}
	if short {
		return errShort
	}
	return nil
}

// bar is a ratio that is not to be exceeded.
type bar struct {
	name  string
	ratio float64
}

// figure is what was measured for a bar.
type figure struct{ ours, theirs float64 }

func (f figure) ratio() float64 {
	if f.ours == 0 {
		return 0 // also of nothing allowed
	}
	return f.ours / f.theirs
}

func (b bar) met(f figure) bool { return f.ratio() <= b.ratio }

func (b bar) line(f figure) string {
	word := "ok"
	if !b.met(f) {
		word = "short"
	}
	return fmt.Sprintf("%s %.1f %.1f %.3f %.3f %s", b.name, f.ours, f.theirs, f.ratio(), b.ratio, word)
}

// race is one measurement, which gives the figures of one bar or more.
type race struct {
	bars    []bar
	measure func(context.Context, contest.Settings) ([]figure, error)
}

func (r race) matches(wanted *regexp.Regexp) bool {
	for _, b := range r.bars {
		if wanted.MatchString(b.name) {
			return true
		}
	}
	return false
}
