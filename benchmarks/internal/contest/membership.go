package contest

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"time"

	"github.com/capreg/registry"
)

// Membership is what it costs to have providers.
type Membership struct {
	Register, Unregister time.Duration // of all of them, one by one
	Bytes                float64       // of the heap for each, at rest
}

// Join registers many providers, looks at the heap and removes them again.
func Join(ctx context.Context, many int) (m Membership, err error) {
	reg, err := registry.New(registry.Options{})
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, reg.Close(context.Background())) }()
	providers := make([]registry.Provider[Model], many) // the user's own, and not counted
	for i := range providers {
		providers[i] = registry.Provider[Model]{
			Name: strconv.Itoa(i), Instance: &model{i}, Capabilities: []string{"chat", "tools"},
		}
	}
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

// heap returns the bytes in use when all garbage is gone.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what finalizers and sync.Pool held
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc) //nolint:gosec // far below
}
