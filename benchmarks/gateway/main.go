// Command gateway measures examples/gateway beside a reverse proxy of net/http/httputil, nginx and Portkey's gateway, in
// turn, on loopback: requests per second and CPU time of plain answers, and what of it is the library's, CPU time of streams,
// memory, and what an upstream that is down costs.
//
//	go run ./benchmarks/gateway -portkey DIR
//
// where DIR is one in which npm has installed @portkey-ai/gateway. What is absent is said and left out. The load, the
// contestant and the upstream share the machine, so requests per second are those of all three together, and the CPU time
// of the contestant's processes is the sounder figure. All figures are medians of the rounds; a ratio or a difference is that of
// two contestants in the same round.
//
// Each figure that has a bar is followed by ok or short; the last line has all of them, for programs to read.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM) // else the servers would stay
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		os.Exit(1) //nolint:gocritic // the process ends; stop has nothing left to undo
	}
}

// settings say how long to measure.
type settings struct {
	rounds  int
	turn    time.Duration // of one contestant in one round
	streams int           // at once
	mixed   int           // requests before memory is read
	portkey string        // where it is installed
	file    string        // of the page; none: it is not written
}

// Portkey and nginx have a bar beside them or none: nginx copies bytes, and is there for scale.
const (
	proxyAtLeast   = 1.0 // requests per second / those of the reverse proxy
	portkeyAtLeast = 6.0 // the same beside Portkey
	streamsAtMost  = 1.2 // CPU time per stream / that of the reverse proxy
	libraryAtMost  = 3.0 // µs of CPU time for a request
	memoryAtMost   = 37  // MiB after the mixed requests
	deadAtLeast    = 0.98
)

// run measures, and writes the results. A missed bar is no error.
func run(ctx context.Context, arguments []string, to io.Writer) error {
	flags := flag.NewFlagSet("gateway", flag.ContinueOnError)
	flags.SetOutput(to)
	role := flags.String("serve", "", "for the program itself, which starts others of its kind: upstream, proxy, library or bare")
	target := flags.String("target", "", "the server that a proxy stands before")
	var s settings
	flags.IntVar(&s.rounds, "rounds", 5, "how often each contestant has its turn; medians count")
	flags.DurationVar(&s.turn, "turn", 2*time.Second, "how long a turn takes")
	flags.IntVar(&s.streams, "streams", 200, "streams at once, of 100 events 10 ms apart")
	flags.IntVar(&s.mixed, "mixed", 100_000, "requests, one in ten a stream, before memory is read")
	flags.StringVar(&s.file, "o", "", "the page to write, such as docs/gateway-speed.md; none: no page")
	flags.StringVar(&s.portkey, "portkey", "", "where npm has installed @portkey-ai/gateway; none: it does not take part")
	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	switch {
	case *role != "":
		return serve(ctx, *role, *target, to)
	case s.rounds < 1 || s.turn <= 0 || s.streams < 1 || s.mixed < 1:
		return errors.New("-rounds, -turn, -streams and -mixed are more than 0")
	}
	return measure(ctx, s, to)
}

// measure starts the contestants and lets them compete.
func measure(ctx context.Context, s settings, to io.Writer) (err error) {
	field, err := newField(ctx, s.portkey)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, field.end()) }()
	r := report{to: to}
	r.line("%s %s/%s, %d CPUs; %d rounds of %v", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), s.rounds, s.turn)
	for _, absent := range field.absent {
		r.line("left out: %s", absent)
	}
	for _, connections := range []int{16, 128} {
		if err := field.plain(ctx, s, &r, connections); err != nil {
			return err
		}
	}
	if err := field.streams(ctx, s, &r); err != nil {
		return err
	}
	if err := field.down(ctx, s, &r); err != nil {
		return err
	}
	r.line("\n%s", strings.Join(r.summary, " "))
	return errors.Join(r.err, r.writePage(s, field))
}

