package bars

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/benchmarks/internal/contest"
)

// Races are the measurements of all bars, in the order in which they are shown; many
// is the number of providers that are registered and removed.
func Races(many int) []Race {
	one := contest.Setting{Providers: 1}
	plain := contest.Setting{Timeout: registry.NoTimeout, Probed: true}
	first := contest.Get("Get", contest.Setting{})
	turns := contest.Setting{Strategy: registry.StrategyRoundRobin}
	withOpen := contest.Setting{Open: contest.Providers - 1}
	turnsWithOpen := contest.Setting{Strategy: registry.StrategyRoundRobin, Open: contest.Providers - 1}
	call := contest.Call("Call", plain)
	timed := contest.Call("Call with timeout", contest.Setting{Probed: true})
	three := contest.Setting{Providers: 3}
	adHoc := contest.GetByQuery("Service.Get", contest.Setting{})
	return []Race{
		against("get", 0.6, first, contest.TurnsByHand()),
		against("get-beside-map", 0.9, first, contest.SyncMap()),
		against("get-round-robin", 1.2, contest.Get("Get in turns", turns), contest.TurnsByHand()),
		allocating("get-allocs", 0, first),
		allocating("get-round-robin-allocs", 0, contest.Get("Get in turns", turns)),

		against("flat-10000", 1.3, contest.Get("of 10,000", contest.Setting{Providers: 10_000}), contest.Get("of 1", one)),
		against("flat-open", 1.3, contest.Get("7 of 8 open", withOpen), first),
		against("flat-open-round-robin", 1.3, contest.Get("7 of 8 open", turnsWithOpen), contest.Get("none open", turns)),
		{[]Bar{{"flat-flapping-p99", 2}}, flapping},

		against("call", 0.6, call, contest.Gobreaker()),
		allocating("call-allocs", 0, call),
		against("call-timeout", 0.5, timed, contest.TimeoutAndGobreaker()),
		allocating("call-timeout-allocs", 1, timed),
		against("call-full", 0.2, contest.Call("Call with everything", contest.Setting{Probed: true, Full: true}), contest.FailsafeStack()),

		// Twice the throughput is half the time: 1.6 times of it is 1/1.6 of the time.
		cores("scale", 1/1.6, call),

		within("reject", time.Microsecond, contest.Refused("none admits", contest.Setting{Open: contest.Providers})),
		against("reject-10000", 1.5, contest.Refused("none of 10,000 admits", down(10_000)), contest.Refused("none of 10 admits", down(10))),
		within("reject-10000-time", 2*time.Microsecond, contest.Refused("none of 10,000 admits", down(10_000))),
		against("ad-hoc-1000", 1.5, contest.GetByQueries("1,000 kinds of query in turn", 1000), contest.GetByQueries("one kind of query", 1)),
		against("failover", 1.3, contest.Call("first of three open", contest.Setting{Providers: 3, Open: 1}), contest.Call("none open", three)),

		{[]Bar{{"register", 1}, {"unregister", 1}, {"register-bytes", 1}}, func(ctx context.Context, s contest.Settings) ([]Figure, error) {
			return membership(ctx, s, many)
		}},

		within("ad-hoc", 250*time.Nanosecond, adHoc),
		allocating("ad-hoc-allocs", 1, adHoc),
		within("explain", 10*time.Microsecond, contest.Explain("Explain", contest.Setting{})),
	}
}

// down is a registry of that many providers, all with an open breaker.
func down(providers int) contest.Setting {
	return contest.Setting{Providers: providers, Open: providers}
}

// prepare makes contestants ready to run on one core.
func prepare(contestants ...contest.Contestant) (runners []contest.Runner, free func() error, err error) {
	var frees []func() error
	free = func() error {
		var errs []error
		for _, f := range frees {
			errs = append(errs, f())
		}
		return errors.Join(errs...)
	}
	for _, c := range contestants {
		loop, freed, err := c.Make()
		if err != nil {
			return nil, nil, errors.Join(err, free())
		}
		runners = append(runners, contest.Runner{Loop: loop, Cores: 1})
		frees = append(frees, freed)
	}
	return runners, free, nil
}

