package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/probes"
	"github.com/capreg/registry/startup"
)

// part is a component of the platform: a server on a free port of loopback.
type part struct {
	name     string
	provides []string // unless set, its name
	needs    []startup.Need
	warmUp   time.Duration // from its start until it is well
	broken   error         // the error of its start, after that time
	register func(context.Context, *registry.Registry) (*registry.Registration, error)
	serve    http.HandlerFunc // at /ask

	address string
	server  *http.Server
	probe   health.Probe
	well    time.Time // from then on
}

func (p *part) component() registry.Component {
	c := registry.Component{
		Name: p.name, Provides: p.provides, Needs: p.needs, Start: p.start, Stop: p.stop,
		// The address, and so the probe, is not known before the start.
		Ready: func(ctx context.Context) error { return p.probe(ctx) },
	}
	if p.register != nil {
		c.Register = append(c.Register, p.register)
	}
	return c
}

func (p *part) url() string { return "http://" + p.address }

// start returns when the server listens, which is before it is well.
func (p *part) start(ctx context.Context, run *startup.Run) error {
	if p.broken != nil {
		timer := time.NewTimer(p.warmUp)
		defer timer.Stop()
		select {
		case <-timer.C:
			return p.broken
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p.address, p.well = listener.Addr().String(), time.Now().Add(p.warmUp)
	if p.probe, err = probes.HTTP(p.url()+"/health", probes.HTTPOptions{}); err != nil {
		return errors.Join(err, listener.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/health", p.health)
	if p.serve != nil {
		mux.HandleFunc("/ask", p.serve)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	p.server = server
	run.Go(func(context.Context) error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return nil
}

// stop lets the requests in progress end.
func (p *part) stop(ctx context.Context) error {
	if err := p.server.Shutdown(ctx); err != nil {
		return errors.Join(err, p.server.Close())
	}
	return nil
}

func (p *part) health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	status := `{"status": "ok"}`
	if time.Now().Before(p.well) {
		w.WriteHeader(http.StatusServiceUnavailable)
		status = `{"status": "starting"}`
	}
	_, _ = io.WriteString(w, status) // the client may be gone
}
