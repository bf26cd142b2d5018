package registry

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/slots"
	"github.com/capreg/registry/verdict"
)

// CallOption varies one call or lease. Options cost no allocation.
type CallOption struct {
	onceOnly bool
	timed    bool
	wait     bool
	timeout  time.Duration
	caller   string
	report   *CallReport
}

// OnceOnly marks a call with side effects: once its function was entered, it is
// never run a second time, on no provider, unless the error says that nothing
// was sent ([verdict.NotSent], a refused connection). Before that the call is
// free to move on. See also [IdempotencyKey].
func OnceOnly() CallOption { return CallOption{onceOnly: true} }

// AttemptTimeout replaces the attempt timeout of whichever provider is asked,
// and the expiry of a lease. It must be more than zero; see also [NoTimeout].
func AttemptTimeout(timeout time.Duration) CallOption {
	return CallOption{timed: true, timeout: timeout}
}

// WaitForCooldown lets the call wait, when nobody else is left, for the first
// provider whose cooldown ends within the caller's deadline, and ask it, again
// where it was this call that it turned away, up to 16 times in all. Give such a
// call a deadline; without one it waits for as long as the server asks. Default: it
// fails at once, and its error says when to come back.
func WaitForCooldown() CallOption { return CallOption{wait: true} }

// String returns what the option is, such as "OnceOnly".
func (o CallOption) String() string {
	switch {
	case o.onceOnly:
		return "OnceOnly"
	case o.timed:
		return fmt.Sprintf("AttemptTimeout(%v)", o.timeout)
	case o.wait:
		return "WaitForCooldown"
	case o.caller != "":
		return fmt.Sprintf("Caller(%q)", o.caller)
	case o.report != nil:
		return "ReportTo"
	}
	return "none"
}

func mergeOptions(options []CallOption) (merged CallOption, err error) {
	for i := range options {
		option := &options[i]
		merged.onceOnly = merged.onceOnly || option.onceOnly
		merged.wait = merged.wait || option.wait
		if option.timed {
			merged.timed, merged.timeout = true, option.timeout
		}
		if option.caller != "" {
			merged.caller = option.caller
		}
		if option.report != nil {
			merged.report = option.report
		}
	}
	if merged.timed && merged.timeout <= 0 {
		return merged, invalid("AttemptTimeout", merged.timeout, "more than 0, or NoTimeout")
	}
	return merged, nil
}

// Call runs function on the best provider and, when that fails in a way that
// the provider is to blame for, on the next one, each provider once or as often
// as its [RetryPolicy] says.
//
// Before each attempt come, in this order, the provider's budget for further
// attempts, [Options.Authorize], its limits and its breaker; what they keep away
// moves on to the next provider at no cost. Each attempt is counted, and bounded
// by its context: the attempt timeout, or half of what remains of the caller's
// deadline while another provider could still be asked. What an outcome means,
// and whether the call moves on, is decided by the table of package verdict. The
// function must heed its context; one that does not cannot be cut short, and an
// answer that it gives after its time is returned all the same. ctx bounds the
// whole call, and its values reach the function.
//
// Call runs function in the caller's goroutine, starts none itself, and does
// not retain function. It blocks for function, for delays between retries, for a
// place in a full bulkhead when no provider has a free one, for a factory, and for
// a first probe where there is nobody else. A
// panic goes on to the caller after it has been recorded as the provider's
// failure, unless [Options.PanicsAsErrors] is set.
//
// When no provider could be entered the error is an [UnavailableError]; when
// some were, or ctx had ended, it is a [CallError] with every attempt. Both
// unwrap to their causes.
func Call[T, R any](
	ctx context.Context, resolver *Resolver[T], function func(context.Context, T) (R, error), options ...CallOption,
) (result R, err error) {
	var s sprint
	if len(options) == 0 && function != nil && resolver != nil && s.enter(ctx, resolver.slot) {
		defer s.end()
		within := ctx
		if s.own != nil {
			within = s.own
		}
		result, err = function(within, held[T](s.instance))
		if err == nil {
			s.state = sprintSucceeded
			return result, nil
		}
	}
	return callAtLength(ctx, resolver, function, options, &s, err)
}

