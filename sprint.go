package registry

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/striped"
	"github.com/capreg/registry/verdict"
)

// sprint is a call that goes as nearly all do: without options, hooks and limits,
// one attempt on the first provider of the plan, which nothing keeps away, and it
// succeeds. It takes the steps of a call and its attempt that remain in that case, and
// hands over to a call as soon as anything else is the case. It exists because those
// are large things to make for so little.
type sprint struct {
	state      sprintState
	shared     bool // it has to leave time for another provider
	plan       *plan
	picked     int // the candidate of the plan that it enters
	provider   *provider
	instance   *instance
	cell       *counts
	own        *attemptctx.Context // nil: the function gets the caller's
	generation uint64              // of the breaker that admitted it
	began      time.Duration       // on the registry's clock
	timeout    time.Duration
}

// sprintState is how far a sprint is.
type sprintState uint8

const (
	sprintNone      sprintState = iota // nobody was entered: it takes a call
	sprintRuns                         // the function does, or has failed, and must not go unrecorded
	sprintSucceeded                    // which remains to be recorded
	sprintFailed                       // a call goes on from here
)

// enter enters the provider that the plan picks. When it reports false, a call has
// to do it, which begins with who was picked if somebody was. What makes that so for
// long is asked before anything is counted. What follows is attempt.enter for this case.
func (s *sprint) enter(ctx context.Context, of *queryPlan) bool {
	if of == nil || ctx == nil || ctx.Err() != nil {
		return false
	}
	registry := of.service.registry
	if !registry.sprints.Load() {
		return false
	}
	plan := of.plan.Load()
	if plan == nil {
		plan = of.service.rebuild(of)
	}
	at := plan.Admitting.First()
	if !plan.InOrder {
		at = plan.First(plan.Admitting, true)
	}
	if at < 0 {
		return false
	}
	s.plan, s.picked = plan, at
	p, stripe := plan.candidates[at], striped.Here()
	if p.limits.Load() != nil || p.vitals.Load() != nil {
		return false
	}
	// The context is a user's, and asked before there is anything to lose.
	var deadline time.Time
	hasDeadline := false
	if s.timeout = time.Duration(p.timeout.Load()); s.timeout != NoTimeout {
		deadline, hasDeadline = ctx.Deadline()
	}
	cell := p.counts.At(stripe)
	if cell == nil {
		cell = p.counts.Local()
	}
	cell.attempts.Add(1)
	instance := p.instance.Load()
	generation, admitted := p.breaker.admitClosed()
	if instance == nil || p.gateNow() != 0 || !admitted {
		p.withdraw(cell)
		return false
	}
	of.service.lookups.At(stripe).hits.Add(1) // before the clock, for which a core waits anyway
	s.provider, s.instance, s.cell, s.generation = p, instance, cell, generation
	s.began = registry.now()
	if s.timeout != NoTimeout {
		var limit time.Duration
		limit, s.shared = p.attemptLimit(deadline, hasDeadline, s.timeout, s.began, s.others)
		s.own = p.attemptContext(ctx, s.began, limit, nil)
	}
	s.state = sprintRuns
	return true
}

// others reports whether another candidate could be asked.
func (s *sprint) others() bool {
	ahead := s.plan.iterateFrom(s.plan.Admitting, s.picked)
	ahead.next(nil) // who is picked: nobody is asked
	return ahead.More()
}

// end is deferred around the function, and records how it ended, unless a call goes
// on from there. Of a success like those before it nothing learns but the counts; all
// others settle as attempts do.
func (s *sprint) end() {
	if s.state != sprintSucceeded {
		if s.state == sprintRuns {
			s.interrupted(recover())
		}
		return
	}
	p := s.provider
	elapsed := p.registry.now() - s.began
	if p.learns.Load() || !p.breaker.clean(s.generation) {
		s.settle(elapsed)
		return
	}
	if s.own != nil {
		s.own.End()
	}
	s.cell.latency.Add(uint64(max(elapsed, 0)))
	s.cell.successes.Add(1)
	p.exit()
}

// settle records the success as that of an attempt.
func (s *sprint) settle(elapsed time.Duration) {
	a := s.attempt()
	a.settle(verdict.Verdict{Class: verdict.ClassSuccess}, elapsed, nil)
}

// attempt returns the attempt that it is.
func (s *sprint) attempt() attempt {
	return attempt{
		provider: s.provider, instance: s.instance, cell: s.cell, own: s.own, generation: s.generation,
		began: s.began, timeout: s.timeout, shared: s.shared,
	}
}

// interrupted ends the attempt of a function that did not return.
func (s *sprint) interrupted(value any) {
	a := s.attempt()
	elapsed := s.provider.registry.now() - s.began
	if value == nil { // runtime.Goexit: the goroutine goes on exiting
		a.settle(verdict.Verdict{Class: verdict.ClassExit}, elapsed, nil)
		return
	}
	a.settle(verdict.Verdict{Class: verdict.ClassPanic}, elapsed, &PanicError{Value: value, Stack: debug.Stack()})
	panic(value)
}

// takeOver makes the call one whose first attempt was the sprint.
func (c *call) takeOver(ctx context.Context, s *sprint, of *queryPlan, key string) {
	c.slot, c.attempt = of, s.attempt()
	c.attempt.begin(ctx)
	s.state = sprintFailed // not before: the context is a user's
	c.options.caller = of.query.Handler
	c.entered, c.why, c.repeated = true, whyFirst, s.provider
	c.walk, c.key = s.plan.iterateFrom(s.plan.Admitting, s.picked), key
	c.nextOf(&c.walk)
}

// startWhere makes the walk of a call that has begun start with whom the sprint picked,
// whose turn it is.
func (c *call) startWhere(s *sprint) {
	if s.plan != nil {
		c.walk = s.plan.iterateFrom(s.plan.Admitting, s.picked)
	}
}
