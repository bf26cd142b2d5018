// Command transport measures what package registryhttp adds to a request: the median latency and the CPU
// time beside an http.Transport, on loopback, all over the same connections and in turn.
//
//	go run ./benchmarks/transport
//
// The http.Transport is in a client with a Timeout: a request without any limit of time waits for ever for a server that
// hangs, so a program has one, and a registryhttp.Transport has it by itself. What a limit costs is part of both, and shown: the
// same without a Timeout takes part as well, and the bars are not beside it, since net/http's own Timeout exceeds them there.
//
// A turn is short, so that on a machine that others share many turns are disturbed little. Each turn has its median
// latency and its CPU time per request; the lowest tenth of the turns counts, by its upper end. The http.Transport takes
// part twice: what its second part differs by is the noise of the run, and no figure is finer than that. Allocations are
// counted apart, since garbage collections are in few turns.
//
// Each figure that has a bar is followed by ok or short; the last line has all of them, for programs to read.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/registryhttp"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "transport:", err)
		os.Exit(1) //nolint:gocritic // the process ends; stop has nothing left to undo
	}
}

const (
	latencyAtMost = 1.05 // median / that of an http.Transport in a client with a Timeout
	cpuAtMost     = 3.0  // µs per request beyond that
)

var upstreams = registry.NewService[*registryhttp.Upstream]("upstreams")

// run measures, and writes the results. A missed bar is no error.
func run(ctx context.Context, arguments []string, to io.Writer) error {
	flags := flag.NewFlagSet("transport", flag.ContinueOnError)
	flags.SetOutput(to)
	rounds := flags.Int("rounds", 600, "how often each transport has its turn; the lowest tenth counts")
	requests := flags.Int("requests", 40, "requests of each turn, of which the median counts")
	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if *rounds < 1 || *requests < 1 {
		return errors.New("-rounds and -requests are 1 or more")
	}
	question, answer := strings.Repeat("question ", 128), strings.Repeat("answer ", 256)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serve(w, r, answer) })
	plain := httptest.NewServer(handler)
	defer plain.Close()
	secure := httptest.NewUnstartedServer(handler)
	secure.EnableHTTP2 = true
	secure.StartTLS()
	defer secure.Close()

	_, err := fmt.Fprintf(to, "%s %s/%s, %d CPUs; %d turns of %d requests each\n\n", runtime.Version(), runtime.GOOS, runtime.GOARCH,
		runtime.NumCPU(), *rounds, *requests)
	var summary []string
	for _, race := range []struct {
		name   string
		server *httptest.Server
		path   string
	}{{"plain", plain, "/plain"}, {"stream", plain, "/stream"}, {"h2plain", secure, "/plain"}, {"h2stream", secure, "/stream"}} {
		field, failed := compete(ctx, race.server, race.path, question, *rounds, *requests)
		if failed != nil {
			return failed
		}
		err = errors.Join(err, field.report(to, race.name))
		summary = append(summary, field.summary(race.name))
	}
	_, printed := fmt.Fprintf(to, "\n%s\n", strings.Join(summary, " "))
	return errors.Join(err, printed)
}

// field is the contestants of a race.
type field struct {
	bare, limited, ours, again *turns // again is limited once more
}

// report writes the figures of a race.
func (f *field) report(to io.Writer, race string) error {
	latency, cpu := f.ours.beside(f.limited)
	noise, cpuNoise := f.again.beside(f.limited)
	_, err := fmt.Fprintf(to, "%-8s median %v beside %v: %.3f (noise %.3f) %s; CPU %.1f µs beside %.1f µs: %+.2f µs (noise %+.2f) %s; "+
		"%+.1f allocations, %+.0f bytes\n", race,
		f.ours.latency(), f.limited.latency(), latency, noise, word(latency, latencyAtMost),
		f.ours.cpu()/1e3, f.limited.cpu()/1e3, cpu, cpuNoise, word(cpu, cpuAtMost),
		f.ours.allocations-f.limited.allocations, f.ours.bytes-f.limited.bytes)
	for _, t := range []struct {
		name  string
		turns *turns
	}{{"ours", f.ours}, {"a Timeout alone", f.limited}} {
		latency, cpu := t.turns.beside(f.bare)
		_, printed := fmt.Fprintf(to, "         without any limit %v: %s %.3f, %+.2f µs of CPU\n", f.bare.latency(), t.name, latency, cpu)
		err = errors.Join(err, printed)
	}
	return err
}

// summary returns the figures of a race for programs.
func (f *field) summary(race string) string {
	latency, cpu := f.ours.beside(f.limited)
	bareLatency, bareCPU := f.ours.beside(f.bare)
	return fmt.Sprintf("%[1]s_latency %.3[2]f %[1]s_cpu_us %.2[3]f %[1]s_bare_latency %.3[4]f %[1]s_bare_cpu_us %.2[5]f", race, latency, cpu, bareLatency, bareCPU)
}

