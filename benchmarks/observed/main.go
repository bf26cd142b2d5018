// Command observed measures what observers of a registry cost its calls: none any more, the measurement of durations,
// the collector of contrib/prometheus while it is scraped, and the metrics and spans of contrib/otel.
//
//	go run ./benchmarks/observed
//
// It prints a line for each bar,
//
//	name ours-ns theirs-ns ratio bar ok|short
//
// and ends with status 1 when one is short. In each round every contestant makes some calls, in turn. The figures are
// those of the round with the median ratio: means of a turn, which a scrape is in, unlike the fastest of many. A scrape,
// or a read of metrics, is once in each turn, some thousand times as often as a server makes one. The line "noise" has the
// same contestant twice: no figure is finer than that. The figures of durations are nanoseconds beyond a call of which
// nothing but counts is measured, and what they may be. Those of a scrape are of a thousand providers, over the
// network, by the handler that the guide shows, asked as a Prometheus server asks.
package main

import (
	"cmp"
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

	"github.com/prometheus/client_golang/prometheus"

	"github.com/capreg/registry"
	"github.com/capreg/registry/benchmarks/internal/bars"
	"github.com/capreg/registry/benchmarks/internal/contest"
	registryprom "github.com/capreg/registry/contrib/prometheus"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "observed:", err)
		os.Exit(1) //nolint:gocritic // the process ends; stop has nothing left to undo
	}
}

// errShort reports a run with a bar that was missed.
var errShort = errors.New("a bar is short")

// contestant calls a registry in one setting.
type contestant struct {
	registry *registry.Registry
	loop     contest.Loop
	observe  func() error // runs beside each turn; nil: nothing does
	end      func() error // ends the observer; nil: there is none to end
}

func (c *contestant) close() error {
	var err error
	if c.end != nil {
		err = c.end()
	}
	return errors.Join(err, c.registry.Close(context.Background()))
}

// comparison is a bar for the figure of a round.
type comparison struct {
	bar     bars.Bar
	figure  func(took []float64) bars.Figure // of the contestants, by their numbers
	figures []bars.Figure
}

// beside compares a contestant with the plain one.
func beside(ours int) func([]float64) bars.Figure {
	return func(took []float64) bars.Figure { return bars.Figure{Ours: took[ours], Theirs: took[plain]} }
}

// durationsAtMost bounds what the measurement of durations adds to a call, in nanoseconds.
const durationsAtMost = 15

// Contestants, by their numbers.
const (
	plain      = iota // as it is by default
	again             // the same
	unobserved        // its observers have left
	unmeasured        // with counts alone
	scraped
	otelMetrics
	otelSampledOut // the caller has a span that is not sampled
	otelNoRoot     // the caller has no span, and few calls get one
	contestants

	crowdScraped = contestants // a registry with many providers
	crowdLocked  = contestants + 1
)

func run(ctx context.Context, arguments []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("observed", flag.ContinueOnError)
	flags.SetOutput(out)
	rounds := flags.Int("rounds", 201, "how many rounds there are; the one with the median ratio counts")
	calls := flags.Int("calls", 200_000, "calls of each turn")
	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if *rounds < 1 || *calls < 1 {
		return errors.New("-rounds and -calls are 1 or more")
	}
	all, err := prepare()
	defer func() {
		for _, c := range all {
			err = errors.Join(err, c.close())
		}
	}()
	if err != nil {
		return err
	}
	many, err := newCrowd()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, many.close()) }()
	compared := []*comparison{
		{bar: bars.Bar{Name: "noise", Ratio: 1.03}, figure: beside(again)},
		{bar: bars.Bar{Name: "unobserved", Ratio: 1.03}, figure: beside(unobserved)},
		{bar: bars.Bar{Name: "durations", Ratio: 1}, figure: func(took []float64) bars.Figure {
			return bars.Figure{Ours: max(took[plain]-took[unmeasured], 0), Theirs: durationsAtMost}
		}},
		{bar: bars.Bar{Name: "prometheus", Ratio: 1.15}, figure: beside(scraped)},
		{bar: bars.Bar{Name: "otel-metrics", Ratio: 1.15}, figure: beside(otelMetrics)},
		{bar: bars.Bar{Name: "otel-sampled-out", Ratio: 2}, figure: beside(otelSampledOut)},
		{bar: bars.Bar{Name: "otel-no-root", Ratio: 2}, figure: beside(otelNoRoot)},
		{bar: bars.Bar{Name: "scrape", Ratio: 1}, figure: within(crowdScraped, scrapeAtMost)},
		{bar: bars.Bar{Name: "scrape-locked", Ratio: 1}, figure: within(crowdLocked, lockHeldAtMost)},
	}
	for round := range *rounds {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err = play(all, many, round, *calls, compared); err != nil {
			return err
		}
	}
	return report(out, compared)
}