// plain measures plain answers, and what of their cost is the library's.
func (f *field) plain(ctx context.Context, s settings, r *report, connections int) error {
	all := slices.Concat(f.contestants, f.ways)
	rates, costs, err := f.compete(ctx, all, s, load{connections: connections})
	if err != nil {
		return err
	}
	r.line("\nplain answers, %d connections", connections)
	for _, c := range all {
		rate, cost := rates.median(c.name), costs.median(c.name)
		r.line("  %-18s %8.0f requests/s, %6.1f µs of CPU each", c.name, rate, cost)
		r.row(c.name, fmt.Sprintf("%.0f", rate), fmt.Sprintf("%.1f", cost))
	}
	r.bar(fmt.Sprintf("plain%d_proxy", connections), rates.ratio("gateway", "reverse proxy"), proxyAtLeast, true)
	if _, takesPart := rates["portkey"]; takesPart {
		r.bar(fmt.Sprintf("plain%d_portkey", connections), rates.ratio("gateway", "portkey"), portkeyAtLeast, true)
	}
	r.bar(fmt.Sprintf("library%d_us", connections), costs.difference(withLibrary, withoutLibrary), libraryAtMost, false)
	return nil
}

// streams measures many slow streams at once, which Portkey as npm installs it answers with 500.
func (f *field) streams(ctx context.Context, s settings, r *report) error {
	takePart := slices.DeleteFunc(slices.Clone(f.contestants), func(c *contestant) bool { return c.name == "portkey" })
	_, costs, err := f.compete(ctx, takePart, s, load{connections: s.streams, stream: true})
	if err != nil {
		return err
	}
	r.line("\nstreams, %d at once", s.streams)
	for _, c := range takePart {
		cost := costs.median(c.name)
		r.line("  %-18s %8.2f s of CPU for 1,000", c.name, cost/1e3)
		r.row(c.name, fmt.Sprintf("%.2f", cost/1e3))
	}
	r.bar("streams_cpu_proxy", costs.ratio("gateway", "reverse proxy"), streamsAtMost, false)
	gateway := f.named("gateway")
	if err := mixed(ctx, gateway.address, s.mixed, s.streams); err != nil {
		return err
	}
	r.proxyPeak = float64(f.named("reverse proxy").peakMemory()) / (1 << 20)
	r.line("\nmemory of the gateway after %d mixed requests; the reverse proxy had %.2f MiB before them", s.mixed, r.proxyPeak)
	r.bar("peak_mib", float64(gateway.peakMemory())/(1<<20), memoryAtMost, false)
	return nil
}

// down measures a gateway whose first upstream refuses connections beside one that has none such and is as new.
func (f *field) down(ctx context.Context, s settings, r *report) error {
	dead, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	crippled, err := f.startGateway(ctx, "first down", dead, f.upstream.address)
	if err != nil {
		return err
	}
	whole, err := f.startGateway(ctx, "none down", f.upstream.address)
	if err != nil {
		return err
	}
	rates, _, err := f.compete(ctx, []*contestant{whole, crippled}, s, load{connections: 16})
	if err != nil {
		return err
	}
	r.line("\nthe first upstream is down, 16 connections")
	r.bar("down", rates.ratio(crippled.name, whole.name), deadAtLeast, true)
	return nil
}

// report writes lines and bars.
type report struct {
	to      io.Writer
	summary []string
	rows    map[string][]string // of the page, by contestant
	bars    []string
	err     error

	proxyPeak float64 // MiB
}

func (r *report) line(format string, arguments ...any) {
	_, err := fmt.Fprintf(r.to, format+"\n", arguments...)
	r.err = errors.Join(r.err, err)
}

// bar writes a figure and whether it is within its bar, which is a floor or a ceiling.
func (r *report) bar(name string, got, limit float64, floor bool) {
	word, side := "ok", "at most"
	if floor {
		side = "at least"
	}
	if floor && got < limit || !floor && got > limit {
		word = "short"
	}
	r.line("  %s %.3f %s (%s %.2f)", name, got, word, side, limit)
	r.summary = append(r.summary, fmt.Sprintf("%s %.3f", name, got))
	r.bars = append(r.bars, fmt.Sprintf("| %s | %.3f | %s %.2f | %s |", name, got, side, limit, word))
}
