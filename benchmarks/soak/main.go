// Command soak makes calls of every kind on registries in which everything goes wrong at
// once, and counts every call: providers that err in each class, hang, panic, exit, cool
// down and break their streams; that come, go, are replaced and change their
// settings, their health and their breakers; leases that are forgotten, hedges, callers
// that go away, and registries that close meanwhile.
//
//	go run ./benchmarks/soak -for 60s
//
// Every few seconds all comes to rest, and the counts of each registry are compared with
// those of its callers, its backends and a subscriber. The last line has the number of
// calls, of those that were lost or counted twice, of those that have not returned, of
// leftovers after Close, and of contradictions between two states. The exit status is 0
// when all but the first are 0.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/figures"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1) //nolint:gocritic // the process ends; stop has nothing left to undo
	}
}

// soak is one run.
type soak struct {
	length  time.Duration
	callers int
	seed    uint64

	ledger *ledger
	seen   *faults

	mu     sync.Mutex // guards the fields below
	worlds int
	rests  int
	leaked uint64
	kinds  map[event.Kind]uint64
}

var errUnclean = errors.New("something was lost, stuck, leaked or broken")

func run(ctx context.Context, arguments []string, out io.Writer) error {
	s := &soak{ledger: newLedger(), seen: &faults{others: make(map[string]uint64)}, kinds: make(map[event.Kind]uint64)}
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.DurationVar(&s.length, "for", time.Minute, "how long calls are made")
	flags.IntVar(&s.callers, "callers", 24, "how many call each registry at once")
	flags.Uint64Var(&s.seed, "seed", 1, "of the faults; what they meet differs each time")
	write := flags.String("write", "", "a document whose block of figures is replaced")
	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if s.length < time.Second || s.callers < 1 {
		return errors.New("-for is 1s or more, -callers 1 or more")
	}
	if err := s.soak(ctx); err != nil {
		return err
	}
	total := s.ledger.sum()
	total.leaked += s.leaked
	report := s.report()
	if _, err := fmt.Fprintf(out, "%s\n%v\n", report, total); err != nil {
		return err
	}
	if *write != "" {
		if err := figures.Replace(*write, "soak", report+"\n`"+total.String()+"`\n"); err != nil {
			return err
		}
	}
	if !total.clean() {
		return errUnclean
	}
	return nil
}

// soak runs two worlds at once, one with hooks and without, until time is over.
func (s *soak) soak(ctx context.Context) error {
	end := time.Now().Add(s.length)
	errs := make(chan error, 2)
	for i, hooked := range []bool{false, true} {
		go func() {
			random := rand.New(rand.NewPCG(s.seed, uint64(i))) //nolint:gosec // the same faults for the same seed
			var err error
			for number := 1; err == nil && ctx.Err() == nil && time.Now().Before(end); number++ {
				err = s.live(ctx, fmt.Sprintf("%c%d", 'a'+i, number), hooked, random, end)
			}
			errs <- err
		}()
	}
	err := errors.Join(<-errs, <-errs)
	s.leaked += leftGoroutines()
	return errors.Join(err, ctx.Err())
}

// phaseLength is the time until all comes to rest, or is closed.
const phaseLength = 2 * time.Second

// live is the life of one registry: two phases that end in rest, and one in Close.
func (s *soak) live(ctx context.Context, name string, hooked bool, random *rand.Rand, end time.Time) error {
	w, err := newWorld(name, s.ledger, s.seen, hooked)
	if err != nil {
		return err
	}
	length := min(phaseLength, s.length/4)
	for range 2 {
		if left := time.Until(end); left < length {
			break
		}
		if err := s.phase(ctx, w, random, length, func(context.Context) {}); err != nil {
			return err
		}
		w.rest(random)
		s.mu.Lock()
		s.rests++
		s.mu.Unlock()
	}
	if err := s.phase(ctx, w, random, length/2, w.close); err != nil {
		return err
	}
	leaked := w.afterwards()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.worlds++
	s.leaked += leaked
	for kind, count := range w.history.kinds {
		s.kinds[kind] += count
	}
	return nil
}