// callAtLength is Call where it takes more than a sprint; err is how that ended, if
// it began. It is a function of its own so that a sprint does not pay for its call.
func callAtLength[T, R any](
	ctx context.Context, resolver *Resolver[T], function func(context.Context, T) (R, error), options []CallOption,
	s *sprint, err error,
) (R, error) {
	var none R
	var c call
	if s.state == sprintRuns {
		c.takeOver(ctx, s, resolver.slot, resolver.key)
		if c.over(err) {
			err = c.failed()
			c.finish(err)
			return none, err
		}
	} else {
		slot, err := resolver.bound()
		if err == nil && function == nil {
			err = invalid("function", verbatim("nil"), "a function")
		}
		if err == nil {
			err = c.begin(ctx, slot, resolver.key, options)
		}
		if err != nil {
			return none, err
		}
		c.startWhere(s)
	}
	for c.next() {
		result, err := callOnce(&c, function)
		if c.over(err) {
			if err == nil {
				return result, nil
			}
			break
		}
	}
	err = c.failed()
	c.finish(err)
	return none, err
}

// callOnce runs the function on the attempt's provider.
func callOnce[T, R any](c *call, function func(context.Context, T) (R, error)) (result R, err error) {
	returned := false
	defer func() {
		if !returned {
			err = c.interrupted(recover())
		}
	}()
	if c.observed {
		c.beforeAttempt()
	}
	result, err = function(c.attempt.ctx, held[T](c.attempt.instance))
	returned = true
	return result, err
}

// call is one operation of a user: a walk over the candidates with attempts on
// each. It lives on its caller's stack.
type call struct {
	attempt attempt
	slot    *queryPlan
	walk    iterator
	key     string // of its query
	options CallOption
	lease   bool        // what is entered is handed out
	shared  *sharedCall // of leases; nil for a call that runs a function

	observed bool          // somebody wants a report
	began    time.Duration // set when observed

	ledger

	entered bool // the function was entered at least once
	waited  bool // for a cooldown: the present walk is not the first
	waits   int  // attempts that it has made after waiting
	probed  bool // it has waited for first probes
	ranOut  bool // nobody else was left to ask
	met     bool // the walk has met somebody whom nothing has taken away since
	anew    int8 // walks that began again because of who came or left meanwhile
	hooking bool // a hook runs, and not the function

	why   string        // the reason of the present attempt
	delay time.Duration // before it

	again    bool      // the provider is to be tried again
	repeated *provider // the one that was tried again
	retried

	panic   *PanicError
	skips   []Candidate // refused for a reason that no gate shows
	refused []*provider // whose reasons these are
	full    []*provider // had no place free
}

// retried is how often a call has tried a provider again.
type retried struct {
	tries  int // beyond the first
	delays *backoff.ExponentialBackOff
}

// ledger is what a call knows of its attempts, and what follows from it.
type ledger struct {
	ran     []Attempt // the ones that failed; all when observed, or leases
	causes  []error   // why the registry ended some of them
	ended   bool      // no further provider may be asked
	barred  bool      // ... because the call must not run twice
	tooLong bool      // only providers with a larger window remain
	window  int       // ... than this
}

func (l *ledger) clone() ledger {
	copied := *l
	copied.ran, copied.causes = slices.Clone(l.ran), slices.Clone(l.causes)
	return copied
}

// add notes an attempt that has ended, and why the registry ended it, if it did.
func (l *ledger) add(ended Attempt, cause error) {
	l.ran = append(l.ran, ended)
	if cause != nil {
		l.causes = append(l.causes, cause)
	}
}

// weigh decides what may follow an attempt that was no success; window is that of
// its provider.
func (l *ledger) weigh(class verdict.Class, window int, onceOnly, tryRefused bool) {
	next := class.Rule().Next
	moves := false
	switch next {
	case verdict.NextAlways, verdict.NextYes, verdict.NextFree, verdict.NextBeforeFirstItem, verdict.NextByOption:
		moves = true
	case verdict.NextLargerWindow:
		l.tooLong, l.window = true, max(l.window, window)
		moves = true
	case verdict.NextWhenAllowed:
		moves = tryRefused
	case verdict.NextNo:
	}
	l.barred = moves && onceOnly && next != verdict.NextAlways
	l.ended = l.ended || !moves || l.barred
}

