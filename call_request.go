package registry

import (
	"context"
	"time"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/hook"
	"github.com/capreg/registry/internal/pick"
)

// request holds what a call was asked to do. It is fixed when the call begins, and the same for all leases of one call.
type request struct {
	query    *queryPlan
	caller   attemptctx.Caller
	affinity string // the key of its resolver
	options  optionSet
	hooks    *hook.Sets[CallReport, Attempt] // of its beginning
	observed bool                            // hooks or a report see it
	began    time.Duration                   // on the registry's clock; zero: that of its first attempt
	number   uint64                          // given when it is asked for; see serial
}

// accept checks what a call is asked to do, and runs the hook before it. asked has the hooks that see it.
func (r *request) accept(
	ctx context.Context, query *queryPlan, key string, options []CallOption, asked *hook.Asked[CallReport, Attempt],
) (err error) {
	if ctx == nil {
		return errNilContext()
	}
	if len(options) > 0 {
		if r.options, err = mergeOptions(options); err != nil {
			return err
		}
	}
	r.query, r.affinity = query, key
	registry := query.service.registry
	if r.options.Caller == "" {
		r.options.Caller = query.query.Handler
	}
	r.hooks = asked.Seeing(ctx, &registry.hooks)
	if r.observed = r.options.Report != nil || r.hooks != nil; r.observed {
		r.began = registry.now()
		ctx = r.hooks.BeforeCall(ctx, func() CallReport { return r.soFar(nil) })
	}
	r.caller = attemptctx.CallerOf(ctx)
	return nil
}

// pickCaller returns what selectors can know of the call.
func (r *request) pickCaller() pick.Caller {
	return pick.Caller{Context: r.caller.Ctx, Key: r.affinity, Name: r.options.Caller}
}

// serial returns a number that no other call of the registry has.
func (r *request) serial() uint64 {
	if r.number == 0 {
		r.number = r.query.service.registry.serials.Add(1)
	}
	return r.number
}

// soFar returns a report of the given attempts, copied: hooks may write to it.
func (r *request) soFar(attempts []Attempt) CallReport {
	return CallReport{
		Service: r.query.service.name, Handler: r.query.query.Handler, Caller: r.options.Caller,
		Attempts: append([]Attempt{}, attempts...),
	}
}

// tellAttempt runs the hooks after an attempt that has ended.
func (r *request) tellAttempt(ctx context.Context, report CallReport, ended Attempt) {
	r.hooks.AfterAttempt(ctx, report.copied, ended)
}
