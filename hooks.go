package registry

import (
	"context"

	"github.com/capreg/registry/internal/bus"
	"github.com/capreg/registry/internal/hook"
)

// Hooks are functions that run around calls: to measure, trace or record them. Each field may be nil. Use
// [Options.Hooks] for those of a registry that is being made, and [Registry.AddHooks] for any number of others.
//
// BeforeCall and AfterCall run around each call, which all leases that come from one another are together, and
// BeforeAttempt and AfterAttempt around each of its attempts. The context that a function before returns replaces the
// one it was given. It must be derived from that one and may only add values, such as correlation ids or a trace. The
// functions after get the context with all that was added for the call or the attempt. Each gets a copy of
// the report.
//
// Of several hooks, those before run in the order in which they were added, and those after in the reverse order, so
// that the first ones are around the others. A panic is recovered; it, and the end of the goroutine, keeps no other
// hook from running. Hooks run in the goroutine of the call, never under a lock, and must be safe for concurrent use.
// Calls do not pay for hooks while there are none, and for their reports while there are any. Skip, which is for hooks
// that see some calls only, reports whether the others are not run for one with that context, such as a request whose
// trace is not recorded; a call that all hooks skip costs little more than one without. It is asked once.
type Hooks struct {
	Skip          func(ctx context.Context) bool
	BeforeCall    func(ctx context.Context, r CallReport) context.Context
	AfterCall     func(ctx context.Context, r CallReport)
	BeforeAttempt func(ctx context.Context, r CallReport, a Attempt) context.Context
	AfterAttempt  func(ctx context.Context, r CallReport, a Attempt)
}

// AddHooks adds hooks behind those that there are: for observers of a registry that they did not create. They see
// every call and lease that begins from now on, from its beginning to its end, until remove is called. Once remove has
// returned, calls and leases skip them, also those in progress, unless they were about to run one at that moment. It may
// be called any number of times, also by a hook. The error matches [ErrInvalid].
func (r *Registry) AddHooks(hooks Hooks) (remove func(), err error) {
	if !r.made() {
		return nil, errNotMade()
	}
	set := hook.Set[CallReport, Attempt](hooks)
	if set.Empty() {
		return nil, invalid("hooks", raw("empty"), "at least one function")
	}
	return r.hooks.Add(set), nil
}

// addCallLog adds the hook that writes lines about calls, if the options ask for them.
func (r *Registry) addCallLog() {
	o := &r.options
	if o.Logger == nil && o.Slog == nil || !o.LogFailed && o.LogSlow == 0 {
		return
	}
	r.hooks.Add(hook.Set[CallReport, Attempt]{AfterCall: func(ctx context.Context, report CallReport) {
		if report.Err == nil && (o.LogSlow == 0 || report.Duration < o.LogSlow) || report.Err != nil && !o.LogFailed {
			return
		}
		line := bus.Call{
			Service: report.Service, Attempts: len(report.Attempts), Duration: report.Duration, Err: report.Err,
			Caller: report.Caller, Context: ctx, Values: o.LogValues,
		}
		if n := len(report.Attempts); n > 0 {
			line.Provider, line.Class = report.Attempts[n-1].Provider, report.Attempts[n-1].Class
		}
		r.bus.LogCall(&line)
	}})
}
