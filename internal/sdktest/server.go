package sdktest

import (
	"context"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"time"
)

// patience is the time limit of a client whose server hangs.
const patience = 100 * time.Millisecond

const page = "<!DOCTYPE html><html><head><title>Bad gateway</title></head><body>Try again.</body></html>"

// server plays one fault to one client.
type server struct {
	*httptest.Server

	requests atomic.Int64
}

// answer is the response of a server, unless the connection fails before.
type answer struct {
	status int
	kind   string // of content
	header http.Header
	body   string
}

// startServer returns a server on loopback that plays the fault. Requests that are not the one that the fault is about,
// such as those that open a session, go to pass; nil for none.
func startServer(fault Fault, reply answer, pass func(http.ResponseWriter, *http.Request, []byte) bool) *server {
	s := &server{}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if pass != nil && pass(w, r, body) {
			return
		}
		s.requests.Add(1)
		play(w, r, fault.Trouble, reply)
	})
	if fault.Trouble == BadTLS {
		s.Server = httptest.NewUnstartedServer(handler)
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.StartTLS()
	} else {
		s.Server = httptest.NewServer(handler)
	}
	return s
}

func play(w http.ResponseWriter, r *http.Request, trouble Trouble, reply answer) {
	switch trouble {
	case Reset:
		reset(w)
		return
	case Hangs:
		<-r.Context().Done()
		return
	default:
	}
	maps.Copy(w.Header(), reply.header)
	w.Header().Set("Content-Type", reply.kind)
	if trouble == Cut {
		w.Header().Set("Content-Length", "4096")
		w.WriteHeader(reply.status)
		_, _ = io.WriteString(w, reply.body)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(reply.status)
	_, _ = io.WriteString(w, reply.body)
}

// reset ends the connection of a request with a reset, not an end.
func reset(w http.ResponseWriter) {
	connection, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := connection.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = connection.Close()
}

// unknownHost is a name that no server has; its answer comes from this machine.
const unknownHost = "models.invalid."

// resolver returns one whose server, on this machine, knows no name at all, and what ends that.
func resolver(ctx context.Context) (*net.Resolver, func(), error) {
	names, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		packet := make([]byte, 512)
		for {
			n, from, err := names.ReadFrom(packet)
			if err != nil {
				return
			}
			if n > 3 {
				packet[2], packet[3] = 0x81, 0x83 // an answer: there is no such name
				_, _ = names.WriteTo(packet[:n], from)
			}
		}
	}()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", names.LocalAddr().String())
	}
	return &net.Resolver{PreferGo: true, Dial: dial}, func() { _ = names.Close(); <-done }, nil
}

// silent is an address at which nothing listens. The port of a server that has ended could be another one's by now;
// this one is no server's by chance.
const silent = "127.0.0.1:1"

// place holds the address of a server and the means to reach it.
type place struct {
	url    string
	client *http.Client
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
}

// host is the address without a scheme.
func (p place) host() string {
	_, host, _ := strings.Cut(p.url, "://")
	return host
}

// placeOf returns the place of a server at the URL, as the fault wants it, and what frees it.
func placeOf(ctx context.Context, fault Fault, url string) (place, func(), error) {
	names, end, err := resolver(ctx)
	if err != nil {
		return place{}, nil, err
	}
	dialer := &net.Dialer{Resolver: names}
	transport := &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}
	p := place{url: url, client: &http.Client{Transport: transport}, dial: dialer.DialContext}
	if fault.Trouble == Hangs {
		transport.ResponseHeaderTimeout = patience // it counts from the end of the request, on a slow machine too
	}
	scheme, host, _ := strings.Cut(url, "://")
	switch fault.Trouble {
	case NoHost:
		_, port, _ := net.SplitHostPort(host)
		p.url = scheme + "://" + net.JoinHostPort(unknownHost, port)
	case Refused:
		p.url = scheme + "://" + silent
	default:
	}
	return p, func() { transport.CloseIdleConnections(); end() }, nil
}
