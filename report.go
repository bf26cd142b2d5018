package registry

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/verdict"
)

// Attempt is one try of a call on one provider.
type Attempt struct {
	// Provider is who was asked.
	Provider string `json:"provider"`
	// Why is the reason of its selection: "first", "failover", "retry",
	// "queued" (for a place), "waited" (for the end of a cooldown), "many" (all
	// were asked) or "last resort".
	Why string `json:"why"`
	// Trial says that its breaker was half-open.
	Trial bool `json:"trial,omitempty"`
	// Class is what the outcome means.
	Class verdict.Class `json:"class"`
	// Delay is how long the call had slept or queued before it.
	Delay time.Duration `json:"delay,omitempty"`
	// Duration is how long the attempt ran.
	Duration time.Duration `json:"duration"`
	// Err is what the function returned.
	Err error `json:"-"`
}

// MarshalJSON adds the text of Err, as "error".
func (a Attempt) MarshalJSON() ([]byte, error) {
	type plain Attempt
	return json.Marshal(struct {
		plain

		Error string `json:"error,omitempty"`
	}{plain(a), textOf(a.Err)})
}

// Reasons of a selection.
const (
	whyFirst      = "first"
	whyFailover   = "failover"
	whyRetry      = "retry"
	whyQueued     = "queued"
	whyWaited     = "waited"
	whyMany       = "many"
	whyLastResort = "last resort"
)

// CallReport is what happened in one call, or in the leases of one: asked for with
// [ReportTo], and given to the hooks of [Options]. In JSON, as everywhere in this
// package, durations are numbers of nanoseconds.
type CallReport struct {
	// Service is what was called, and Handler by whom, as the query says.
	Service string `json:"service"`
	Handler string `json:"handler,omitempty"`
	// Caller is who is answerable for it; see [Caller].
	Caller string `json:"caller,omitempty"`
	// Attempts are the tries so far, the successful one included, in order.
	Attempts []Attempt `json:"attempts"`
	// Skipped are the providers that were not entered and could not have been,
	// or not for this call, with the reason. It is filled in at the end.
	Skipped []Candidate `json:"skipped,omitempty"`
	// Duration is how long it took in all. It is filled in at the end.
	Duration time.Duration `json:"duration"`
	// Err is the error of the call, at its end.
	Err error `json:"-"`
}

// MarshalJSON adds the text of Err, as "error".
func (r CallReport) MarshalJSON() ([]byte, error) {
	type plain CallReport
	return json.Marshal(struct {
		plain

		Error string `json:"error,omitempty"`
	}{plain(r), textOf(r.Err)})
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return fault.Text(err)
}

// ReportTo has the report of the call written to r when the call returns; for a
// lease, when it is reported or expires. r must not be read before.
func ReportTo(r *CallReport) CallOption { return CallOption{report: r} }

// Caller names who is answerable for the call: rates of [LimitPolicy] are counted
// and [Options.Authorize] decides for each caller. Default: the query's handler.
func Caller(name string) CallOption { return CallOption{caller: name} }

// IdempotencyKey returns a random key that is the same in every attempt of one
// call, for servers that recognise a request they have seen. ctx is the context
// that the function of a [Call] was given, or that of a lease; any other context,
// and those of attempts with [NoTimeout], have none: the result is empty.
func IdempotencyKey(ctx context.Context) string {
	return attemptctx.IdempotencyKey(ctx)
}

// reportSoFar returns what is known of the call.
func (c *call) reportSoFar() CallReport { return c.reportOf(c.ran) }

// reportOf returns a report with a copy of the attempts: hooks may write to it.
func (c *call) reportOf(attempts []Attempt) CallReport {
	return CallReport{
		Service: c.slot.service.name, Handler: c.slot.query.Handler, Caller: c.options.caller,
		Attempts: append([]Attempt{}, attempts...),
	}
}

// beforeCall runs the hook that may change the caller's context.
func (c *call) beforeCall(ctx context.Context) context.Context {
	hook := c.slot.service.registry.options.BeforeCall
	if hook == nil {
		return ctx
	}
	changed := ctx
	_ = fault.Run(func() error { changed = hook(ctx, c.reportSoFar()); return nil }) //nolint:fatcontext // once
	if changed == nil {
		return ctx
	}
	return changed
}

// beforeAttempt runs the hook that may change the context of the function.
func (c *call) beforeAttempt() {
	hook := c.slot.service.registry.options.BeforeAttempt
	if hook == nil {
		return
	}
	ctx := c.attempt.ctx
	changed := ctx
	c.hooking = true
	_ = fault.Run(func() error { changed = hook(ctx, c.reportSoFar(), c.present()); return nil }) //nolint:fatcontext // once
	c.hooking = false
	if changed != nil {
		c.attempt.ctx = changed //nolint:fatcontext // once for each attempt
	}
}

// present describes the attempt in progress.
func (c *call) present() Attempt {
	return Attempt{Provider: c.attempt.provider.name(), Why: c.why, Trial: c.attempt.trial, Delay: c.delay}
}

// record notes the outcome of the attempt and tells the hook.
func (c *call) record(class verdict.Class, elapsed time.Duration, err error) {
	ended := c.present()
	ended.Class, ended.Duration, ended.Err = class, elapsed, err
	c.add(ended, c.attempt.ended)
	c.delay = 0
	if c.observed {
		c.tellAttempt(c.attempt.ctx, c.reportSoFar(), ended)
	}
}

// tellAttempt tells the hook of an attempt that has ended.
func (c *call) tellAttempt(ctx context.Context, report CallReport, ended Attempt) {
	if hook := c.slot.service.registry.options.AfterAttempt; hook != nil {
		_ = fault.Run(func() error { hook(ctx, report, ended); return nil })
	}
}

// finish makes the report, when somebody wants it.
func (c *call) finish(err error) {
	if !c.observed {
		return
	}
	report := c.reportSoFar()
	report.Err = err
	report.Duration = c.slot.service.registry.now() - c.began
	for i, skip := range c.skips { // the last one of each is why
		if !c.tried(skip.Provider) && !slices.ContainsFunc(c.skips[i+1:], func(s Candidate) bool { return s.Provider == skip.Provider }) {
			report.Skipped = append(report.Skipped, skip)
		}
	}
	for _, candidate := range c.slot.explain(false, c.asker()).Candidates {
		if !candidate.Eligible && !c.tried(candidate.Provider) && !c.skipped(candidate.Provider) {
			report.Skipped = append(report.Skipped, candidate)
		}
	}
	if c.options.report != nil {
		*c.options.report = report
	}
	if hook := c.slot.service.registry.options.AfterCall; hook != nil {
		_ = fault.Run(func() error { hook(c.attempt.caller, report); return nil })
	}
	c.slot.service.registry.notifyObservers(c.attempt.caller, report)
}
