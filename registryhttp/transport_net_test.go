package registryhttp_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/registryhttp"
)

func TestTransport_FailsOverOverHTTP2(t *testing.T) {
	t.Parallel()
	s := with(t, testkit.New(t, registry.Options{}), registryhttp.Options{Repeatable: all})
	handlers := []http.HandlerFunc{
		func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, // RST_STREAM
		func(w http.ResponseWriter, _ *http.Request) { // and again, behind the header
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
		func(w http.ResponseWriter, r *http.Request) {
			text, _ := io.ReadAll(r.Body)
			w.Header().Set("Trailer", "Sum")
			for _, piece := range []string{r.Proto, " ", r.Host, " ", string(text)} {
				_, _ = io.WriteString(w, piece)
				_ = http.NewResponseController(w).Flush()
			}
			w.Header().Set("Sum", "4")
		},
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	s.options.Transport = transport
	hosts := make([]string, 0, len(handlers))
	for i, handler := range handlers {
		h2 := httptest.NewUnstartedServer(handler)
		h2.EnableHTTP2 = true
		h2.Config.ErrorLog = nil
		h2.StartTLS()
		t.Cleanup(h2.Close)
		hosts = append(hosts, h2.Listener.Addr().String())
		s.add(registry.Provider[*registryhttp.Upstream]{Name: string(rune('a' + i))}, h2.URL, registryhttp.UpstreamOptions{})
	}
	for _, body := range []io.Reader{strings.NewReader("question"), plainReader{strings.NewReader("question")}} {
		response, err := s.send(t.Context(), http.MethodPost, body)
		require.Equal(t, "HTTP/2.0 "+hosts[2]+" question", read(t, response, err))
		require.Equal(t, "4", response.Trailer.Get("Sum"))
	}
	s.requireCounts(0, 0, 2, 0, 0)
	s.requireCounts(1, 0, 2, 0, 0)
	s.requireCounts(2, 2, 0, 0, 0)
}

func TestTransport_EventsFlowAsTheyArrive(t *testing.T) {
	t.Parallel()
	next := make(chan string)
	events := server(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for event := range next {
			_, _ = io.WriteString(w, event)
			_ = http.NewResponseController(w).Flush()
		}
	})
	s := with(t, testkit.New(t, registry.Options{}), registryhttp.Options{})
	s.add(registry.Provider[*registryhttp.Upstream]{Name: "a"}, events.URL, registryhttp.UpstreamOptions{})
	transport := s.transport()
	defer transport.CloseIdleConnections()
	request := ask(t, "http://client/")
	go func() { next <- "data: 0\n\n" }()
	response, err := transport.RoundTrip(request)
	require.NoError(t, err)
	buffer := make([]byte, 100)
	for i := range 5 {
		n, err := response.Body.Read(buffer)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("data: %d\n\n", i), string(buffer[:n]))
		next <- fmt.Sprintf("data: %d\n\n", i+1) // only now: nothing is waited for
	}
	close(next)
	require.Equal(t, "data: 5\n\n", read(t, response, nil))
	s.requireCounts(0, 1, 0, 0, 0)
}

func TestTransport_LongAnswersTakeNoMemory(t *testing.T) {
	var most atomic.Uint64
	const size = 1 << 30
	block := make([]byte, 1<<20)
	long := server(t, func(w http.ResponseWriter, _ *http.Request) {
		for range size / len(block) {
			_, _ = w.Write(block)
		}
	})
	s := with(t, testkit.New(t, registry.Options{}), registryhttp.Options{})
	s.add(registry.Provider[*registryhttp.Upstream]{Name: "a"}, long.URL, registryhttp.UpstreamOptions{})
	transport := s.transport()
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(ask(t, "http://client/"))
	require.NoError(t, err)
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, &sampled{Reader: response.Body, most: &most}, make([]byte, 1<<20))
	require.NoError(t, err)
	require.EqualValues(t, size, n)
	require.NoError(t, response.Body.Close())
	require.Less(t, most.Load(), before.HeapInuse+64<<20)
	s.requireCounts(0, 1, 0, 0, 0)
}

// sampled notes the memory in use every hundred reads.
type sampled struct {
	io.Reader

	reads int
	most  *atomic.Uint64
}

func (s *sampled) Read(p []byte) (int, error) {
	if s.reads++; s.reads%1000 == 0 {
		var now runtime.MemStats
		runtime.ReadMemStats(&now)
		s.most.Store(max(s.most.Load(), now.HeapInuse))
	}
	return s.Reader.Read(p)
}

func TestTransport_EndlessHeadersAreAFailure(t *testing.T) {
	t.Parallel()
	endlessHeader := rawServer(t, func(connection net.Conn) {
		_, _ = io.WriteString(connection, "HTTP/1.1 200 OK\r\n")
		for i := 0; ; i++ {
			if _, err := fmt.Fprintf(connection, "X-%d: %s\r\n", i, strings.Repeat("x", 1000)); err != nil {
				return
			}
		}
	})
	early := rawServer(t, func(connection net.Conn) {
		for {
			if _, err := io.WriteString(connection, "HTTP/1.1 103 Early Hints\r\n\r\n"); err != nil {
				return
			}
		}
	})
	fine := server(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "fine") })
	s := with(t, testkit.New(t, registry.Options{}), registryhttp.Options{})
	for i, url := range []string{endlessHeader, early, fine.URL} {
		s.add(registry.Provider[*registryhttp.Upstream]{Name: string(rune('a' + i))}, url, registryhttp.UpstreamOptions{})
	}
	transport := s.transport()
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(ask(t, "http://client/"))
	require.Equal(t, "fine", read(t, response, err))
	s.requireCounts(0, 0, 1, 0, 0)
	s.requireCounts(1, 0, 1, 0, 0)
}

