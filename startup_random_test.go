package registry_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/startup"
)

// TestStart_RandomGraphsKeepPromises plays random graphs with failures, panics, exits,
// late starts and cancellations.
func TestStart_RandomGraphsKeepPromises(t *testing.T) {
	t.Parallel()
	for seed := range uint64(1000) {
		synctest.Test(t, func(t *testing.T) {
			defer tellSeed(t, seed)
			playStart(t, rand.New(rand.NewPCG(seed, 5)))
		})
	}
}

func tellSeed(t *testing.T, seed uint64) {
	t.Helper()
	if t.Failed() {
		t.Logf("seed %d", seed)
	}
}

// played is what happened to a component.
type played struct {
	needs                   []string
	starts, finished, stops int
	ready, stopped, inside  bool
}

func playStart(t *testing.T, random *rand.Rand) {
	t.Helper()
	var mu sync.Mutex
	all := make(map[string]*played)
	n := 3 + random.IntN(20)
	components := make([]registry.Component, n)
	for i := range components {
		name := strconv.Itoa(i)
		p := &played{}
		all[name] = p
		c := registry.Component{Name: name, NonCritical: random.IntN(3) == 0, StartTimeout: 5 * time.Second, StopTimeout: 5 * time.Second}
		for j := range i {
			if random.IntN(4) == 0 {
				c.Needs = append(c.Needs, startup.Need{Component: strconv.Itoa(j)})
				p.needs = append(p.needs, strconv.Itoa(j))
			}
		}
		takes, kind := time.Duration(random.IntN(3000))*time.Millisecond, random.IntN(12)
		c.Start = func(ctx context.Context, run *startup.Run) error {
			mu.Lock()
			p.starts++
			for _, need := range p.needs {
				if !all[need].ready || all[need].stopped {
					t.Errorf("%s starts although %s is not ready", name, need)
				}
			}
			p.inside = true
			mu.Unlock()
			finish := func(ok bool) {
				mu.Lock()
				defer mu.Unlock()
				p.inside = false
				if ok {
					p.finished++
					p.ready = true
				}
			}
			if kind == 0 { // deaf, and late
				time.Sleep(20 * time.Second)
				finish(true)
				return nil
			}
			select {
			case <-time.After(takes):
			case <-ctx.Done():
				finish(false)
				return ctx.Err()
			}
			switch kind {
			case 1:
				finish(false)
				return testkit.ErrDown
			case 2:
				finish(false)
				panic("start")
			case 3:
				finish(false)
				runtime.Goexit()
			}
			finish(true)
			return nil
		}
		c.Stop = func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			p.stops++
			p.stopped = true
			for user, other := range all {
				if slices.Contains(other.needs, name) && other.finished > other.stops && !other.inside && other.starts > 0 && kind != 0 {
					t.Errorf("%s stops before %s, which uses it", name, user)
				}
			}
			return nil
		}
		components[i] = c
	}
	options := startup.Options{MaxConcurrent: random.IntN(4), Batches: random.IntN(4) == 0, OnFailure: startup.Policy(random.IntN(2))}
	random.Shuffle(n, func(i, j int) { components[i], components[j] = components[j], components[i] })
	o := testkit.Orchestrate(t, options, components...)
	ctx, cancel := context.WithCancel(t.Context())
	if random.IntN(3) == 0 {
		time.AfterFunc(time.Duration(random.IntN(6000))*time.Millisecond, cancel)
	}
	_, _ = o.Start(ctx)
	cancel()
	time.Sleep(time.Second)
	_ = o.Stop(t.Context())
	time.Sleep(time.Minute)
	require.NoError(t, o.Stop(t.Context()))
	mu.Lock()
	defer mu.Unlock()
	for name, p := range all {
		require.LessOrEqual(t, p.starts, 1, name)
		require.Equal(t, p.finished, p.stops, "%s: all that started is stopped once", name)
	}
}
