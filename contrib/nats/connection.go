package registrynats

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/startup"
)

const longestFlush = 10 * time.Second

// Probe returns a probe of a connection: it is healthy when the server answers a ping. It is for
// [registry.Provider.Health] and [registry.Component.Ready].
func Probe(nc *nats.Conn) health.Probe {
	return func(ctx context.Context) error {
		if status := nc.Status(); status != nats.CONNECTED {
			return fmt.Errorf("registrynats: the connection is %s", strings.ToLower(status.String()))
		}
		within, cancel := context.WithTimeout(ctx, longestFlush)
		defer cancel()
		if err := nc.FlushWithContext(within); err != nil {
			return fmt.Errorf("registrynats: the server does not answer: %w", err)
		}
		return nil
	}
}

// Component returns a component that is ready when the connection is, so that others can need it, and fails when it is closed. It
// neither opens nor closes the connection, and can be changed before it is used.
func Component(name string, nc *nats.Conn) registry.Component {
	return registry.Component{
		Name: name, Kind: "nats", Description: "the connection to NATS", Ready: Probe(nc),
		Start: func(_ context.Context, run *startup.Run) error {
			run.Go(func(ctx context.Context) error {
				closed := nc.StatusChanged(nats.CLOSED)
				defer nc.RemoveStatusListener(closed)
				if nc.IsClosed() {
					return fmt.Errorf("registrynats: %w", nats.ErrConnectionClosed)
				}
				select {
				case <-ctx.Done():
					return nil
				case <-closed:
					return fmt.Errorf("registrynats: %w", nats.ErrConnectionClosed)
				}
			})
			return nil
		},
	}
}

// PublishEvents publishes each event of the registry that one of the filters accepts, or all without any, as JSON on the subject
// followed by a dot and the kind of the event, until ctx ends or the registry is closed: then it returns the error of ctx or one
// that matches [registry.ErrClosed]. Events are told at most once: those that come while the connection is away are dropped, as are
// those that come faster than they can be sent, which the next one counts ([event.Event.Lost]). Where
// the subject is not permitted, it returns a [PermissionError] with the event after that.
func PublishEvents(ctx context.Context, nc *nats.Conn, reg *registry.Registry, subject string, filters ...event.Filter) error {
	if ctx == nil || nc == nil || reg == nil || subject == "" || strings.ContainsAny(subject, " \t\r\n*>") {
		return fmt.Errorf("registrynats: PublishEvents needs a context, a connection, a registry and a subject without wildcards: %w", registry.ErrInvalid)
	}
	events := reg.Subscribe(0, filters...)
	defer events.Close()
	lost := uint64(0)
	trying := try(nc, "publish events", func(of string) bool { return strings.HasPrefix(of, subject+".") })
	for {
		e, err := events.Next(ctx)
		if err != nil {
			return fmt.Errorf("registrynats: %w", err)
		}
		if err := trying.refused(); err != nil {
			return err
		}
		e.Lost += lost
		text, err := json.Marshal(e)
		if err == nil {
			err = nc.Publish(subject+"."+string(e.Kind), text)
		}
		if lost = 0; err != nil {
			lost = e.Lost + 1
		}
	}
}