// phase makes calls and trouble for a while; half way, the middle happens as well.
func (s *soak) phase(ctx context.Context, w *world, random *rand.Rand, length time.Duration, middle func(context.Context)) error {
	limit, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	var busy sync.WaitGroup
	for range s.callers {
		seed := random.Uint64()
		busy.Go(func() { w.live(limit, seed) })
	}
	for range 6 {
		seed := random.Uint64()
		busy.Go(func() { w.disturb(limit, seed) })
	}
	seed := random.Uint64()
	busy.Go(func() { w.watch(limit, seed) })
	busy.Go(func() {
		_ = after(limit, length/2)
		middle(context.WithoutCancel(limit))
	})
	done := make(chan struct{})
	go func() { busy.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-time.After(length + settleTime + 2*slack):
		stacks := make([]byte, 1<<20)
		return fmt.Errorf("%v; %s does not come to an end:\n%s", s.ledger.sum(), w.name, stacks[:runtime.Stack(stacks, true)])
	}
}

// leftGoroutines counts the goroutines of the library, or of calls, that are still there
// when nothing should be.
func leftGoroutines() (left uint64) {
	for began := time.Now(); time.Since(began) < settleTime; <-time.After(settleStep) {
		stacks := make([]byte, 4<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		left = 0
		for i, one := range strings.Split(string(stacks), "\n\n") {
			if i > 0 && strings.Contains(one, "capreg/registry.") { // the first is this one
				left++
			}
		}
		if left == 0 {
			break
		}
	}
	return left
}

// uncollected counts the backends that are still in memory although every registration of
// them has ended; the registrations themselves are kept.
func (w *world) uncollected() uint64 {
	for began := time.Now(); w.census.alive() > 0 && time.Since(began) < settleTime; <-time.After(settleStep) {
		runtime.GC()
	}
	runtime.KeepAlive(w)
	return uint64(w.census.alive()) //nolint:gosec // not below zero
}

// report holds the results for a document.
func (s *soak) report() string {
	var text strings.Builder
	for _, problem := range s.ledger.broken {
		fmt.Fprintf(&text, "BROKEN %s\n", problem)
	}
	kinds, outcomes, counts := s.ledger.rows()
	fmt.Fprintf(&text, "%s %s/%s, %d CPUs; %v, %d callers for each of 2 registries at a time, %d registries, %d times at rest\n\n",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), s.length, s.callers, s.worlds, s.rests)
	fmt.Fprint(&text, "| calls |")
	for _, how := range outcomes {
		fmt.Fprintf(&text, " %s |", how)
	}
	fmt.Fprintf(&text, "\n|---|%s\n", strings.Repeat("---|", len(outcomes)))
	for _, kind := range kinds {
		fmt.Fprintf(&text, "| %s |", kind)
		for _, how := range outcomes {
			fmt.Fprintf(&text, " %d |", counts[tally{kind, how}])
		}
		fmt.Fprintln(&text)
	}
	fmt.Fprint(&text, "\n| injected fault or change | times |\n|---|---|\n")
	for f := range faultCount {
		if count := s.seen.tries[f].Load(); count > 0 {
			fmt.Fprintf(&text, "| a try: %v | %d |\n", f, count)
		}
	}
	for _, what := range slices.Sorted(maps.Keys(s.seen.others)) {
		fmt.Fprintf(&text, "| %s | %d |\n", what, s.seen.others[what])
	}
	fmt.Fprint(&text, "\n| event | times |\n|---|---|\n")
	for _, kind := range slices.Sorted(maps.Keys(s.kinds)) {
		fmt.Fprintf(&text, "| %s | %d |\n", kind, s.kinds[kind])
	}
	return text.String()
}