func (c *call) begin(ctx context.Context, s *queryPlan, key string, options []CallOption) (err error) {
	if ctx == nil {
		return invalid("ctx", verbatim("nil"), "a context")
	}
	if len(options) > 0 { // else the price of copying none would be a tenth of the call's
		if c.options, err = mergeOptions(options); err != nil {
			return err
		}
	}
	c.slot, c.key = s, key
	registry := s.service.registry
	if c.options.caller == "" {
		c.options.caller = s.query.Handler
	}
	c.observed = c.options.report != nil || registry.hooked || registry.observers.Load() != nil
	if c.observed {
		c.began = registry.now()
		ctx = c.beforeCall(ctx)
	}
	c.attempt.begin(ctx)
	plan := s.current()
	c.walk = plan.iterate(plan.Admitting)
	return nil
}

// next enters the next provider that admits the call, or the same one again.
func (c *call) next() bool {
	if c.again {
		c.again = false
		if c.pause(c.delay) && c.enterClaimed(c.attempt.provider, whyRetry) {
			return true
		}
	}
	for !c.ended && c.attempt.caller.Err() == nil {
		p := c.nextOf(&c.walk)
		if p == nil {
			if c.awaitPlace() {
				return true
			}
			if c.walkAnew() || c.awaitHealth() {
				continue
			}
			entered, again := c.lastResort()
			if entered {
				return true
			}
			if again || c.awaitCooldown() {
				continue
			}
			break
		}
		if c.anew > 0 && c.hadTurn(p) {
			continue
		}
		if c.wants(p) && c.enterClaimed(p, c.reason()) {
			return true
		}
		if c.overtaken(p) {
			continue
		}
		c.met = c.met || p.gateNow()&gateBlocked == 0
	}
	if !c.entered {
		c.slot.service.lookups.Local().misses.Add(1)
	}
	c.ranOut = !c.ended && c.attempt.callerEnded() == nil
	return false
}

// walkAnew begins again when the walk has met nobody, but somebody is there.
func (c *call) walkAnew() bool {
	return !c.met && !c.entered && !c.ended && c.slot.someone(false) && c.restart()
}

// overtaken begins again when p was displaced meanwhile: who has its place is not in the
// plan of the walk, whose next one may be a worse one.
func (c *call) overtaken(p *provider) bool {
	return p.displaced() && !c.tried(p.name()) && c.restart()
}

// restart begins again with the present plan; those who had their turn are passed over.
func (c *call) restart() bool {
	if c.anew == walksAnew {
		return false
	}
	c.anew++
	plan := c.slot.current()
	still := c.walk.Mode != pick.Advance
	c.walk = plan.iterate(plan.Admitting)
	if still && c.shared != nil {
		c.shared.mu.Lock()
		c.walk.Mode = c.shared.fresh(plan)
		c.shared.mu.Unlock()
	}
	return true
}

// hadTurn reports whether p has failed, refused or been full before the walk began again,
// or is another lease's of the call. Who failed may be returned to after a wait.
func (c *call) hadTurn(p *provider) bool {
	if slices.Contains(c.refused, p) || slices.Contains(c.full, p) {
		return true
	}
	if c.tried(p.name()) {
		return !c.waited || c.waits >= mostWaits || !c.mayReturnTo(p)
	}
	return c.shared != nil && c.shared.gave(p.name())
}

// asker is what selectors can know of the call.
func (c *call) asker() pick.Caller {
	return pick.Caller{Context: c.attempt.caller, Key: c.key, Name: c.options.caller}
}

// nextOf returns the next candidate of a walk of the call.
func (c *call) nextOf(w *iterator) *provider {
	if !w.plan.NeedsCaller() {
		return w.next(nil)
	}
	by := c.asker()
	if c.shared != nil && c.slot.service.registry.decisions != nil {
		shared, plan := c.shared, w.plan // not c, which would leave the stack with the closure
		by.Had = func(candidate int) bool { return shared.had(plan.candidates[candidate]) }
	}
	return w.next(&by)
}

