// This file shows the runtime to an operator: a console for browsers and a control API, while faults come and go.

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin"
	"github.com/capreg/registry/admin/action"
	"github.com/capreg/registry/examples/internal/loopback"
	"github.com/capreg/registry/registryhttp"
)

// serveConsole serves the console and the control API at the address, until stop is called.
func serveConsole(ctx context.Context, reg *registry.Registry, address string, s *screen) (stop func() error, err error) {
	handler, err := admin.New(reg, admin.Options{Authorize: thisMachine})
	if err != nil {
		return nil, err
	}
	url, end, err := serveAt(ctx, handler, address)
	if err != nil {
		handler.Close()
		return nil, err
	}
	s.line("console   " + url + "/")
	return func() error {
		handler.Close()
		return end()
	}, nil
}

// serveAll serves metrics and console at their addresses, those that are not empty.
func serveAll(ctx context.Context, reg *registry.Registry, s *screen, metrics, console string) (stop func() error, err error) {
	var stops []func() error
	stop = func() (err error) {
		for _, each := range stops {
			err = errors.Join(err, each())
		}
		return err
	}
	for _, served := range []struct {
		address string
		serve   func(context.Context, *registry.Registry, string, *screen) (func() error, error)
	}{{metrics, serveMetrics}, {console, serveConsole}} {
		if served.address == "" {
			continue
		}
		each, err := served.serve(ctx, reg, served.address, s)
		if err != nil {
			return nil, errors.Join(err, stop())
		}
		stops = append(stops, each)
	}
	return stop, nil
}

// thisMachine lets those of this machine do everything and the others nothing. Programs that others can reach use
// admin.Tokens instead, and so do those behind a proxy, which is of this machine, too.
func thisMachine(r *http.Request, _ action.Action) (actor string, err error) {
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !remote.Addr().Unmap().IsLoopback() {
		return "", errors.New("only from this machine")
	}
	return "operator", nil
}

// serveAt serves a handler at an address, until stop is called.
func serveAt(ctx context.Context, handler http.Handler, address string) (url string, stop func() error, err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- registryhttp.Serve(serving, server, listener, time.Second) }()
	return "http://" + listener.Addr().String(), func() error {
		end()
		return <-ended
	}, nil
}

const (
	chaosPace  = 200 * time.Millisecond // from one question to the next
	chaosFault = 25                     // questions from one fault to the next
	chaosMend  = 60                     // questions until what has failed works again
	chaosKept  = 1000                   // questions that differ, so that the memory stays small
)

// chaos asks questions until ctx ends, while one server after another fails and is mended. Answers may be lost: at times
// all servers fail together.
func (a *agent) chaos(ctx context.Context) error {
	if a.backends.real {
		return errors.New("-chaos makes servers fail: it is for those of this program, without keys of real ones")
	}
	tick := time.NewTicker(chaosPace)
	defer tick.Stop()
	failing := make(map[string]int) // the question before which a server is mended
	for n := 0; ctx.Err() == nil; n++ {
		if err := a.disturb(n, failing); err != nil {
			return err
		}
		if err := a.inbox.Put(ctx, a.question(n%chaosKept)); err != nil {
			break
		}
		if _, err := a.turn(ctx, manner{streamed: n%3 == 2}); err != nil && ctx.Err() == nil {
			a.screen.line("lost      " + err.Error())
		}
		pause(ctx, tick)
	}
	return nil
}

// disturb mends the servers whose time has come, and makes another one fail now and then.
func (a *agent) disturb(n int, failing map[string]int) error {
	for name, until := range failing {
		if n >= until {
			a.screen.line("chaos     " + name + " has recovered")
			delete(failing, name)
			server := a.backends.server(name)
			server.Behave(loopback.Behaviour{})
			if err := server.Listen(); err != nil {
				return err
			}
		}
	}
	if n%chaosFault != chaosFault-1 {
		return nil
	}
	name := a.backends.models[rand.IntN(len(a.backends.models))].name //nolint:gosec // any will do
	behaviours := []loopback.Behaviour{
		{Status: http.StatusInternalServerError}, {Hang: true}, {CutStreams: true}, {Status: http.StatusTooManyRequests, RetryAfter: 5 * time.Second},
	}
	failing[name] = n + chaosMend
	if kind := rand.IntN(len(behaviours) + 1); kind < len(behaviours) { //nolint:gosec // any will do
		a.screen.line(fmt.Sprintf("chaos     %s fails: %s", name, []string{"500", "it hangs", "it cuts streams", "429, Retry-After 5 s"}[kind]))
		a.backends.server(name).Behave(behaviours[kind])
		return nil
	}
	a.screen.line("chaos     " + name + " refuses connections")
	a.backends.server(name).Refuse()
	return nil
}