// against is a bar for the time of ours, as a part of theirs.
func against(name string, atMost float64, ours, theirs contest.Contestant) Race {
	return Race{[]Bar{{name, atMost}}, func(ctx context.Context, s contest.Settings) ([]Figure, error) {
		const places = 5
		s.Rounds = (s.Rounds + places - 1) / places
		figure, err := inPlaces(places, func() (Figure, error) {
			runners, free, err := prepare(ours, theirs)
			if err != nil {
				return Figure{}, err
			}
			times, err := contest.Race(ctx, s, runners...)
			if err := errors.Join(err, free()); err != nil {
				return Figure{}, err
			}
			return Figure{times[0], times[1]}, nil
		})
		if err != nil {
			return nil, err
		}
		return []Figure{figure}, nil
	}}
}

// inPlaces measures several times, each on a stack of its own, and returns the figure
// with the median ratio. Where things lie in memory is chance, which a process keeps to:
// it is worth several percent, and cells of counters are found by stacks, so that two
// goroutines that meet in one hinder each other as long as they live.
func inPlaces(places int, measure func() (Figure, error)) (Figure, error) {
	over := make(chan struct{})
	defer close(over)
	var figures []Figure
	for range places {
		failed := make(chan error, 1)
		go func() {
			figure, err := measure()
			figures = append(figures, figure)
			failed <- err
			<-over // until then the stack is not reused
		}()
		if err := <-failed; err != nil {
			return Figure{}, err
		}
	}
	slices.SortFunc(figures, func(a, b Figure) int { return cmp.Compare(a.Ratio(), b.Ratio()) })
	return figures[len(figures)/2], nil
}

// within is a bar for the time of ours by itself.
func within(name string, atMost time.Duration, ours contest.Contestant) Race {
	return Race{[]Bar{{name, 1}}, func(ctx context.Context, s contest.Settings) ([]Figure, error) {
		runners, free, err := prepare(ours)
		if err != nil {
			return nil, err
		}
		times, err := contest.Race(ctx, s, runners...)
		if err := errors.Join(err, free()); err != nil {
			return nil, err
		}
		return []Figure{{times[0], float64(atMost)}}, nil
	}}
}

// allocating is a bar for the allocations of an operation of ours.
func allocating(name string, atMost float64, ours contest.Contestant) Race {
	return Race{[]Bar{{name, 1}}, func(context.Context, contest.Settings) ([]Figure, error) {
		runners, free, err := prepare(ours)
		if err != nil {
			return nil, err
		}
		cost := contest.Allocations(runners[0].Loop)
		return []Figure{{cost.Allocs, atMost}}, free()
	}}
}

// cores is a bar for the time of ours on two cores, as a part of that on one.
func cores(name string, atMost float64, ours contest.Contestant) Race {
	return Race{[]Bar{{name, atMost}}, func(ctx context.Context, s contest.Settings) ([]Figure, error) {
		runners, free, err := prepare(ours)
		if err != nil {
			return nil, err
		}
		on2, on1 := runners[0], runners[0]
		on2.Cores = 2
		// Every turn is a round: that two cores are undisturbed at once is so much rarer than that
		// one is that their fastest turns would not say how calls hinder each other.
		turns := contest.Settings{Rounds: (s.Turns + 1) / 2, Turns: 1, Turn: s.Turn}
		figure, err := inPlaces(3*s.Rounds, func() (Figure, error) {
			times, err := contest.Race(ctx, turns, on2, on1)
			if err != nil {
				return Figure{}, err
			}
			return Figure{times[0], times[1]}, nil
		})
		if err := errors.Join(err, free()); err != nil {
			return nil, err
		}
		return []Figure{figure}, nil
	}}
}

func flapping(ctx context.Context, s contest.Settings) ([]Figure, error) {
	stormy, calm, err := contest.Flapping(ctx, s)
	return []Figure{{stormy, calm}}, err
}

// membership measures the registration and removal of many providers, and
// the bytes of each. It has fewer rounds: one takes as long as all turns of others.
func membership(ctx context.Context, s contest.Settings, many int) ([]Figure, error) {
	m, err := contest.Joins(ctx, many, min(s.Rounds, 5))
	if err != nil {
		return nil, err
	}
	allowed := float64(time.Second) * float64(many) / 100_000
	return []Figure{
		{float64(m.Register), allowed},
		{float64(m.Unregister), allowed},
		{m.Bytes, 4 << 10},
	}, nil
}