// reason is why the next provider of the walk is asked.
func (c *call) reason() string {
	switch {
	case c.waited:
		return whyWaited
	case c.entered:
		return whyFailover
	}
	return whyFirst
}

// enterClaimed is enter for a provider that no other lease of the call may have.
func (c *call) enterClaimed(p *provider, why string) bool {
	if c.shared == nil {
		return c.enter(p, why)
	}
	return c.enterAlone(p, why)
}

func (c *call) enterAlone(p *provider, why string) (entered bool) {
	if !c.shared.claim(p, why == whyRetry || c.waited && c.tried(p.name())) {
		return false
	}
	defer func() { // deferred: an authoriser may exit the goroutine
		if !entered {
			c.shared.unclaim(p)
		}
	}()
	return c.enter(p, why)
}

// wants reports whether the call has use for a provider of the walk.
func (c *call) wants(p *provider) bool {
	if c.tooLong && p.definition.Window <= c.window {
		return false
	}
	return !c.waited || c.mayReturnTo(p)
}

// enter passes the call through everything that may keep it away from p, in the
// order that costs those it keeps away least: a full bulkhead takes no trial
// slot, and nobody takes a place who was not allowed to.
func (c *call) enter(p *provider, why string) bool {
	a := &c.attempt
	if why != whyQueued {
		a.slots = nil // those of the last attempt are not ours any more
	}
	if !a.forced && p.gateNow()&gateBlocked != 0 {
		return false // at no cost for what comes below
	}
	if c.entered && why != whyRetry && why != whyMany {
		if known := p.retries.Load(); known != nil && p.gateNow()&gateHalfOpen == 0 && !known.allows() {
			c.skip(p, "retry_budget_spent", &reason{ErrAtCapacity, "budget for further attempts spent", nil}, 0)
			return false
		}
	}
	var used permit
	registry := c.slot.service.registry
	if registry.options.Authorize != nil && (!c.authorized(p) || a.callerEnded() != nil) {
		return false
	}
	if l := p.limits.Load(); l != nil {
		if !c.place(p, l, why) {
			return false
		}
		var retryIn time.Duration
		var throttled bool
		if used, retryIn, throttled = l.throttled(c.options.caller); throttled {
			c.leavePlace()
			c.throttle(p, retryIn)
			return false
		}
	}
	ahead := &c.walk
	if c.lease || c.options.onceOnly || c.tooLong && !c.wider(p) {
		ahead = nil
	}
	if !a.enter(p, ahead, c.options.timeout) {
		used.giveBack()
		c.leavePlace()
		return false
	}
	if a.vitals != nil {
		a.track = c.walk.track(p)
	}
	if why == whyFailover {
		p.tookOver.Add(1)
	}
	if p != c.repeated {
		c.repeated, c.retried = p, retried{}
	}
	if a.trial && !c.lease {
		a.watchTrial()
	}
	c.why = why
	if why == whyWaited {
		c.waits++
	}
	if !c.entered {
		if why != whyMany {
			c.slot.service.lookups.Local().hits.Add(1)
		}
		c.entered = true
	}
	return true
}

// wider reports whether a candidate beside p has a larger window than those that
// were too small.
func (c *call) wider(p *provider) bool {
	plan := c.walk.plan
	for at := plan.Admitting.Next(0, len(plan.candidates)); at >= 0; at = plan.Admitting.Next(at+1, len(plan.candidates)) {
		if other := plan.candidates[at]; other != p && other.definition.Window > c.window {
			return true
		}
	}
	return false
}

func (c *call) authorized(p *provider) bool {
	err := fault.Run(func() error {
		return c.slot.service.registry.options.Authorize(c.attempt.caller, c.options.caller, p.service.name, p.name())
	})
	if err != nil {
		c.skip(p, "denied", &reason{ErrDenied, ErrDenied.Error() + ": " + oneline.Cut(fault.Text(err), 300), err}, 0)
	}
	return err == nil
}

