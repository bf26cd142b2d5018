package admin_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin"
)

// pipes is a listener without a network, so that its connections work in a bubble.
type pipes struct {
	connections chan net.Conn
	closed      chan struct{}
	close       func()
}

func newPipes() *pipes {
	p := &pipes{connections: make(chan net.Conn), closed: make(chan struct{})}
	p.close = sync.OnceFunc(func() { close(p.closed) })
	return p
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.connections:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.close(); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// dial returns the client's end of a new connection.
func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.connections <- server:
		return client, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// bubble is a registry with its handler behind a server, in a bubble.
type bubble struct {
	t       *testing.T
	reg     *registry.Registry
	handler *admin.Handler
	server  *http.Server
	pipes   *pipes
	client  *http.Transport
}

// inBubble runs a test with a server in a bubble, whose time passes as needed.
func inBubble(t *testing.T, options admin.Options, test func(b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		reg, err := registry.New(registry.Options{})
		require.NoError(t, err)
		add(t, reg, chat, registry.Provider[call]{Name: "a"})
		handler, err := admin.New(reg, options)
		require.NoError(t, err)
		b := &bubble{t: t, reg: reg, handler: handler, server: &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}, pipes: newPipes()}
		b.client = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return b.pipes.dial(ctx) }}
		served := make(chan error, 1)
		go func() { served <- b.server.Serve(b.pipes) }()
		test(b)
		b.client.CloseIdleConnections()
		require.NoError(t, b.server.Close())
		require.ErrorIs(t, <-served, http.ErrServerClosed)
		handler.Close()
		require.NoError(t, reg.Close(context.Background()))
	})
}

// events is an open stream.
type events struct {
	t       *testing.T
	answer  *http.Response
	scanner *bufio.Scanner
	cancel  context.CancelFunc
}

func (b *bubble) follow(lastID string) *events {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/v1/runtime/events", http.NoBody)
	require.NoError(b.t, err)
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	answer, err := b.client.RoundTrip(r) //nolint:bodyclose // by close
	require.NoError(b.t, err)
	return &events{b.t, answer, bufio.NewScanner(answer.Body), cancel}
}

// next returns the next event with its identifier; ok is false at the end of the stream.
func (e *events) next() (id, kind, data string, ok bool) {
	e.t.Helper()
	for e.scanner.Scan() {
		line := e.scanner.Text()
		switch name, value, _ := strings.Cut(line, ": "); name {
		case "id":
			id = value
		case "event":
			kind = value
		case "data":
			data = value
		case "":
			if data != "" {
				return id, kind, data, true
			}
		}
	}
	return "", "", "", false
}

func (e *events) close() {
	e.t.Helper()
	e.cancel()
	require.NoError(e.t, e.answer.Body.Close())
}

func (b *bubble) change(n int) {
	b.t.Helper()
	handle := b.reg.Registrations()[0]
	for i := range n {
		_, err := handle.SetWeight(float64(i + 2))
		require.NoError(b.t, err)
	}
	synctest.Wait()
}

func TestEvents_GoOnAfterTheLastOneThatWasRead(t *testing.T) {
	t.Parallel()
	inBubble(t, admin.Options{Events: 5}, func(b *bubble) {
		first := b.follow("")
		require.Equal(b.t, "text/event-stream", first.answer.Header.Get("Content-Type"))
		require.Equal(b.t, "no", first.answer.Header.Get("X-Accel-Buffering"))
		b.change(2)
		id, kind, data, ok := first.next()
		require.True(b.t, ok)
		require.Equal(b.t, "registry", kind)
		require.Contains(b.t, data, `"kind":"changed"`)
		require.Contains(b.t, data, `"to":"2"`)
		first.close()

		second := b.follow(id)
		_, _, data, ok = second.next()
		require.True(b.t, ok)
		require.Contains(b.t, data, `"to":"3"`, "the one that came after it")
		second.close()

		b.change(20)
		third := b.follow(id)
		_, kind, data, ok = third.next()
		require.True(b.t, ok)
		require.Equal(b.t, "lost", kind)
		require.NotEqual(b.t, "0", data)
		third.close()

		other := b.follow("another-7") // of another process
		_, kind, _, ok = other.next()
		require.True(b.t, ok)
		require.Equal(b.t, "registry", kind, "it begins with the oldest that there is")
		other.close()
	})
}

