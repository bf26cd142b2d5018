package registry

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/verdict"
)

// Options configures a [Registry]. The zero value of each field is its default.
//
// The functions among the fields must be safe for concurrent use. They run in the
// goroutine of the operation that calls them, never under a lock of the registry.
type Options struct {
	// Logger and Slog receive one line for each event, with the same fields and levels: a warning where an operator may
	// want to act. Lines are written by a goroutine of the registry that exists only while there is something to log. A
	// logger that falls behind loses the oldest lines; the next line carries their number as "lost". Default: no logging.
	Logger *zap.Logger
	Slog   *slog.Logger
	// LogFailed writes a line for each call that fails: class, attempts, duration, caller, the correlation and trace of
	// registryhttp.WithMetadata, and LogValues. Of lines alike in service, provider and class, one in ten seconds is
	// written, with the others' number as "suppressed". While it is on, calls pay for their reports. Default: off.
	LogFailed bool
	// LogSlow writes such a line for each other call that takes at least so long. Default: 0, none.
	LogSlow time.Duration
	// LogValues returns what such a line has of the call's context. Default: nothing.
	LogValues func(ctx context.Context) []slog.Attr
	// Strategies are the strategies that configuration can name beside FALLBACK and
	// ROUND_ROBIN. Package selectors provides a list. Names must be unique.
	Strategies []selection.Strategy
	// Selection configures how groups are treated and what is measured, for every service without a policy of its
	// own ([Service.SetSelection]). Default: strict groups, nothing measured.
	Selection selection.Policy
	// Decisions is the number of latest picks in [Registry.Decisions], at most 1,048,576. Each costs 1 µs. Default: 0.
	Decisions int
	// Required lists the services that the program cannot do without. [Registry.WaitReady] waits for them when it is
	// called without names, and [Registry.Health] is unhealthy without one of them.
	Required []string
	// Classify recognises errors of every provider, after the classifiers of the
	// provider and of its service ([Service.Classify]) and before the built-in one.
	Classify verdict.Classifier
	// Admit, when set, is called before every registration takes effect. An error
	// refuses the registration and is returned wrapped; a panic counts as one.
	Admit func(ctx context.Context, d Definition) error
	// Authorize, when set, is called before every attempt and lease. An error keeps this caller away from the
	// provider ([ErrDenied]), and the call moves on to the next one; a panic counts as an error.
	Authorize func(ctx context.Context, caller, service, provider string) error
	// Hooks run around each call and lease, and around each of its attempts, as the first of all that
	// [Registry.AddHooks] adds. Default: none, and calls do not pay for them.
	Hooks Hooks
	// NoDurations leaves out what the durations of calls are for: the histograms of [Registry.Metrics] and
	// [Info.LastMinute]. Default: they are kept, which costs a call about a nanosecond; counts are always kept.
	NoDurations bool
	// ForbidMocks refuses a mock for a service that has real providers, and a real provider for a service that has
	// mocks. Default: mocks are picked after all real providers, whatever their group and priority.
	ForbidMocks bool
	// OnlyMocks registers real providers and never picks one. It is meant for tests
	// of programs that register real providers, and excludes ForbidMocks.
	OnlyMocks bool
	// PanicsAsErrors turns a panic of a call's function into a [verdict.PanicError] and moves the call on to the next
	// provider. Default: the panic is recorded and propagates to the caller.
	PanicsAsErrors bool
	// ProbeConcurrency limits the health probes that run at once. A probe that ignores
	// its context for too long no longer counts. Default: 32.
	ProbeConcurrency int
	// DrainTimeout is the time that calls in flight have left when their provider leaves; then their contexts are
	// cancelled. It holds for one that was replaced or whose lifetime has ended, and for one that became unhealthy,
	// where another can take over. Default: 30 s.
	DrainTimeout time.Duration
}

// checked returns a checked copy with its defaults filled in.
func (o Options) checked() (Options, error) {
	if v := (check.Range[time.Duration]{Default: 30 * time.Second}).Fill("DrainTimeout", &o.DrainTimeout); v != nil {
		return o, asFieldError("Options.", v)
	}
	if o.OnlyMocks && o.ForbidMocks {
		return o, invalid("Options.OnlyMocks", true, "false together with ForbidMocks")
	}
	o.Required = slices.Clone(o.Required)
	if v := cmp.Or(
		check.Range[time.Duration]{Zero: "none"}.Check("LogSlow", o.LogSlow),
		check.Range[int]{Default: 32}.Fill("ProbeConcurrency", &o.ProbeConcurrency),
		check.Names("Required", o.Required),
	); v != nil {
		return o, asFieldError("Options.", v)
	}
	if err := checkSelection("Options.Selection", o.Selection); err != nil {
		return o, err
	}
	return o, asFieldError("Options.", check.Range[int]{Zero: "none", Max: 1 << 20}.Check("Decisions", o.Decisions))
}
