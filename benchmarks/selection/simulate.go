package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/selection"
)

// workload is the load that every strategy distributes.
type workload struct {
	calls int
	rate  float64 // calls a second
	seed  uint64
}

// outcome holds the results that callers got.
type outcome struct {
	p50, p99          time.Duration // of the calls that were answered
	errors            float64       // part of the calls
	toSlow, toFailing float64       // part of the attempts
}

const (
	members  = 8
	places   = 4 // concurrent requests of a provider; further ones wait in it
	sessions = 500

	usual = 10 * time.Millisecond // mean, exponentially distributed
	slow  = 100 * time.Millisecond
	quick = 500 * time.Microsecond
)

// server is a provider of the simulation.
type server struct {
	places chan struct{}
	mean   time.Duration
	broken bool
	served int // guarded by world.mu
}

var (
	errBroken = errors.New("broken")
	// service is the service that the simulation calls.
	service = registry.NewService[*server]("server")
)

// request is one call: its begin, its work and its caller.
type request struct {
	at   time.Duration
	work float64 // of the mean
	key  string
}

// requests returns the same calls for every strategy.
func (w workload) requests() []request {
	random := rand.New(rand.NewPCG(w.seed, 0)) //nolint:gosec // a simulation
	all, at := make([]request, w.calls), 0.0
	for i := range all {
		at += random.ExpFloat64() / w.rate
		all[i] = request{
			at: time.Duration(at * float64(time.Second)), work: min(random.ExpFloat64(), 8), key: strconv.Itoa(random.IntN(sessions)),
		}
	}
	return all
}

// simulate lets one strategy share out the load; guarded: with breakers and fail-over.
func simulate(ctx context.Context, strategy selection.Strategy, load workload, guarded bool) (o outcome, err error) {
	reg, err := registry.New(registry.Options{})
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, reg.Close(context.WithoutCancel(ctx))) }()
	policy, options := registry.BreakerPolicy{}, []registry.CallOption(nil)
	if !guarded {
		policy.FailureThreshold = 1 << 30
		options = append(options, registry.OnceOnly())
	}
	servers := make([]*server, members)
	for i := range servers {
		servers[i] = &server{places: make(chan struct{}, places), mean: usual}
		switch i {
		case 2:
			servers[i].mean = slow
		case 5:
			servers[i].mean, servers[i].broken = quick, true
		}
		if _, err := service.Register(ctx, reg, registry.Provider[*server]{
			Name: fmt.Sprintf("server %d", i), Instance: servers[i], Strategy: strategy, Breaker: policy,
		}); err != nil {
			return o, err
		}
	}
	s := &simulation{resolver: service.Bind(reg, registry.Query{}), options: options}
	began := time.Now()
	var waiting sync.WaitGroup
	for _, r := range load.requests() {
		timer := time.NewTimer(r.at - time.Since(began))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			waiting.Wait()
			return o, ctx.Err()
		}
		waiting.Go(func() { s.call(ctx, r) })
	}
	waiting.Wait()
	return s.outcome(servers), ctx.Err()
}

// simulation collects the results of callers.
type simulation struct {
	resolver *registry.Resolver[*server]
	options  []registry.CallOption

	// mu guards the fields below, and server.served.
	mu       sync.Mutex
	answered []time.Duration
	failed   int
}

func (s *simulation) call(ctx context.Context, r request) {
	began := time.Now()
	_, err := registry.Call(selection.WithKey(ctx, r.key), s.resolver, func(ctx context.Context, to *server) (struct{}, error) {
		s.mu.Lock()
		to.served++
		s.mu.Unlock()
		return struct{}{}, to.serve(ctx, r.work)
	}, s.options...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failed++
	} else {
		s.answered = append(s.answered, time.Since(began))
	}
}

// serve works on one request, when it has a place for it.
func (s *server) serve(ctx context.Context, work float64) error {
	select {
	case s.places <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.places }()
	timer := time.NewTimer(time.Duration(work * float64(s.mean)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.broken {
		return errBroken
	}
	return nil
}

func (s *simulation) outcome(servers []*server) (o outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := len(s.answered) + s.failed
	o.errors = float64(s.failed) / float64(calls)
	if n := len(s.answered); n > 0 {
		slices.Sort(s.answered)
		o.p50, o.p99 = s.answered[n/2], s.answered[n*99/100]
	}
	attempts := 0
	for _, to := range servers {
		attempts += to.served
	}
	for _, to := range servers {
		switch {
		case to.broken:
			o.toFailing = float64(to.served) / float64(attempts)
		case to.mean == slow:
			o.toSlow = float64(to.served) / float64(attempts)
		}
	}
	return o
}
