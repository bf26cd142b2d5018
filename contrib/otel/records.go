package registryotel

import (
	"context"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/bus"
	"github.com/capreg/registry/internal/fault"
)

// The attributes of log records: the fields of [event.Event].
const (
	keySequence = attribute.Key("registry.event.sequence")
	keyFrom     = attribute.Key("registry.event.from")
	keyTo       = attribute.Key("registry.event.to")
	keyReason   = attribute.Key("registry.event.reason")
	keyUntil    = attribute.Key("registry.event.until")
	keyError    = attribute.Key("registry.event.error")
	keyLost     = attribute.Key("registry.event.lost")
)

// records emits the events of a registry as log records.
type records struct {
	logger log.Logger
	from   *registry.Subscription
}

// emit emits events until there are no more. A logger that panics loses the record.
func (r *records) emit() {
	for e := range r.from.All(context.Background()) {
		_ = fault.Run(func() error {
			severity := severityOf(e.Kind)
			if name := nameOf(e.Kind); r.logger.Enabled(context.Background(), log.EnabledParameters{Severity: severity, EventName: name}) {
				r.logger.Emit(context.Background(), recordOf(e, name, severity))
			}
			return nil
		})
	}
}

func nameOf(kind event.Kind) string { return "registry." + string(kind) }

// severityOf returns the severity of a kind of event: its level in the log of the registry.
func severityOf(kind event.Kind) log.Severity {
	if level, known := bus.LevelOf(kind); !known || level >= slog.LevelWarn {
		return log.SeverityWarn
	}
	return log.SeverityInfo
}

func recordOf(e event.Event, name string, severity log.Severity) log.Record {
	var r log.Record
	r.SetEventName(name)
	r.SetTimestamp(e.Time)
	r.SetSeverity(severity)
	r.SetSeverityText(severity.String())
	r.SetBody(attribute.StringValue("registry " + string(e.Kind)))
	r.AddAttributes(filled(
		keyService.String(e.Service), keyProvider.String(e.Provider), keyFrom.String(e.From), keyTo.String(e.To),
		keyReason.String(e.Reason), keyError.String(textOf(e.Err)),
	)...)
	r.AddAttributes(keySequence.Int64(int64(e.Sequence))) //nolint:gosec // a number of events
	if !e.Until.IsZero() {
		r.AddAttributes(keyUntil.String(e.Until.Format(time.RFC3339Nano)))
	}
	if e.Lost > 0 {
		r.AddAttributes(keyLost.Int64(int64(e.Lost))) //nolint:gosec // a number of events
	}
	return r
}