func TestEvents_SignsOfLifeAreSentWithoutEvents(t *testing.T) {
	t.Parallel()
	inBubble(t, admin.Options{}, func(b *bubble) {
		began := time.Now()
		stream := b.follow("")
		for stream.scanner.Scan() && stream.scanner.Text() != ": still here" {
		}
		require.Equal(b.t, 15*time.Second, time.Since(began))
		stream.close()
	})
}

// A client that does not take what is written to it is dropped, and costs no other one anything.
func TestEvents_SlowClientIsDropped(t *testing.T) {
	t.Parallel()
	inBubble(t, admin.Options{}, func(b *bubble) {
		slow, err := b.pipes.dial(b.t.Context())
		require.NoError(b.t, err)
		_, err = fmt.Fprint(slow, "GET /v1/runtime/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
		require.NoError(b.t, err)
		began := time.Now()
		synctest.Wait() // the head of the answer is written, and nothing reads it
		fast := b.follow("")
		b.change(1)
		_, _, _, ok := fast.next()
		require.True(b.t, ok)
		require.Less(b.t, time.Since(began), time.Second)
		fast.close()
		time.Sleep(11 * time.Second)
		synctest.Wait()
		_, err = io.Copy(io.Discard, slow) // returns: the server has closed the connection
		require.NoError(b.t, err)
		require.NoError(b.t, slow.Close())
	})
}

func TestEvents_StreamsAreBounded(t *testing.T) {
	t.Parallel()
	inBubble(t, admin.Options{Streams: 2}, func(b *bubble) {
		first, second := b.follow(""), b.follow("")
		refused := b.follow("")
		require.Equal(b.t, http.StatusServiceUnavailable, refused.answer.StatusCode)
		require.Equal(b.t, "10", refused.answer.Header.Get("Retry-After"))
		refused.close()
		first.close()
		synctest.Wait()
		third := b.follow("")
		require.Equal(b.t, http.StatusOK, third.answer.StatusCode)
		third.close()
		second.close()
		for range 3 {
			r, err := http.NewRequestWithContext(b.t.Context(), http.MethodHead, "http://localhost/v1/runtime/events", http.NoBody)
			require.NoError(b.t, err)
			answer, err := b.client.RoundTrip(r)
			require.NoError(b.t, err)
			require.Equal(b.t, http.StatusOK, answer.StatusCode, "the head of a stream holds none")
			require.NoError(b.t, answer.Body.Close())
		}
	})
}

func TestEvents_DoNotHoldUpShutdown(t *testing.T) {
	t.Parallel()
	inBubble(t, admin.Options{}, func(b *bubble) {
		streams := []*events{b.follow(""), b.follow("")}
		began := time.Now()
		ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
		defer cancel()
		require.NoError(b.t, b.server.Shutdown(ctx))
		require.LessOrEqual(b.t, time.Since(began), 2*time.Second, "also with clients that read nothing")
		for _, stream := range streams {
			_, _, _, ok := stream.next()
			require.False(b.t, ok, "the stream has ended")
			stream.close()
		}
		require.NoError(b.t, b.server.Shutdown(ctx), "a second time")
	})
}

func TestEvents_EndWithTheHandlerAndWithTheRegistry(t *testing.T) {
	t.Parallel()
	inBubble(t, admin.Options{}, func(b *bubble) {
		stream := b.follow("")
		b.handler.Close()
		_, _, _, ok := stream.next()
		require.False(b.t, ok)
		stream.close()
		refused := b.follow("")
		require.Equal(b.t, http.StatusServiceUnavailable, refused.answer.StatusCode)
		refused.close()
	})
	inBubble(t, admin.Options{}, func(b *bubble) {
		stream := b.follow("")
		require.NoError(b.t, b.reg.Close(b.t.Context()))
		last := ""
		for _, _, data, ok := stream.next(); ok; _, _, data, ok = stream.next() {
			last = data
		}
		require.Contains(b.t, last, `"kind":"closed"`)
		stream.close()
	})
}

// plain is a writer that can do nothing but write.
type plain struct{ http.ResponseWriter }

func TestEvents_AreRefusedWhereTheServerCannotStream(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{})
	recorder := httptest.NewRecorder()
	s.handler.ServeHTTP(plain{recorder}, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/v1/runtime/events", http.NoBody))
	require.Equal(t, http.StatusNotImplemented, recorder.Code)
	require.Equal(t, "application/problem+json", recorder.Header().Get("Content-Type"))
}