// compete has all contestants send requests in turn.
func compete(ctx context.Context, server *httptest.Server, path, question string, rounds, requests int) (*field, error) {
	// As the default transport has it, it closes idle connections after a time.
	bare := &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: 90 * time.Second, ForceAttemptHTTP2: true}
	defer bare.CloseIdleConnections()
	if known, ok := server.Client().Transport.(*http.Transport); ok {
		bare.TLSClientConfig = known.TLSClientConfig
	}
	ours, closeOurs, err := newOurs(ctx, server.URL, bare)
	if err != nil {
		return nil, err
	}
	defer closeOurs()
	f := &field{bare: newTurns(bare, 0), limited: newTurns(bare, time.Minute), ours: newTurns(ours, 0), again: newTurns(bare, time.Minute)}
	all := []*turns{f.bare, f.limited, f.ours, f.again}
	for i := range rounds {
		for j := range all {
			if err := all[(i+j)%len(all)].play(ctx, server.URL+path, question, requests); err != nil {
				return nil, err
			}
		}
	}
	for _, t := range all {
		if err := t.count(ctx, server.URL+path, question, requests); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func word(got, atMost float64) string {
	if got > atMost {
		return fmt.Sprintf("short (at most %.2f)", atMost)
	}
	return fmt.Sprintf("ok (at most %.2f)", atMost)
}

// newOurs returns a transport over three providers, the first of which answers.
func newOurs(ctx context.Context, url string, bare http.RoundTripper) (transport *registryhttp.Transport, closeAll func(), err error) {
	reg, err := registry.New(registry.Options{})
	if err != nil {
		return nil, nil, err
	}
	closeAll = func() { _ = reg.Close(context.WithoutCancel(ctx)) }
	for _, name := range []string{"a", "b", "c"} {
		upstream, err := registryhttp.NewUpstream(url, registryhttp.UpstreamOptions{Header: http.Header{"Authorization": {"Bearer " + name}}})
		if err == nil {
			_, err = upstreams.Register(ctx, reg, registry.Provider[*registryhttp.Upstream]{Name: name, Instance: upstream})
		}
		if err != nil {
			closeAll()
			return nil, nil, err
		}
	}
	transport, err = registryhttp.NewTransport(upstreams.Bind(reg, registry.Query{}), registryhttp.Options{
		Transport: bare, Repeatable: func(*http.Request) bool { return true },
	})
	if err != nil {
		closeAll()
		return nil, nil, err
	}
	return transport, closeAll, nil
}

// serve answers a question at once, or in five pieces.
func serve(w http.ResponseWriter, r *http.Request, answer string) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return
	}
	if r.URL.Path == "/plain" {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, answer)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for range 5 {
		_, _ = io.WriteString(w, "data: a piece of the answer\n\n")
		_ = http.NewResponseController(w).Flush()
	}
}

// turns are the measurements of one transport.
type turns struct {
	client             *http.Client
	took               []time.Duration // median latency of each turn
	spent              []float64       // ns of CPU per request, of each turn
	allocations, bytes float64         // of a request
}

func newTurns(transport http.RoundTripper, timeout time.Duration) *turns {
	return &turns{client: &http.Client{Transport: transport, Timeout: timeout}}
}

// play takes a turn.
func (t *turns) play(ctx context.Context, url, question string, requests int) error {
	took := make([]time.Duration, requests)
	before := cpuTime()
	for i := range took {
		began := time.Now()
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(question))
		if err != nil {
			return err
		}
		request.Header.Set("Authorization", "Bearer client")
		request.Header.Set("Content-Type", "application/json")
		response, err := t.client.Do(request)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, response.Body)
		if err = errors.Join(err, response.Body.Close()); err != nil {
			return err
		}
		took[i] = time.Since(began)
	}
	t.spent = append(t.spent, float64(cpuTime()-before)/float64(requests))
	t.took = append(t.took, quantile(took, 0.5))
	return nil
}

// count takes a turn that only counts allocations, those of the server included.
func (t *turns) count(ctx context.Context, url, question string, requests int) error {
	var before, after runtime.MemStats
	uncounted := turns{client: t.client}
	runtime.ReadMemStats(&before)
	if err := uncounted.play(ctx, url, question, requests); err != nil {
		return err
	}
	runtime.ReadMemStats(&after)
	t.allocations = float64(after.Mallocs-before.Mallocs) / float64(requests)
	t.bytes = float64(after.TotalAlloc-before.TotalAlloc) / float64(requests)
	return nil
}

func (t *turns) latency() time.Duration { return quantile(t.took, 0.1) }
func (t *turns) cpu() float64           { return quantile(t.spent, 0.1) }

// beside returns the latency as a multiple of another one's, and what the CPU time is beyond that, in µs.
func (t *turns) beside(other *turns) (latency, cpu float64) {
	return float64(t.latency()) / float64(other.latency()), (t.cpu() - other.cpu()) / 1e3
}

func quantile[T time.Duration | float64](values []T, part float64) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[int(part*float64(len(sorted)))]
}

// cpuTime returns the CPU time of the process, the server in it included.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