// place takes a place in the bulkhead, if there is one to be had at once. Callers
// that have used up their rate do not wait for one.
func (c *call) place(p *provider, l *limits, why string) bool {
	if l.slots == nil || why == whyQueued {
		return true // none needed, or taken already
	}
	if !l.slots.TryAcquire() {
		if used, retryIn, throttled := l.throttled(c.options.caller); throttled {
			c.throttle(p, retryIn)
		} else {
			used.giveBack()
			c.full = append(c.full, p)
		}
		return false
	}
	c.attempt.slots = l.slots
	return true
}

func (c *call) throttle(p *provider, retryIn time.Duration) {
	c.skip(p, "throttled", &reason{ErrAtCapacity, "rate of the caller used up", nil}, retryIn)
}

func (c *call) leavePlace() {
	if c.attempt.slots != nil {
		c.attempt.slots.Release()
		c.attempt.slots = nil
	}
}

// line is a queue for places, and whom they are places of.
type line struct {
	slots     *slots.Slots
	providers []*provider
	wait      time.Duration // the longest
	seen      []*provider   // and those who did not admit the call
	left      bool          // it has waited there for too long, or there was no room
}

// join lines up at the queues of those that had no place free and at whom the call does
// not queue yet, one for each domain.
func (c *call) join(lines []line, queue *slots.Wait) []line {
	for _, p := range c.full {
		l := p.limits.Load()
		if p.gateNow()&gateBlocked != 0 || l == nil || l.slots == nil || !c.wants(p) || p.lined(lines) {
			continue
		}
		at := slices.IndexFunc(lines, func(other line) bool { return other.slots == l.slots && !other.left })
		if at < 0 {
			at = len(lines)
			lines = append(lines, line{slots: l.slots, wait: l.policy.MaxWait, left: !queue.Join(l.slots, at)})
		}
		lines[at].providers = append(lines[at].providers, p)
		lines[at].seen = append(lines[at].seen, p)
	}
	return lines
}

// lined reports whether the call queues at p in one of the lines, or did.
func (p *provider) lined(lines []line) bool {
	return slices.ContainsFunc(lines, func(l line) bool { return slices.Contains(l.seen, p) })
}

// awaitPlace queues at the providers that had no place free, and enters the one
// that is first to have one and still admits the call, or another one that can be
// entered meanwhile.
func (c *call) awaitPlace() bool {
	if len(c.full) == 0 {
		return false
	}
	defer c.passFull()
	var lines []line
	queue := slots.NewWait()
	defer queue.End()
	registry := c.slot.service.registry
	began := registry.now()
	waited := func() time.Duration { return registry.now() - began }
	for {
		again := registry.changed()
		if slices.ContainsFunc(c.full, (*provider).displaced) {
			c.full = slices.DeleteFunc(c.full, (*provider).displaced)
			c.delay = max(c.delay, waited())
			if c.enterAnother() {
				return true
			}
		}
		lines = c.join(lines, queue)
		wait := c.leaveLines(lines, queue, waited())
		if wait <= 0 {
			return false
		}
		ctx, cancel := context.WithTimeout(c.attempt.caller, wait)
		at, woken := queue.For(ctx, again)
		cancel()
		switch {
		case at >= 0:
			c.delay = waited()
			if c.enterQueued(&lines[at]) {
				return true
			}
			queue.Resume(at)
		case woken:
			c.delay = waited()
			if c.enterAnother() {
				return true
			}
		case c.attempt.callerEnded() != nil:
			return false
		}
	}
}

// leaveLines leaves the queues in which the call has waited for too long, or whose
// providers were all displaced, and returns how long it may wait in the others.
func (c *call) leaveLines(lines []line, queue *slots.Wait, waited time.Duration) (wait time.Duration) {
	for at := range lines {
		l := &lines[at]
		l.providers = slices.DeleteFunc(l.providers, (*provider).displaced)
		l.seen = slices.DeleteFunc(l.seen, (*provider).displaced) // they may come back
		if l.left {
			continue
		}
		if l.wait <= waited || len(l.providers) == 0 {
			l.left = true
			queue.Leave(at)
			continue
		}
		if left := l.wait - waited; wait == 0 || left < wait {
			wait = left
		}
	}
	return wait
}

