package registry

import (
	"context"
	"time"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/pick"
)

// request holds what a call was asked to do. It is fixed when the call begins, and the same for all leases of one call.
type request struct {
	query    *queryPlan
	caller   attemptctx.Caller
	by       pick.Caller // what selectors can know of it
	options  optionSet
	observed bool          // hooks, observers or a report see it
	began    time.Duration // on the registry's clock
	number   uint64        // given when it is asked for; see serial
}

// begin checks what a call is asked to do, and runs the hook before it.
func (r *request) begin(ctx context.Context, query *queryPlan, key string, options []CallOption) (err error) {
	if ctx == nil {
		return errNilContext()
	}
	if len(options) > 0 {
		if r.options, err = mergeOptions(options); err != nil {
			return err
		}
	}
	r.query = query
	registry := query.service.registry
	if r.options.Caller == "" {
		r.options.Caller = query.query.Handler
	}
	r.observed = r.options.Report != nil || registry.hooked || registry.observers.Load() != nil
	r.began = registry.now()
	if r.observed {
		ctx = r.beforeCall(ctx)
	}
	r.caller = attemptctx.CallerOf(ctx)
	r.by = pick.Caller{Context: ctx, Key: key, Name: r.options.Caller}
	return nil
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

// beforeCall runs the hook that may change the caller's context.
func (r *request) beforeCall(ctx context.Context) context.Context {
	hook := r.query.service.registry.options.BeforeCall
	if hook == nil {
		return ctx
	}
	changed := ctx
	_ = fault.Run(func() error { changed = hook(ctx, r.soFar(nil)); return nil }) //nolint:fatcontext // once
	if changed == nil {
		return ctx
	}
	return changed
}

// tellAttempt runs the hook after an attempt that has ended.
func (r *request) tellAttempt(ctx context.Context, report CallReport, ended Attempt) {
	if hook := r.query.service.registry.options.AfterAttempt; hook != nil {
		_ = fault.Run(func() error { hook(ctx, report, ended); return nil })
	}
}
