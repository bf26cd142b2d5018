package registryotel

import (
	"go.opentelemetry.io/otel/log"

	"github.com/capreg/registry/event"
)

// RecordOf returns the name and the severity of the record of an event of that kind.
func RecordOf(kind event.Kind) (name string, severity log.Severity) {
	r := recordOf(event.Event{Kind: kind}, nameOf(kind), severityOf(kind))
	return r.EventName(), r.Severity()
}