// enterQueued enters the first provider of the line that admits the call, whose
// place was given to it.
func (c *call) enterQueued(l *line) bool {
	c.attempt.slots = l.slots
	entered := false
	defer func() {
		if !entered {
			c.leavePlace() // deferred: an authoriser may exit the goroutine
		}
	}()
	at := slices.IndexFunc(l.providers, func(p *provider) bool { return p.gateNow()&gateBlocked == 0 && c.wants(p) })
	if at < 0 || c.attempt.callerEnded() != nil {
		l.providers = nil
		return false
	}
	p := l.providers[at]
	l.providers = slices.Delete(l.providers, at, at+1)
	if entered = c.enterClaimed(p, whyQueued); entered {
		c.full = nil
	}
	return entered
}

// enterAnother enters a provider that has become eligible while the call waits in
// queues.
func (c *call) enterAnother() bool {
	plan := c.slot.current()
	ahead := plan.iterate(plan.Admitting)
	ahead.Mode = pick.Peek
	for p := c.nextOf(&ahead); p != nil; p = c.nextOf(&ahead) {
		if c.hadTurn(p) || !c.wants(p) {
			continue
		}
		if c.enterClaimed(p, c.reason()) {
			c.full = nil
			return true
		}
	}
	return false
}

// passFull notes the providers that had no place free and were not entered.
func (c *call) passFull() {
	for _, p := range c.full {
		c.skip(p, codeFull, &reason{ErrAtCapacity, ErrAtCapacity.Error(), nil}, 0)
	}
	c.full = nil
}

// awaitHealth waits for the first results of probes when nobody was entered, and
// begins a new iterator where somebody can be.
func (c *call) awaitHealth() bool {
	if c.entered || c.ended || c.probed || len(c.skips) > 0 {
		return false
	}
	c.probed = true
	if !c.slot.awaitHealth(c.attempt.caller, false) {
		return false
	}
	plan := c.slot.current()
	c.walk = plan.iterate(plan.Admitting)
	return true
}

// lastResort enters the provider that may be tried whatever keeps it away and is
// the first to come back by itself, when nobody was entered. With again it was displaced
// meanwhile, and the walk begins again.
func (c *call) lastResort() (entered, again bool) {
	if c.entered || c.ended {
		return false, false
	}
	best := c.walk.plan.lastResort(c.wants)
	if best == nil {
		return false, false
	}
	c.attempt.forced = true
	entered = c.enterClaimed(best, whyLastResort)
	c.attempt.forced = false
	return entered, !entered && best.displaced() && c.restart()
}

// lastResort returns the provider that may be tried whatever keeps it away, among those
// wanted; nil: none. Some things cannot be helped, and one on trial is tried enough.
func (p *plan) lastResort(wants func(*provider) bool) (best *provider) {
	var soonest time.Duration
	for _, other := range p.candidates {
		now := other.gateNow()
		if !other.definition.LastResort && !p.leastBad || now&gateBlocked == 0 || now&(gateHelpless|gateHalfOpen) != 0 || !wants(other) {
			continue
		}
		retryIn, asked := other.returns()
		if !asked && (best == nil || retryIn < soonest) {
			best, soonest = other, retryIn
		}
	}
	return best
}

// returns says when the provider comes back by itself, and whether it has asked
// to be left alone until then.
func (p *provider) returns() (retryIn time.Duration, asked bool) {
	breaker := p.breaker.read()
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	cooling := p.cooldownNow()
	return max(breaker.RetryIn, time.Until(cooling.until)), cooling.active() && !cooling.guess
}

// mostWaits bounds how many attempts one call makes after waiting for the end of a
// cooldown.
const mostWaits = 16

