package probes_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/probes"
)

// The kinds of client: none given, one of the user with an http.Transport, one without (that is http.DefaultTransport).
// The versions: HTTP/1.1 and HTTP/2. A kept connection may hide that new callers are refused, may be dead, and may be
// closed by the server just when a POST is sent.

func TestHTTP_HasANewConnectionForEachProbe(t *testing.T) {
	t.Parallel()
	for name, client := range map[string]*http.Client{"none": nil, "own": {Transport: &http.Transport{}}, "usual": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var connections atomic.Int32
			server := httptest.NewUnstartedServer(answer(200, "application/json", `{"status":"ok"}`))
			server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				if state == http.StateNew {
					connections.Add(1)
				}
			}
			server.Start()
			t.Cleanup(server.Close)
			probe := probeOf(t, server.URL, probes.HTTPOptions{Method: http.MethodPost, Client: client})
			for range 5 {
				require.NoError(t, probe(t.Context()))
			}
			require.EqualValues(t, 5, connections.Load())
		})
	}
}

func TestHTTP_KeptConnectionHidesNoDeadListener(t *testing.T) {
	t.Parallel()
	for name, client := range map[string]*http.Client{"none": nil, "own": {Transport: &http.Transport{}}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
			require.NoError(t, err)
			server := &http.Server{Handler: answer(200, "", ""), ReadHeaderTimeout: time.Minute}
			go func() { _ = server.Serve(listener) }()
			t.Cleanup(func() { _ = server.Close() })
			probe := probeOf(t, "http://"+listener.Addr().String(), probes.HTTPOptions{Client: client})
			require.NoError(t, probe(t.Context()))
			require.NoError(t, listener.Close())
			for range 3 {
				require.Error(t, probe(t.Context()), "every new caller is refused")
			}
		})
	}
}

// forgetful is a firewall that can forget the connections it has: they stay open, and nothing gets through.
type forgetful struct {
	net.Listener
	target    string
	forgotten atomic.Int32 // how many of the first connections
}

func (f *forgetful) run() {
	for n := int32(1); ; n++ {
		in, err := f.Accept()
		if err != nil {
			return
		}
		out, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", f.target)
		if err != nil {
			_ = in.Close()
			continue
		}
		pipe := func(to, from net.Conn) {
			defer func() { _ = to.Close() }()
			_, _ = io.Copy(writes(func(p []byte) (int, error) {
				if f.forgotten.Load() >= n {
					return len(p), nil
				}
				return to.Write(p)
			}), from)
		}
		go pipe(in, out)
		go pipe(out, in)
	}
}

type writes func(p []byte) (int, error)

func (w writes) Write(p []byte) (int, error) { return w(p) }

func TestHTTP_DeadConnectionKeepsNoSoundServerIll(t *testing.T) {
	t.Parallel()
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewUnstartedServer(answer(200, "", ""))
			server.EnableHTTP2 = http2
			server.StartTLS()
			t.Cleanup(server.Close)
			listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
			require.NoError(t, err)
			firewall := &forgetful{Listener: listener, target: server.Listener.Addr().String()}
			go firewall.run()
			t.Cleanup(func() { _ = listener.Close() })
			probe := probeOf(t, "https://"+listener.Addr().String(), probes.HTTPOptions{Client: server.Client()})
			require.NoError(t, probe(t.Context()))
			firewall.forgotten.Store(1) // new connections work
			for range 3 {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				require.NoError(t, probe(ctx))
				cancel()
			}
		})
	}
}
