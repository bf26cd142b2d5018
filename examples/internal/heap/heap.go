// Package heap has a server's garbage collected less often while there is little of it.
package heap

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// cycle is garbage by which the end of the next collection is known. It has a pointer: small values without one share a place.
type cycle struct{ _ *cycle }

// Floor lets what is in use, with all stacks, grow to so many bytes before it is collected, and by the least percentage where
// that is more: less than the 100 of Go, so that many requests at once, of which each has stacks and buffers, need less. By itself
// Go begins at 4 MiB, which a server with little in use and much to do fills many times a second, and each time all that is in
// use, and every stack, is read again. An environment with GOGC keeps what that says. It is for the whole process, does not end,
// and starts no goroutine.
func Floor(bytes uint64, least int) {
	if os.Getenv("GOGC") == "" {
		(&pacer{floor: bytes, least: least}).again(struct{}{})
	}
}

// pacer sets the percentage of growth.
type pacer struct {
	floor   uint64
	least   int // of growth
	percent int
}

// again looks at what is in use, now and after each collection.
func (p *pacer) again(struct{}) {
	if percent := p.wanted(inUse()); percent != p.percent {
		p.percent = percent
		debug.SetGCPercent(percent)
	}
	runtime.AddCleanup(&cycle{}, p.again, struct{}{})
}

// wanted returns the percentage in steps, since a change stops the program for a moment.
func (p *pacer) wanted(used uint64) int {
	const step, goes = 25, 4 << 20 // Go lets each heap grow to this much at 100 %, and to a share of it at others
	most := p.floor * 100 / goes
	if used > 0 {
		most = min(most, (max(p.floor, used)-used)*100/used)
	}
	return max(int(most)/step*step, p.least) //nolint:gosec // no floor is that high
}

// inUse returns the bytes that the last collection has kept, and those of stacks.
func inUse() uint64 {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(samples)
	var all uint64
	for _, s := range samples {
		if s.Value.Kind() == metrics.KindUint64 {
			all += s.Value.Uint64()
		}
	}
	return all
}