// awaitCooldown waits for the first provider whose cooldown ends in time, and
// begins a new iterator. It returns false when there is none, or nothing to wait for.
func (c *call) awaitCooldown() bool {
	if !c.options.wait || c.waits >= mostWaits {
		return false
	}
	registry := c.slot.service.registry
	until, again := c.firstReturn()
	if until.IsZero() || c.attempt.hasDeadline && !until.Before(c.attempt.deadline) {
		return false
	}
	began := registry.now()
	timer := time.NewTimer(max(time.Until(until), time.Millisecond))
	defer timer.Stop()
	select {
	case <-again:
	case <-timer.C:
	case <-c.attempt.caller.Done():
		return false
	}
	c.delay += registry.now() - began
	plan := c.slot.current()
	c.walk, c.waited = plan.iterate(plan.Admitting), true
	c.refused = nil // it is everybody's turn again
	return true
}

// firstReturn returns the earliest end of a cooldown that alone keeps away a
// provider that the call may ask, and a channel that is closed when somebody
// becomes eligible before.
func (c *call) firstReturn() (earliest time.Time, again <-chan struct{}) {
	registry, plan := c.slot.service.registry, c.slot.current()
	registry.mu.Lock()
	defer registry.mu.Unlock()
	for _, p := range plan.candidates {
		if c.tooLong && p.definition.Window <= c.window || slices.Contains(c.refused, p) || !c.mayReturnTo(p) ||
			c.shared != nil && !c.tried(p.name()) && c.shared.gave(p.name()) {
			continue
		}
		switch p.gateNow() & gateBlocked {
		case 0: // it has just ended
			return time.Now(), registry.changedLocked()
		case gateCooling:
		default:
			continue
		}
		if until := p.cooldownNow().until; earliest.IsZero() || until.Before(earliest) {
			earliest = until
		}
	}
	return earliest, registry.changedLocked()
}

// mayReturnTo reports whether a call that has waited may ask the provider: it has
// not asked it yet, or was only turned away.
func (c *call) mayReturnTo(p *provider) bool {
	for _, ran := range slices.Backward(c.ran) {
		if ran.Provider == p.name() {
			return ran.Class.Rule().RetryHere == verdict.RetryWhenWaiting
		}
	}
	return true
}

// pause sleeps before a retry; false when the caller's context ended first.
func (c *call) pause(delay time.Duration) bool {
	if delay <= 0 {
		return c.attempt.callerEnded() == nil
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return c.attempt.callerEnded() == nil
	case <-c.attempt.caller.Done():
		return false
	}
}

// over records the outcome of the attempt and reports whether the call ends with it.
func (c *call) over(err error) bool {
	a := &c.attempt
	elapsed := a.provider.registry.now() - a.began
	if err == nil {
		class := a.settle(verdict.Verdict{Class: verdict.ClassSuccess}, elapsed, nil)
		if c.observed {
			c.record(class, elapsed, nil)
			c.finish(nil)
		}
		return true
	}
	v := c.judge(err, elapsed)
	c.record(v.Class, elapsed, err)
	c.weigh(v.Class, a.provider.definition.Window, c.options.onceOnly, c.slot.query.TryRefused)
	c.again = c.mayRetry(v)
	return c.ended && !c.again
}

// judge settles the attempt with its verdict, also when a classifier exits the
// goroutine.
func (c *call) judge(err error, elapsed time.Duration) (v verdict.Verdict) {
	defer func() { c.attempt.settle(v, elapsed, err) }()
	if c.panic != nil {
		c.panic = nil
		return verdict.Verdict{Class: verdict.ClassPanic}
	}
	return c.attempt.judge(err)
}

// mayRetry reports whether the provider is to be tried again, after c.delay.
func (c *call) mayRetry(v verdict.Verdict) bool {
	p, rule := c.attempt.provider, v.Class.Rule()
	known := p.retries.Load()
	if known == nil || c.tries >= known.policy.Retries || rule.RetryHere != verdict.RetryYes ||
		c.options.onceOnly && rule.Next != verdict.NextAlways {
		return false
	}
	if c.delays == nil {
		c.delays = known.policy.delays()
	}
	delay := fullJitter(c.delays.NextBackOff())
	switch blocked := p.gateNow() & gateBlocked; {
	case blocked == gateCooling && v.After > 0 && !c.walk.More():
		// The server's delay wins, and has become a cooldown, which is over when
		// its timer has fired.
		cooldown, _ := p.returns()
		delay = cooldown + time.Millisecond
	case blocked != 0:
		return false
	}
	if c.attempt.hasDeadline && delay >= time.Until(c.attempt.deadline) || !known.allows() {
		return false
	}
	c.tries++
	c.delay = delay
	return true
}

