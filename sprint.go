package registry

import (
	"context"

	"github.com/capreg/registry/verdict"
)

// sprint is a call that goes as nearly all do: without options, hooks and limits,
// one attempt on the first provider of the plan, which nothing keeps away, and it
// succeeds. It takes the steps of a call that remain in that case, through the same
// attempt, and hands over to a call as soon as anything else is the case. It exists
// because a call is a large thing to make for so little.
type sprint struct {
	attempt attempt
	slot    *slot
	entered bool // the attempt was
	panic   *PanicError
}

// enter enters the provider that the plan picks. When it reports false, a call has
// to do it, which begins with who was picked if somebody was.
func (s *sprint) enter(ctx context.Context, of *slot) bool {
	if of == nil || ctx == nil || ctx.Err() != nil {
		return false
	}
	if registry := of.service.registry; registry.guarded || registry.observers.Load() != nil {
		return false
	}
	plan := of.current()
	at := plan.first(plan.callable, true)
	if at < 0 {
		return false
	}
	s.slot, s.attempt.plan, s.attempt.picked = of, plan, at
	p := plan.candidates[at]
	if p.gateNow() != 0 || p.domain.limits.Load() != nil || p.vitals.Load() != nil || p.instance.Load() == nil {
		return false
	}
	s.attempt.begin(ctx)
	if !s.attempt.enter(p, nil, 0) {
		return false
	}
	if s.attempt.trial { // its breaker moved since the look at the gate
		s.attempt.watchTrial()
	}
	of.service.lookups.Local().hits.Add(1)
	s.entered = true
	return true
}

// sprintOnce runs the function on the provider.
func sprintOnce[T, R any](s *sprint, function func(context.Context, T) (R, error)) (result R, err error) {
	returned := false
	defer func() {
		if !returned {
			err = s.interrupted(recover())
		}
	}()
	result, err = function(s.attempt.ctx, held[T](s.attempt.instance))
	returned = true
	return result, err
}

// succeed records the success. Of one like those before it nothing learns but the
// counts; all others settle as attempts do.
func (s *sprint) succeed() {
	a := &s.attempt
	p := a.provider
	elapsed := p.registry.now() - a.began
	if a.trial || a.latency != 0 || a.vitals != nil || !p.breaker.clean(a.generation) || p.breaker.slow(elapsed) ||
		p.retries.Load() != nil || p.grown.Load() || p.cutShort.Load() != 0 {
		a.settle(verdict.Verdict{Class: verdict.ClassSuccess}, elapsed, nil)
		return
	}
	if a.own != nil {
		a.own.end()
	}
	a.cell.latency.Add(uint64(max(elapsed, 0)))
	a.cell.successes.Add(1)
	p.exit()
}

// interrupted is that of a call.
func (s *sprint) interrupted(value any) error {
	var c call
	c.takeOver(s, "")
	err := c.interrupted(value)
	s.panic = c.panic
	return err
}

// takeOver makes the call one whose first attempt was the sprint.
func (c *call) takeOver(s *sprint, key string) {
	c.slot, c.attempt, c.panic = s.slot, s.attempt, s.panic
	c.options.caller = s.slot.query.Handler
	c.entered, c.why, c.repeated = true, whyFirst, s.attempt.provider
	plan := s.attempt.plan
	c.walk, c.key = plan.walkFrom(plan.callable, s.attempt.picked), key
	c.nextOf(&c.walk)
	c.attempt.plan = nil
}

// startWhere makes the walk of a call that has begun start with whom the sprint picked,
// whose turn it is.
func (c *call) startWhere(s *sprint) {
	if plan := s.attempt.plan; plan != nil {
		c.walk = plan.walkFrom(plan.callable, s.attempt.picked)
	}
}
