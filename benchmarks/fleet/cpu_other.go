//go:build !unix

package main

import (
	"runtime"
	"runtime/metrics"
	"time"
)

// cpuTime returns the processor time that Go code has used so far, as the runtime estimates it.
func cpuTime() time.Duration {
	runtime.GC() // which is when the estimate is made
	samples := []metrics.Sample{{Name: "/cpu/classes/total:cpu-seconds"}, {Name: "/cpu/classes/idle:cpu-seconds"}}
	metrics.Read(samples)
	return time.Duration((samples[0].Value.Float64() - samples[1].Value.Float64()) * float64(time.Second))
}
