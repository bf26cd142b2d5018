// This file shows how a call is made, and how its course is known afterwards: which
// provider did it, and which ones had failed before.

package main

import (
	"context"
	"errors"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/examples/agent/internal/audit"
)

// auditor records the decisions of a handler.
type auditor struct {
	handler string
	trails  *registry.Resolver[audit.Trail]
}

func newAuditor(reg *registry.Registry, handler string) auditor {
	return auditor{handler, Audit.Bind(reg, registry.Query{Handler: handler})}
}

// decide has the function run by a provider and records the decision, whether it
// succeeded or not. It returns the provider's name, too. There is no code for failover.
func decide[T, R any](
	ctx context.Context, a auditor, action string, from *registry.Resolver[T],
	work func(context.Context, T) (R, error), options ...registry.CallOption,
) (result R, by string, err error) {
	var report registry.CallReport
	result, err = registry.Call(ctx, from, work, append(options, registry.ReportTo(&report))...)
	by, audited := a.record(ctx, action, report, err)
	return result, by, errors.Join(err, audited)
}

// record gives the decision to every trail, also after the end of ctx: what was done is
// to be known. It is an error only when no trail has kept it.
func (a auditor) record(ctx context.Context, action string, report registry.CallReport, failure error) (by string, err error) {
	r := audit.Record{Time: time.Now(), Handler: a.handler, Service: report.Service, Action: action}
	for i, attempt := range report.Attempts {
		if failure == nil && i == len(report.Attempts)-1 {
			r.Provider = attempt.Provider
		} else {
			r.Failed = append(r.Failed, attempt.Provider+": "+attempt.Class.String())
		}
	}
	if failure != nil {
		r.Err = failure.Error()
	}
	leases, err := a.trails.AcquireAll(context.WithoutCancel(ctx), 0)
	if err != nil {
		return r.Provider, err
	}
	var failures []error
	for _, lease := range leases {
		err := lease.Guard(func() error { return lease.Value.Append(lease.Context(), r) })
		lease.Done(err)
		if err != nil {
			failures = append(failures, err)
		}
	}
	if len(failures) < len(leases) {
		return r.Provider, nil
	}
	return r.Provider, errors.Join(failures...)
}
