package contest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/selection"
)

// Membership measures the cost of registrations.
type Membership struct {
	Register, Unregister time.Duration // of all of them, one by one
	Bytes                float64       // of the heap for each, at rest
}

// Joins returns the medians of so many times of Join.
func Joins(ctx context.Context, many, times int) (Membership, error) {
	var register, unregister, bytes []float64
	for range times {
		m, err := Join(ctx, many)
		if err != nil {
			return m, err
		}
		register = append(register, float64(m.Register))
		unregister = append(unregister, float64(m.Unregister))
		bytes = append(bytes, m.Bytes)
	}
	return Membership{
		Register: time.Duration(Quantile(register, 0.5)), Unregister: time.Duration(Quantile(unregister, 0.5)), Bytes: Quantile(bytes, 0.5),
	}, nil
}

// Join registers many providers, measures the heap and removes them again.
func Join(ctx context.Context, many int) (m Membership, err error) {
	reg, err := registry.New(registry.Options{})
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, reg.Close(context.Background())) }()
	providers := members(many, selection.Strategy{}) // the user's own, and not counted
	registrations := make([]*registry.Registration, many)
	before := heap()
	began := time.Now()
	for i, p := range providers {
		if registrations[i], err = service.Register(ctx, reg, p); err != nil {
			return m, err
		}
	}
	m.Register = time.Since(began)
	if _, err := Bind(reg).Get(ctx); err != nil { // the plan is at rest as well
		return m, err
	}
	m.Bytes = float64(heap()-before) / float64(many)
	runtime.KeepAlive(providers)
	began = time.Now()
	for _, r := range registrations {
		if err := r.Unregister(ctx); err != nil {
			return m, err
		}
	}
	m.Unregister = time.Since(began)
	return m, nil
}

// Called returns the bytes of the heap that each of many providers has when all of them
// have been called.
func Called(ctx context.Context, many int) (bytes float64, err error) {
	reg, err := registry.New(registry.Options{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, reg.Close(context.Background())) }()
	providers := members(many, registry.StrategyRoundRobin)
	before := heap()
	for _, p := range providers {
		if _, err := service.Register(ctx, reg, p); err != nil {
			return 0, err
		}
	}
	Calling(Bind(reg))(many)
	bytes = float64(heap()-before) / float64(many)
	for _, p := range providers {
		if r, ok := reg.Provider(service.Name(), p.Name); !ok || r.Info().Attempts != 1 {
			return 0, fmt.Errorf("%s was not called once", p.Name)
		}
	}
	return bytes, nil
}

// members are many providers in one group.
func members(many int, strategy selection.Strategy) []registry.Provider[Model] {
	providers := make([]registry.Provider[Model], many)
	for i := range providers {
		providers[i] = registry.Provider[Model]{
			Name: strconv.Itoa(i), Instance: newModel(i), Capabilities: []string{"chat", "tools"}, Strategy: strategy,
		}
	}
	return providers
}

// heap returns the bytes in use when all garbage is gone.
func heap() int64 {
	runtime.GC()
	runtime.GC() // memory kept by finalizers and sync.Pool
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc) //nolint:gosec // far below
}