// rawServer answers each connection by the function, after its first bytes, and returns its URL.
func rawServer(t *testing.T, respond func(net.Conn)) string {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer func() { _ = connection.Close() }()
				_, _ = connection.Read(make([]byte, 4096))
				respond(connection)
			})
		}
	})
	t.Cleanup(func() {
		require.NoError(t, listener.Close())
		running.Wait()
	})
	return "http://" + listener.Addr().String()
}

// faulty answers by chance: well, plain or in pieces, late, with a status, cut or not at all.
func faulty(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	flush := func() { _ = http.NewResponseController(w).Flush() }
	switch chance := rand.IntN(20); chance {
	case 0:
		panic(http.ErrAbortHandler)
	case 1:
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, strings.Repeat("wrong ", 2000))
	case 2:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadGateway)
		_, _ = io.WriteString(w, `{"error":{"code":"server_error"}}`)
	case 3: // cut before the first byte
		flush()
		panic(http.ErrAbortHandler)
	case 4: // cut behind it
		_, _ = io.WriteString(w, "begun ")
		flush()
		panic(http.ErrAbortHandler)
	case 5:
		select {
		case <-r.Context().Done():
		case <-time.After(50 * time.Millisecond):
		}
	case 6, 7, 8:
		for range 5 {
			_, _ = io.WriteString(w, "piece ")
			flush()
		}
	default:
		_, _ = w.Write(bytes.Repeat([]byte("answer "), chance*200))
	}
}

func TestTransport_LeavesNothingBehind(t *testing.T) {
	requests := 10_000
	if raceEnabled {
		requests = 2_000
	}
	before := goleak.IgnoreCurrent()
	reg := testkit.New(t, registry.Options{})
	s := with(t, reg, registryhttp.Options{Repeatable: all})
	var connections atomic.Int64
	closing := make([]func(), 0, 4)
	for i, h2 := range []bool{false, true, false} {
		upstream := httptest.NewUnstartedServer(http.HandlerFunc(faulty))
		upstream.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				connections.Add(1)
			case http.StateClosed:
				connections.Add(-1)
			default:
			}
		}
		upstream.EnableHTTP2 = h2
		if h2 {
			upstream.StartTLS()
		} else {
			upstream.Start()
		}
		closing = append(closing, upstream.Close)
		s.add(registry.Provider[*registryhttp.Upstream]{
			Name: string(rune('a' + i)), Breaker: registry.BreakerPolicy{FailureThreshold: 1 << 20}, Strategy: registry.StrategyRoundRobin,
		}, upstream.URL, registryhttp.UpstreamOptions{})
	}
	s.options.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 16}
	client := &http.Client{Transport: s.transport()}
	var answered, left atomic.Int64
	var workers sync.WaitGroup
	work := make(chan int)
	for range 16 {
		workers.Go(func() {
			for i := range work {
				if askOnce(t, client, i) {
					answered.Add(1)
				} else {
					left.Add(1)
				}
			}
		})
	}
	for i := range requests {
		work <- i
	}
	close(work)
	workers.Wait()
	t.Logf("%d answered, %d ended otherwise", answered.Load(), left.Load())
	require.Greater(t, answered.Load(), int64(requests/2))
	require.Greater(t, left.Load(), int64(requests/20))
	client.CloseIdleConnections()
	var attempts, outcomes uint64
	for _, p := range s.providers {
		info := p.Info()
		require.Zero(t, info.InFlight, "%s", info.Name)
		attempts += info.Attempts
		outcomes += info.Successes + info.Failures + info.Ignored + info.Limited
	}
	require.Equal(t, attempts, outcomes)
	require.NoError(t, reg.Close(context.Background()))
	require.Eventually(t, func() bool {
		client.CloseIdleConnections() // again: one whose last stream has just ended is not idle at once
		return connections.Load() == 0
	}, 30*time.Second, time.Millisecond, "connections")
	for _, end := range closing {
		end()
	}
	require.NoError(t, goleak.Find(before))
}

// askOnce sends one request, and leaves it early at times; it reports whether the answer was read to its end.
func askOnce(t *testing.T, client *http.Client, i int) bool {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if i%13 == 0 {
		time.AfterFunc(time.Duration(i%7)*100*time.Microsecond, cancel)
	}
	var body io.Reader = strings.NewReader("question")
	if i%2 == 0 {
		body = plainReader{body}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://client/", body)
	if err != nil {
		t.Errorf("request: %v", err)
		return false
	}
	response, err := client.Do(request)
	if err != nil {
		return false
	}
	defer func() { _ = response.Body.Close() }()
	if i%11 == 0 {
		return false
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err == nil
}