// interrupted ends an attempt whose function did not return.
func (c *call) interrupted(value any) error {
	a := &c.attempt
	elapsed := a.provider.registry.now() - a.began
	if value == nil { // runtime.Goexit: the goroutine goes on exiting
		class := verdict.ClassExit
		if c.hooking {
			class = verdict.ClassIgnored // it was not the provider's code
		}
		c.aborted(class, elapsed, nil)
		return nil
	}
	c.panic = &PanicError{Value: value, Stack: debug.Stack()}
	if a.provider.registry.options.PanicsAsErrors {
		return c.panic
	}
	c.aborted(verdict.ClassPanic, elapsed, c.panic)
	panic(value)
}

// aborted settles an attempt that ends the goroutine, or its caller.
func (c *call) aborted(class verdict.Class, elapsed time.Duration, cause error) {
	c.attempt.settle(verdict.Verdict{Class: class}, elapsed, cause)
	if c.observed {
		c.record(class, elapsed, cause)
		c.finish(cause)
	}
}

// skip notes why the call passed a provider by that looks eligible.
func (c *call) skip(p *provider, code string, why *reason, retryIn time.Duration) {
	c.refused = append(c.refused, p)
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	c.skips = append(c.skips, Candidate{
		Provider: p.name(), Handler: p.definition.Handler, Group: p.group.key.number, Priority: p.definition.Priority,
		Mock: p.shownAsMock(), Strategy: p.group.strategy.String(), Breaker: p.gateNow().breaker(), Code: code, Reason: why.words, RetryIn: retryIn, Err: why,
	})
}

func (c *call) skipped(provider string) bool {
	return slices.ContainsFunc(c.skips, func(s Candidate) bool { return s.Provider == provider })
}

func (c *call) tried(provider string) bool {
	return slices.ContainsFunc(c.ran, func(a Attempt) bool { return a.Provider == provider })
}

// failed makes the error of a call.
func (c *call) failed() error {
	ended := c.attempt.callerEnded()
	var unavailable *UnavailableError
	if ended == nil && (!c.entered || c.ranOut) {
		unavailable = c.unavailable()
		if len(c.ran) == 0 {
			return unavailable
		}
	}
	failure := &CallError{Service: c.slot.service.name, Attempts: c.ran, causes: c.causes, OnceOnly: c.barred}
	switch {
	case ended != nil:
		failure.ended = []error{ended}
		if caller := c.attempt.caller; caller.Err() != nil {
			failure.ended = fault.OfContext(caller)
		}
		if !c.entered {
			c.slot.service.tally.miss(nil)
		}
		return failure
	case unavailable == nil:
		failure.partial = true
		return failure.withRetryIn(c.slot)
	}
	failure.RetryIn = unavailable.RetryIn
	if unavailable.cause != nil {
		failure.causes = append(failure.causes, unavailable.cause)
	}
	for _, candidate := range unavailable.Candidates {
		if !c.tried(candidate.Provider) {
			failure.Skipped = append(failure.Skipped, candidate)
		}
	}
	return failure
}

// unavailable explains why there was nobody, or nobody else, for the call.
func (c *call) unavailable() *UnavailableError {
	unavailable := c.slot.unavailable(false, c.asker())
	for _, skip := range slices.Backward(c.skips) { // the last one is why
		for i := range unavailable.Candidates {
			if candidate := &unavailable.Candidates[i]; skip.Provider == candidate.Provider && candidate.Eligible {
				*candidate = skip
			}
		}
	}
	if len(c.skips) > 0 {
		unavailable.RetryIn = soonest(unavailable.Candidates)
	}
	if !c.entered {
		c.slot.service.tally.miss(unavailable)
	}
	return unavailable
}
