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

// Floor lets what is in use, with all stacks, grow to so many bytes before it is collected. Beyond that it grows by a quarter,
// and by more the more there is, until it doubles, as Go has it, from four times the floor on: a server with many requests at once
// needs little more than they do, and one with very many spends no more time than others. By itself
// Go begins at 4 MiB, which a server with little in use and much to do fills many times a second, and each time all that is in
// use, and every stack, is read again. An environment with GOGC keeps what that says. It is for the whole process, does not end,
// and starts no goroutine.
func Floor(bytes uint64) {
	if os.Getenv("GOGC") == "" {
		(&pacer{floor: bytes}).again(struct{}{})
	}
}

// pacer sets the percentage of growth.
type pacer struct {
	floor   uint64
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
	const step, least, goes = 10, 20, 4 << 20 // Go lets each heap grow to this much at 100 %, and to a share of it at others
	to := p.floor / 4 * 3 * 100 / goes        // as stacks come beside it
	if used > 0 {
		to = min(to, (max(p.floor, used)-used)*100/used)
	}
	beyond := min(used*100/(4*p.floor), 100)
	return int(max(to, beyond, least)) / step * step //nolint:gosec // no floor is that high
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
