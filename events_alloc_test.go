//go:build !race

package registry_test

import (
	"runtime"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
)

// bytesOf returns the bytes that do allocates.
func bytesOf(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// down counts the unhealthy ones.
func down(infos []registry.Info) (count int) {
	for _, i := range infos {
		if i.Health.State == health.Unhealthy {
			count++
		}
	}
	return count
}

// A state is about a kilobyte: 100 subscribers with a copy each of 10,000 would take a gigabyte.
func TestSubscribe_HundredSubscribersShareTenThousandStates(t *testing.T) { //nolint:paralleltest // it counts what all goroutines allocate
	const size, subscribers = 10_000, 100
	reg := testkit.New(t, registry.Options{})
	var handles []*registry.Registration
	for i := range size {
		handles = append(handles, testkit.Add(t, reg, testkit.Provider{Name: strconv.Itoa(i)}))
	}
	first := bytesOf(func() { reg.Subscribe(0) })
	require.Greater(t, first, uint64(size*500), "all are new")

	all := make([]*registry.Subscription, subscribers)
	others := bytesOf(func() {
		for i := range all {
			all[i] = reg.Subscribe(0)
		}
	})
	require.Less(t, others, uint64(subscribers*1000), "for all of them")

	var after uint64
	for i := range all {
		_ = handles[i*7].MarkUnhealthy(testkit.ErrDown)
		after += bytesOf(func() { all[i] = reg.Subscribe(0) })
	}
	require.Less(t, after, uint64(subscribers*size*10), "a list of references each, and one state")
	require.Equal(t, []int{1, 2}, []int{down(all[0].Snapshot()), down(all[1].Snapshot())})
	require.NoError(t, reg.Close(t.Context()))
}