// prepare returns the contestants, those that there are also with an error.
func prepare() (all []contestant, err error) {
	for i := range contestants {
		setting := contest.Setting{Timeout: registry.NoTimeout, Probed: true, NoDurations: i == unmeasured}
		reg, err := setting.Populate()
		if err != nil {
			return all, err
		}
		all = append(all, contestant{registry: reg, loop: contest.Calling(contest.Bind(reg))})
		c := &all[i]
		gatherer := prometheus.NewRegistry()
		if err := gatherer.Register(registryprom.New(reg, registryprom.Options{})); err != nil {
			return all, err
		}
		scrape := func() error {
			_, err := gatherer.Gather()
			return err
		}
		switch i {
		case unobserved:
			if err := errors.Join(scrape(), observeOnce(reg, c.loop)); err != nil {
				return all, err
			}
		case scraped:
			c.observe = scrape
		case otelMetrics, otelSampledOut, otelNoRoot:
			if err := c.observeByOTel(i); err != nil {
				return all, err
			}
		}
	}
	return all, nil
}

// observeOnce has a registry observed for a few calls.
func observeOnce(reg *registry.Registry, loop contest.Loop) error {
	remove, err := reg.AddHooks(registry.Hooks{AfterCall: func(context.Context, registry.CallReport) {}})
	if err != nil {
		return err
	}
	events := reg.Subscribe(1)
	loop(10)
	events.Close()
	remove()
	return nil
}

// play lets each contestant have a turn, and notes the figures. Who begins changes from round to round.
func play(all []contestant, many *crowd, round, calls int, compared []*comparison) (err error) {
	took := make([]float64, len(all)+2)
	for next := range all {
		i := (round + next) % len(all)
		runtime.GC() // the garbage of one is no work of another
		nanoseconds, err := all[i].turn(calls)
		if err != nil {
			return err
		}
		took[i] = nanoseconds
	}
	if took[crowdScraped], took[crowdLocked], err = many.measure(); err != nil {
		return err
	}
	for _, c := range compared {
		c.figures = append(c.figures, c.figure(took))
	}
	return nil
}

// turn returns the nanoseconds of a call.
func (c *contestant) turn(calls int) (float64, error) {
	observed := make(chan error, 1)
	began := time.Now()
	if c.observe == nil {
		observed <- nil
	} else {
		go func() { observed <- c.observe() }()
	}
	c.loop(calls)
	took := time.Since(began)
	return float64(took) / float64(calls), <-observed
}

func report(out io.Writer, compared []*comparison) error {
	short := false
	for _, c := range compared {
		slices.SortFunc(c.figures, func(a, b bars.Figure) int { return cmp.Compare(a.Ratio(), b.Ratio()) })
		median := c.figures[len(c.figures)/2]
		if _, err := fmt.Fprintln(out, c.bar.Line(median)); err != nil {
			return err
		}
		short = short || !c.bar.Met(median)
	}
	if short {
		return errShort
	}
	return nil
}
