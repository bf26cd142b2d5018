package registry

import (
	"context"
	"fmt"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/tasks"
	"github.com/capreg/registry/verdict"
)

// Do runs function as [Call] does, for work without a result.
func (r *Resolver[T]) Do(ctx context.Context, function func(context.Context, T) error, options ...CallOption) error {
	if function == nil {
		return invalid("function", raw("nil"), "a function")
	}
	_, err := Call(ctx, r, func(ctx context.Context, instance T) (none struct{}, _ error) {
		return none, function(ctx, instance)
	}, options...)
	return err
}

// Each runs function once on every provider that a call could enter, at the same time, and returns the attempts in
// the order of the plan: for a broadcast, such as an audit that every sink has to see. Each attempt is counted and
// bounded as one of [Call]; none is retried, and none stands in for another. Rotations do not move, and nothing
// queues. With [MaxParallel] the next provider is entered when one of so many has ended.
//
// The error is nil when all that were asked have succeeded, a [CallError] that unwraps to their errors when some have
// not, and an [UnavailableError] when no provider could be entered; providers that could not are not asked. When ctx
// ends, no other provider is entered, and the error matches the context's. To hooks and reports it is one call, which
// succeeds with its first answer.
//
// It runs function in goroutines of the registry and blocks until all have ended, and as [Resolver.AcquireAll] does.
// A panic goes on to the caller then, or is an error ([Options.PanicsAsErrors]).
func (r *Resolver[T]) Each(ctx context.Context, function func(context.Context, T) error, options ...CallOption) ([]Attempt, error) {
	if function == nil {
		return nil, invalid("function", raw("nil"), "a function")
	}
	var fan *tasks.Fan
	var attempts []*Attempt
	err := r.acquireEach(ctx, options, func(l *Lease[T]) bool { //nolint:contextcheck // the lease has it
		if fan == nil {
			fan = tasks.NewFan(&l.held.call.query.service.registry.tasks, l.held.call.options.MaxParallel)
			fan.AwaitFree()
		}
		ended := l.held.present()
		attempts = append(attempts, &ended)
		fan.Go(fmt.Sprintf("attempt of Each at provider %q", ended.Provider), func() error {
			return function(l.Context(), l.Value)
		}, func(err error, panicked bool) (goesOn bool) { return l.held.endEach(&ended, err) && panicked })
		fan.AwaitFree()
		return true
	})
	if err != nil {
		return nil, err
	}
	failed := &CallError{Service: r.Service(), partial: true}
	if ctx.Err() != nil { // perhaps not all were entered
		failed.ended = fault.OfContext(ctx)
	}
	fan.Wait()
	all := make([]Attempt, len(attempts))
	for i, ended := range attempts {
		all[i] = *ended
		if ended.Err != nil || ended.Class == verdict.ClassForgotten {
			failed.Attempts = append(failed.Attempts, *ended)
		}
	}
	if len(failed.Attempts) > 0 || len(failed.ended) > 0 {
		return all, failed
	}
	return all, nil
}

// endEach ends an attempt of [Resolver.Each] with the error of its function, and reports whether a panic goes on.
func (l *leasedAttempt) endEach(ended *Attempt, err error) (panicsGoOn bool) {
	panicsGoOn = !l.attempt.provider.registry.options.PanicsAsErrors
	if !l.end() { // it took longer than a lease lives
		ended.Class, ended.Err = verdict.ClassForgotten, err
		return panicsGoOn
	}
	defer l.call.close()
	_, *ended = l.conclude(err, nil)
	return panicsGoOn
}
