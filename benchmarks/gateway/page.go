package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

const page = `<!-- Written by go run ./benchmarks/gateway -portkey DIR -o docs/gateway-speed.md. Do not edit. -->

# The speed of the gateway

This is [examples/gateway](../examples/gateway) beside a reverse proxy of net/http/httputil with 256 idle connections,
nginx (which copies bytes, and is there for scale) and Portkey's gateway, measured on %[1]s by one run of

    npm install --prefix DIR @portkey-ai/gateway@1.15.2
    go run ./benchmarks/gateway -portkey DIR -o docs/gateway-speed.md

with %[2]s on %[3]s/%[4]s with %[5]d CPUs: %[6]d rounds in which each has a turn of %[7]v. The medians of the rounds count; of ratios
and differences those of two contestants in the same round.%[8]s

The load, the contestant and the upstream share the machine, over loopback and without TLS. So requests per second are those of
all three together, and the CPU time of the contestant's processes is the sounder figure. The machine may have had other
work: trust the ratios more than the figures, and both no finer than a tenth.

The upstream answers a plain request at once with 600 bytes, and a stream with %[9]d events %[10]v apart. The gateway parses each request and
each answer, counts usage, writes a line of its log for each, and can fail over; it has one upstream, and nothing but its
address and a route in its configuration. The reverse proxy and nginx do none of that. The gateway collects garbage from 14 MiB in
use on, and beyond that more often than Go does by itself; the reverse proxy does as Go has it. Portkey's gateway, as npm installs it,
answers streams with status 500, and has no part in them. The two ways are what the gateway does with a request between its
configuration and the upstream, in a process of their own: by the library, with a breaker and retries, or with the transport of
the upstream in its place. Both collect garbage about as seldom as the gateway does. The difference is the library's own part.

| | 16 connections: requests/s | µs of CPU each | 128 connections: requests/s | µs of CPU each | %[11]d streams at once: s of CPU for 1,000 |
| --- | ---: | ---: | ---: | ---: | ---: |
%[12]s

What the gateway is to reach:

| bar | measured | wanted | |
| --- | ---: | --- | --- |
%[13]s

- plain16, plain128: requests per second beside those of the reverse proxy and of Portkey's gateway.
- library16_us, library128_us: µs of CPU time by which the way by the library is longer than the one without it.
- streams_cpu_proxy: CPU time of a stream beside that of the reverse proxy.
- peak_mib: the most memory that the gateway has had, in MiB, after %[14]d requests more, one in ten a stream. The reverse
  proxy had %.0[15]f without these.
- down: requests per second of a gateway whose first upstream refuses connections, beside one that has none such.
`

// row adds cells to the row of a contestant.
func (r *report) row(name string, cells ...string) {
	if r.rows == nil {
		r.rows = make(map[string][]string)
	}
	r.rows[name] = append(r.rows[name], cells...)
}

// writePage writes the page, if there is to be one.
func (r *report) writePage(s settings, f *field) error {
	if s.file == "" {
		return nil
	}
	var rows []string
	for _, c := range slices.Concat(f.contestants, f.ways) {
		cells := r.rows[c.name]
		for len(cells) < 5 {
			cells = append(cells, "")
		}
		rows = append(rows, fmt.Sprintf("| %s | %s |", c.name, strings.Join(cells, " | ")))
	}
	absent := ""
	if len(f.absent) > 0 {
		absent = " Left out: " + strings.Join(f.absent, "; ") + "."
	}
	text := fmt.Sprintf(page, time.Now().UTC().Format(time.DateOnly), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(),
		s.rounds, s.turn, absent, events, pause, s.streams, strings.Join(rows, "\n"), strings.Join(r.bars, "\n"), s.mixed, r.proxyPeak)
	return os.WriteFile(s.file, []byte(text), 0o644) //nolint:gosec // a page for all
}
