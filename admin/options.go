package admin

import (
	"cmp"
	"fmt"
	"math"
	"net"
	"net/http"
	"strings"

	"go.uber.org/zap"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin/action"
	"github.com/capreg/registry/admin/internal/control"
)

// Options configures a Handler. The zero value of each field is its default.
type Options struct {
	// Authorize decides about each request, reads included: it returns the name of the actor, for the audit, or an error.
	// [action.ErrUnauthenticated] asks for credentials (401), every other error is a refusal (403), and so is a panic. It
	// runs in the goroutine of the request and must be safe for concurrent use; r is not to be read from. [Tokens] makes
	// one. Default: everything can be read, and nothing changed.
	Authorize func(r *http.Request, a action.Action) (actor string, err error)
	// Hosts are the host names under which the handler is reached, without ports, in lower case; "*" stands for any.
	// Requests for other names are refused, so that no web page can reach the handler by a name of its own (DNS
	// rebinding). IP addresses and localhost are always allowed. Default: no other names.
	Hosts []string
	// TrustedOrigins are other origins whose pages may make changes, such as "https://ops.example". Default: none.
	TrustedOrigins []string

	// Orchestrator is that of the program, to be looked at and to restart components of. Default: none.
	Orchestrator *registry.Orchestrator
	// Configuration manages documents; package configured makes one of a config.Manager. Default: none.
	Configuration Configuration
	// Fleet shows the processes that offer providers to each other; package federated makes one. Default: none.
	Fleet Fleet

	// Logger gets one line for each change, a warning for one that was refused or has failed. Default: no logging.
	Logger *zap.Logger
	// Audit is called with the record of each change, refused ones included, in the goroutine of the request. It must be
	// safe for concurrent use. Default: none; the latest records can be read in any case.
	Audit func(action.Record)

	// Events is the number of the latest events and records that can be read again, at most 100,000. Default: 1,000.
	Events int
	// Streams bounds the streams of events that are open at once; another one is refused (503). Default: 32.
	Streams int
	// ChangesPerSecond and ChangesAtOnce bound the changes of each actor, and the refused ones of each address; those
	// beyond are refused (429). Defaults: 10 and 20.
	ChangesPerSecond float64
	ChangesAtOnce    int
	// MaxDocument bounds a document of configuration, in bytes. Other bodies have at most 64 KiB. Default: 1 MiB.
	MaxDocument int64
}

// Configuration is the manager of the program's documents. Texts are YAML or JSON. It must be safe for concurrent use.
type Configuration = control.Configuration

// Fleet shows the processes that offer providers to each other, as this one sees them. It must be safe for concurrent use.
type Fleet = control.Fleet

// FleetView is the content of a [Fleet]: the store that the processes meet in, and the processes.
type FleetView = control.FleetView

// Announcement has the news of this process for the others, in a [FleetView].
type Announcement = control.Announcement

// FleetNode is one process of a [FleetView].
type FleetNode = control.FleetNode

// FleetOffer is a provider that a [FleetNode] announces, and what became of it here.
type FleetOffer = control.FleetOffer

// DocumentProblem is one thing that is wrong with a document, as a [Configuration] finds it.
type DocumentProblem = control.DocumentProblem

// ProblemsError is the error of a [Configuration] for a document that is refused.
type ProblemsError = control.ProblemsError

// Bounds of options.
const (
	mostEvents     = 100_000
	mostStreams    = 100_000
	longestBody    = 64 << 10
	defaultEvents  = 1000
	defaultStreams = 32
	defaultRate    = 10
	defaultBurst   = 20
	defaultText    = 1 << 20
)

// withDefaults returns the options with their defaults, or an error that names what is out of bounds.
func (o Options) withDefaults() (Options, error) {
	refuse := func(field string, value any, bound string) error {
		return &registry.FieldError{Field: "Options." + field, Value: fmt.Sprint(value), Bound: bound, Err: registry.ErrInvalid}
	}
	switch {
	case o.Events < 0 || o.Events > mostEvents:
		return o, refuse("Events", o.Events, fmt.Sprintf("0 (%d) to %d", defaultEvents, mostEvents))
	case o.Streams < 0 || o.Streams > mostStreams:
		return o, refuse("Streams", o.Streams, fmt.Sprintf("0 (%d) to %d", defaultStreams, mostStreams))
	case o.ChangesPerSecond < 0 || math.IsNaN(o.ChangesPerSecond) || math.IsInf(o.ChangesPerSecond, 0):
		return o, refuse("ChangesPerSecond", o.ChangesPerSecond, fmt.Sprintf("0 (%d) or more", defaultRate))
	case o.ChangesAtOnce < 0:
		return o, refuse("ChangesAtOnce", o.ChangesAtOnce, fmt.Sprintf("0 (%d) or more", defaultBurst))
	case o.MaxDocument < 0:
		return o, refuse("MaxDocument", o.MaxDocument, fmt.Sprintf("0 (%d) or more", defaultText))
	}
	for i, host := range o.Hosts {
		if host != "*" && (host == "" || host != strings.ToLower(host) || strings.ContainsAny(host, ":/ \t\r\n*") || net.ParseIP(host) != nil) {
			return o, refuse(fmt.Sprintf("Hosts[%d]", i), host, `a host name in lower case without a port, or "*"`)
		}
	}
	o.Events = cmp.Or(o.Events, defaultEvents)
	o.Streams = cmp.Or(o.Streams, defaultStreams)
	o.ChangesPerSecond = cmp.Or(o.ChangesPerSecond, defaultRate)
	o.ChangesAtOnce = cmp.Or(o.ChangesAtOnce, defaultBurst)
	o.MaxDocument = cmp.Or(o.MaxDocument, defaultText)
	return o, nil
}
