// Package contest measures contestants that do the same work side by side: in
// rounds, in which they take several turns one after another, so that whatever else
// the machine does strikes all of them alike.
package contest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync/atomic"
	"time"
)

// Loop does its work n times, one after another. It may be run by several
// goroutines at once.
type Loop func(n int)

// Contestant is one way to do some work.
type Contestant struct {
	Name string
	// Make prepares the work, and returns a function that frees it.
	Make func() (Loop, func() error, error)
}

// Runner is a contestant that is ready to run on a number of cores.
type Runner struct {
	Loop  Loop
	Cores int
}

// Settings bound a measurement.
type Settings struct {
	Rounds int           // the median of which counts
	Turns  int           // that each contestant takes in a round; the fastest of them counts
	Turn   time.Duration // the length of a turn
}

// Flags defines a flag for each setting. A turn is by default shorter than the time for
// which a virtual machine has a core to itself where others share it, and the turns of a
// round are so many that each contestant meets such a time.
func (s *Settings) Flags(flags *flag.FlagSet) {
	flags.IntVar(&s.Rounds, "rounds", 15, "how many rounds there are; the median counts")
	flags.IntVar(&s.Turns, "turns", 400, "how many turns each contestant takes in a round; the fastest counts")
	flags.DurationVar(&s.Turn, "turn", 50*time.Microsecond, "how long a turn is")
}

// Check refuses settings with which nothing is measured.
func (s *Settings) Check() error {
	if s.Rounds < 1 || s.Turns < 1 || s.Turn <= 0 {
		return errors.New("-rounds, -turns and -turn are more than 0")
	}
	return nil
}

// Race returns the nanoseconds that an operation of each runner takes, as the
// median of the rounds. On several cores that is the time of the machine, not of
// a core: two cores that do not hinder each other halve it.
func Race(ctx context.Context, settings Settings, runners ...Runner) ([]float64, error) {
	rounds, err := Rounds(ctx, settings, runners...)
	if err != nil {
		return nil, err
	}
	medians := make([]float64, len(rounds))
	for i, of := range rounds {
		medians[i] = Quantile(of, 0.5)
	}
	return medians, nil
}

// Cores returns the number of available cores.
func Cores() int { return min(runtime.GOMAXPROCS(0), runtime.NumCPU()) }

// Rounds returns the nanoseconds of an operation of each runner in every round. Who
// begins changes from turn to turn. It needs as many cores as the runners do.
func Rounds(ctx context.Context, settings Settings, runners ...Runner) ([][]float64, error) {
	operations := make([]int, len(runners))
	for i, r := range runners {
		if r.Cores > Cores() {
			return nil, fmt.Errorf("%d cores are needed, usable are %d", r.Cores, Cores())
		}
		operations[i] = r.calibrate(settings.Turn)
	}
	figures := make([][]float64, len(runners))
	runtime.GC()
	for range settings.Rounds {
		fastest := make([]time.Duration, len(runners))
		for turn := range settings.Turns {
			for next := range runners {
				if ctx.Err() != nil {
					return nil, context.Cause(ctx)
				}
				i := (turn + next) % len(runners)
				if took := runners[i].run(operations[i]); fastest[i] == 0 || took < fastest[i] {
					fastest[i] = took
				}
			}
		}
		for i, took := range fastest {
			figures[i] = append(figures[i], float64(took)/float64(operations[i]*runners[i].Cores))
		}
	}
	return figures, nil
}

// calibrate returns the number of operations that fill a turn on one core: on several ones it
// would measure whether they are free just then.
func (r Runner) calibrate(turn time.Duration) int {
	r.Cores = 1
	r.run(1) // lazy initialisation happens now
	for n := 1; ; n *= 2 {
		took := min(r.run(n), r.run(n), r.run(n)) // the one that was interrupted least
		if took >= turn/2 {
			return max(int(float64(n)*float64(turn)/float64(took)), 1)
		}
	}
}

// run does n operations on each core and returns the time that all of them took.
func (r Runner) run(n int) time.Duration {
	others := make([]other, r.Cores-1)
	var done atomic.Int32
	var begin atomic.Bool
	for i := range others {
		go func() {
			r.Loop(1) // its stack grows now
			others[i].answer(&begin)
			r.Loop(n)
			done.Add(1)
		}()
	}
	const patience = 5 * time.Millisecond // on a machine that is never free the turn is a slow one
	for since := time.Now(); !answered(others) && time.Since(since) < patience; {
		runtime.Gosched() // one that shares our core cannot answer until we leave it
	}
	began := time.Now()
	begin.Store(true)
	r.Loop(n)
	for done.Load() < int32(len(others)) { //nolint:gosec // few; to be woken up takes longer than a turn may differ
	}
	return time.Since(began)
}

// other is a goroutine that is to run on a core of its own.
type other struct{ asked, answered atomic.Int32 }

// answer answers until the turn begins. It does not yield, so as to keep its core.
func (o *other) answer(begin *atomic.Bool) {
	for !begin.Load() {
		o.answered.Store(o.asked.Load())
	}
}

// answered reports whether all others answer at once while we keep our own core. Only
// those do that run now: the system gives a core to another thread for milliseconds.
func answered(others []other) bool {
	const atOnce = 20 * time.Microsecond
	for i := range others {
		o := &others[i]
		asked, question := time.Now(), o.asked.Add(1)
		for o.answered.Load() != question {
			if time.Since(asked) > atOnce {
				return false
			}
		}
		if time.Since(asked) > atOnce {
			return false
		}
	}
	return true
}

// Cost holds the allocations of an operation.
type Cost struct{ Allocs, Bytes float64 }

// Allocations returns the allocations of an operation: a result that two tries share, or
// the least of a few, as other goroutines of the program may allocate meanwhile.
func Allocations(loop Loop) Cost {
	const operations, tries = 2000, 5
	least := Cost{math.Inf(1), math.Inf(1)}
	loop(operations / 10)
	for range tries {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		loop(operations)
		runtime.ReadMemStats(&after)
		cost := Cost{each(after.Mallocs-before.Mallocs, operations), each(after.TotalAlloc-before.TotalAlloc, operations)}
		if cost == least {
			break
		}
		least = Cost{min(least.Allocs, cost.Allocs), min(least.Bytes, cost.Bytes)}
	}
	return least
}

// each rounds to tenths: a map that grows now and then belongs to no operation,
// but an allocation of one in ten operations does.
func each(total uint64, operations float64) float64 {
	return math.Round(float64(total)*10/operations) / 10
}

// Quantile returns the q-quantile, 0 to 1, of figures that are at least one.
func Quantile(figures []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(figures))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
