package registry

import (
	"context"
	"slices"

	"github.com/capreg/registry/internal/fault"
)

// observer sees the report of every call.
type observer struct {
	after func(ctx context.Context, r CallReport)
}

// Observe calls after for every call and lease that begins from now on, when it has
// ended, as [Options.AfterCall] is called, until stop is called. It is for observers
// of a registry that they did not create, such as a recorder in a test.
//
// after must not change the report; its panics are recovered. While anything observes,
// calls pay for their reports. The error matches [ErrInvalid].
func (r *Registry) Observe(after func(ctx context.Context, r CallReport)) (stop func(), err error) {
	if !r.made() {
		return nil, errNotMade()
	}
	if after == nil {
		return nil, invalid("after", raw("nil"), "a function")
	}
	added := &observer{after}
	r.changeObservers(func(all []*observer) []*observer { return append(all, added) })
	return func() {
		r.changeObservers(func(all []*observer) []*observer {
			return slices.DeleteFunc(all, func(other *observer) bool { return other == added })
		})
	}, nil
}

func (r *Registry) changeObservers(change func([]*observer) []*observer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*observer
	if present := r.observers.Load(); present != nil {
		all = slices.Clone(*present)
	}
	if all = change(all); len(all) == 0 {
		r.observers.Store(nil)
	} else {
		r.observers.Store(&all)
	}
	r.unattended.Store(r.isUnattended())
}

func (r *Registry) notifyObservers(ctx context.Context, report CallReport) {
	all := r.observers.Load()
	if all == nil {
		return
	}
	for _, o := range *all {
		_ = fault.Run(func() error { o.after(ctx, report); return nil })
	}
}
