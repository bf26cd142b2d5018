package registry

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/internal/striped"
	"github.com/capreg/registry/internal/tasks"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/verdict"
)

// provider is one registration, from joining to the end of its last call.
type provider struct {
	registry   *Registry
	service    *service
	generation uint64
	order      uint64 // among equals; the generation, but for a stand-in
	layer      uint64 // of the override that it is of; zero: of none
	anything   bool   // it is whatever is asked for
	classify   verdict.Classifier

	// gate, instance and timeout are what a call reads.
	gate     atomic.Uint32
	instance atomic.Pointer[instance] // nil before a factory's success and after release
	timeout  atomic.Int64             // of one attempt, in nanoseconds
	breaker  breaker
	// learns says that a success may be more than one more: it is set before any of the
	// three below, or a breaker's policy that looks at successes, and stays.
	learns   atomic.Bool
	retries  atomic.Pointer[retries]          // nil: no failure yet, and the default policy
	grown    atomic.Bool                      // the next success ends the growth of cooldowns
	cutShort atomic.Uint32                    // attempts in a row that were cut for the sake of others
	standIn  atomic.Pointer[provider]         // acts in its place; written under Registry.mu
	limits   atomic.Pointer[limits]           // of its domain; nil: none
	vitals   atomic.Pointer[selection.Vitals] // nil: no strategy looks at them
	tookOver atomic.Uint64                    // attempts it was given because another one had failed
	held     atomic.Uint64                    // times its breaker stayed closed for the sake of the group
	counts   striped.Cells[counts]

	maker    *maker // nil for instances that were passed in
	contexts attemptctx.Set
	draining drain

	// definition is immutable but for Priority, Group, Strategy and Weight; those, group
	// and the fields below are guarded by Registry.mu.
	definition Definition
	group      *group
	places     []position // in the plans in force
	below      *provider  // that it stands in for; nil: it is no stand-in
	policy     health.Policy
	wellness   wellness
	unready    unready
	opening    opening       // of the breaker, the last time
	domain     *domain       // never another one
	alone      domain        // the domain of a provider that shares none
	cooldown   cooldown      // the provider's own, beside its domain's
	ready      time.Duration // when breaker and health last let calls in again
}

// counts are the outcomes of a provider's attempts. Each attempt adds one to
// attempts when it begins and one to another when it ends.
type counts struct {
	attempts, successes, failures, ignored, limited atomic.Uint64
	latency                                         atomic.Uint64 // sum over the successes, in nanoseconds
}

func newProvider(svc *service, e entry, generation uint64) *provider {
	p := &provider{
		registry: svc.registry, service: svc, generation: generation, order: generation, layer: e.layer,
		anything: e.layer > 0 && len(e.definition.Capabilities) == 0, classify: e.classify, definition: e.definition,
	}
	p.ready = svc.registry.now()
	p.timeout.Store(int64(e.timeout))
	if e.retry != (RetryPolicy{}) {
		p.learns.Store(true)
		p.retries.Store(newRetries(e.retry))
	}
	p.breaker.init(p, e.breaker)
	p.draining.init()
	p.policy = e.health
	p.wellness.since, p.wellness.shown = time.Now(), health.Healthy
	if e.instance != nil {
		p.instance.Store(e.instance)
	} else {
		p.maker = newMaker(p, e.build)
	}
	return p
}

func (p *provider) name() string { return p.definition.Name }
func (p *provider) mock() bool   { return p.definition.Mock }

func (p *provider) gateNow() gate { return gate(p.gate.Load()) }

func (p *provider) hasLeft() bool { return p.gateNow()&gateGone != 0 }

// displaced reports whether the provider has left, or another stands in for it: who has
// its place then is in no plan that offers it.
func (p *provider) displaced() bool { return p.gateNow()&(gateGone|gateReal) != 0 }

// missing returns the first capability that the provider lacks, or "".
func (p *provider) missing(capabilities []string) string {
	if p.anything {
		return ""
	}
	for _, wanted := range capabilities {
		has := false
		for _, capability := range p.definition.Capabilities {
			has = has || capability == wanted
		}
		if !has {
			return wanted
		}
	}
	return ""
}

// shift changes the gate of the provider, its place in the plans in force and
// publishes the change, all in one step. A provider that has left stays as it is.
func (p *provider) shift(cleared, set gate, change *event.Event) {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	p.shiftLocked(cleared, set, change)
}

// shiftLocked is shift for callers that hold Registry.mu.
func (p *provider) shiftLocked(cleared, set gate, change *event.Event) {
	before := p.gateNow()
	if before&gateGone != 0 {
		return
	}
	now := before&^cleared | set
	p.gate.Store(uint32(now))
	if before&gateAway != 0 && now&gateAway == 0 {
		p.ready = p.registry.now()
		if known := p.vitals.Load(); known != nil {
			known.Ready(p.ready)
		}
	}
	for _, at := range p.places {
		at.plan.set(at.at, now)
	}
	if change != nil {
		p.registry.bus.publish(p.event(*change))
	}
	if before&gateBlocked != 0 && now&gateBlocked == 0 || before&gateUnproven != 0 && now != before {
		p.registry.wakeWaiters() // also those who need not wait any longer for a first probe
	}
}

// event completes a change with whose it is.
func (p *provider) event(change event.Event) event.Event {
	change.Service, change.Provider, change.Generation = p.service.name, p.name(), p.generation
	return change
}

// totals sums the counts. Those that end are read before those that begin, so
// that what is in flight is never too low.
func (p *provider) totals() (info Info) {
	var latency uint64
	for cell := range p.counts.Each {
		info.Successes += cell.successes.Load()
		info.Failures += cell.failures.Load()
		info.Ignored += cell.ignored.Load()
		info.Limited += cell.limited.Load()
		latency += cell.latency.Load()
	}
	for cell := range p.counts.Each {
		info.Attempts += cell.attempts.Load()
	}
	info.InFlight = info.Attempts - info.Successes - info.Failures - info.Ignored - info.Limited
	if info.Successes > 0 {
		info.MeanLatency = time.Duration(latency / info.Successes) //nolint:gosec // a mean of durations
	}
	return info
}

func (p *provider) info() Info {
	breaker := p.breaker.read() // its lock comes before the registry's
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	return p.infoLocked(breaker)
}

// infoLocked is info for callers that hold Registry.mu.
func (p *provider) infoLocked(breaker BreakerStats) Info {
	info := p.totals()
	info.Breaker = breaker
	info.Definition = p.definitionLocked()
	info.Generation = p.generation
	info.Made = p.instance.Load() != nil
	info.AttemptTimeout = time.Duration(p.timeout.Load())
	info.Health = p.healthLocked()
	info.CooldownUntil = p.cooldownNow().until
	var candidate Candidate
	p.describe(&candidate, time.Now())
	info.Eligible, info.Reason = candidate.Eligible, candidate.Reason
	return info
}

// definitionLocked returns a copy. Caller holds Registry.mu.
func (p *provider) definitionLocked() Definition {
	d := p.definition.clone()
	d.Group, d.Strategy, d.Mock = p.group.key.number, p.group.strategy, p.shownAsMock()
	return d
}

// drain is the end of a provider: no new calls, those in flight end, then the
// instance is released.
type drain struct {
	idle     chan struct{} // closed when the last call has ended
	idleOnce sync.Once
	released chan struct{} // closed when the instance is released
	givenUp  bool          // Close waits for it no longer; guarded by Registry.mu
	release  sync.Once
	err      error // of the release; readable when released is closed

	// deadline is when the calls in flight are told to end.
	deadline atomic.Pointer[schedule.Timer]
	// stopLifetime stops the watch over the registration's lifetime context.
	stopLifetime atomic.Pointer[func() bool]
}

func (d *drain) init() {
	d.idle, d.released = make(chan struct{}), make(chan struct{})
}

// exit is called after the end of an attempt was counted.
func (p *provider) exit() {
	if p.hasLeft() {
		p.checkIdle()
	}
}

// checkIdle ends the drain when nothing is in flight. A call that begins looks
// at the gate after it has been counted, and the gate was set before the counts
// are read here, so no call is missed.
func (p *provider) checkIdle() {
	if p.totals().InFlight != 0 {
		return
	}
	p.draining.idleOnce.Do(func() {
		p.registry.mu.Lock()
		delete(p.registry.draining, p)
		left := !p.registry.closing || p.draining.givenUp // else Close releases, in its order
		p.registry.bus.publish(p.event(event.Event{Kind: event.Drained}))
		p.registry.mu.Unlock()
		close(p.draining.idle)
		if deadline := p.draining.deadline.Load(); deadline != nil {
			deadline.Stop()
		}
		if left {
			p.startRelease()
		}
	})
}

// retire ends what a provider that has left does by itself.
func (p *provider) retire() {
	p.stopLifetime()
	p.breaker.stop()
	p.unwatch()
	if p.maker != nil {
		p.maker.abandon() // those who wait for its factory move on
	}
}

// drainWithin lets the calls in flight go on for the given time, then cancels
// their contexts. It does not block.
func (p *provider) drainWithin(limit time.Duration) {
	p.retire()
	deadline := p.registry.schedule.After(limit, p.cancelCalls)
	p.draining.deadline.Store(deadline)
	p.checkIdle()
	select {
	case <-p.draining.idle: // perhaps before the deadline was stored
		deadline.Stop()
	default:
	}
}

func (p *provider) waitIdle(ctx context.Context) {
	select {
	case <-p.draining.idle:
	case <-ctx.Done():
	}
}

// cancelCalls tells the calls in flight that time is over.
func (p *provider) cancelCalls() {
	p.contexts.Cancel(fault.Join(fmt.Sprintf("registry: provider %q: ", p.name()), []error{ErrClosed}))
}

// startRelease gives up the instance: nothing of the registry refers to it
// afterwards. What a factory made is closed, in a goroutine of its own.
func (p *provider) startRelease() {
	p.draining.release.Do(func() {
		var ended <-chan struct{}
		if p.maker != nil {
			ended = p.maker.release() // before the swap: it makes nothing more after this
		}
		made := p.instance.Swap(nil)
		if (made == nil || made.closer == nil) && isDone(ended) {
			p.released(nil)
			return
		}
		p.registry.tasks.StartLast(fmt.Sprintf("closing of provider %q", p.name()), func() { p.closeInstance(made, ended) })
	})
}

// isDone reports whether the channel is closed, or nil.
func isDone(ended <-chan struct{}) bool {
	if ended == nil {
		return true
	}
	select {
	case <-ended:
		return true
	default:
		return false
	}
}

// closeInstance closes what the factory made, and waits for the end of a run
// whose product comes too late.
func (p *provider) closeInstance(made *instance, ended <-chan struct{}) {
	err := error(&PanicError{}) // what remains when Close exits the goroutine
	defer func() { p.released(err) }()
	if made != nil && made.closer != nil {
		err = fault.Run(made.closer.Close)
		return
	}
	<-ended
	err = nil
}

// released ends the release of the instance, with the error of its closer.
func (p *provider) released(err error) {
	switch {
	case err != nil:
		p.draining.err = fault.Wrap(fmt.Sprintf("closing provider %q: ", p.name()), err)
	case p.maker != nil && p.maker.late != nil:
		p.draining.err = p.maker.late
	}
	close(p.draining.released)
}

// release releases the instance of a provider that is idle, or will be within
// the time given, and says what stands in the way.
func (p *provider) release(limit tasks.GraceWait) error {
	select {
	case <-p.draining.idle:
	case <-limit.Over:
	}
	p.giveUp()
	return p.waitReleased(limit)
}

// giveUp releases the instance of a provider that is idle, and lets the end of the
// last call do so where it is not.
func (p *provider) giveUp() {
	p.registry.mu.Lock()
	_, busy := p.registry.draining[p]
	p.draining.givenUp = busy
	p.registry.mu.Unlock()
	if !busy {
		p.startRelease()
	}
}

// waitReleased returns the error of the release, or what it still waits for.
func (p *provider) waitReleased(limit tasks.GraceWait) error {
	select {
	case <-p.draining.released:
		return p.draining.err
	default:
	}
	select {
	case <-p.draining.released:
		return p.draining.err
	case <-limit.Over:
	}
	what := "closing its instance"
	if calls := p.totals().InFlight; calls > 0 {
		what = oneline.Plural(calls, "call") + " in flight"
	}
	stuck := fmt.Errorf("provider %q: %w: %s", p.name(), ErrStuck, what)
	return fault.Join("", append([]error{stuck}, fault.OfContext(limit.Context)...))
}

// endWith removes the provider when its lifetime ends.
func (p *provider) endWith(lifetime context.Context) {
	stop := context.AfterFunc(lifetime, func() {
		for _, left := range p.remove("lifetime ended") {
			left.drainWithin(left.registry.options.DrainTimeout)
		}
	})
	p.draining.stopLifetime.Store(&stop)
	if p.hasLeft() {
		stop()
	}
}

func (p *provider) stopLifetime() {
	if stop := p.draining.stopLifetime.Load(); stop != nil {
		(*stop)()
	}
}

// remove takes the provider out of the registry, together with those that stand
// in for it, and returns all of them; none when it had left.
func (p *provider) remove(reason string) (left []*provider) {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	if p.hasLeft() {
		return nil
	}
	left = p.stack()
	p.registry.leave(left[0], reason)
	return left
}

// Registration is the handle of one provider in its registry. All methods are
// safe for concurrent use. When the provider has left, reading still works and
// changing returns [ErrNotRegistered]. While a test has something in its place
// ([Service.Swap]), the handle is that one's.
type Registration struct {
	provider *provider
}

// Name returns the provider's name, also where the registry made it.
func (r *Registration) Name() string { return r.provider.name() }

// Info returns the present view of the provider. It changes nothing.
func (r *Registration) Info() Info { return r.acting().info() }

// Definition returns the provider's serialisable description.
func (r *Registration) Definition() Definition {
	r.provider.registry.mu.Lock()
	defer r.provider.registry.mu.Unlock()
	return r.acting().definitionLocked()
}

// Unregister removes the provider. New picks stop at once; Unregister then
// waits for calls and leases in flight, and for the closing of an instance that
// a factory made, whose error it returns.
//
// When ctx ends first, the contexts of the calls in flight are cancelled. Those
// that do not end within a second are no longer waited for, and the error
// matches [ErrStuck] and the context's error. A provider that has left is waited
// for all the same, so Unregister may be called any number of times.
func (r *Registration) Unregister(ctx context.Context) error {
	if ctx == nil {
		return invalid("ctx", verbatim("nil"), "a context")
	}
	left := r.provider.remove("unregistered")
	if left == nil {
		left = []*provider{r.provider}
	} else {
		retireAll(left)
	}
	return awaitReleased(ctx, left)
}

// retireAll ends what providers that have left do by themselves.
func retireAll(left []*provider) {
	for _, p := range left {
		p.retire()
		p.checkIdle()
	}
}

// awaitReleased waits for the calls in flight on providers that have left, which it
// cuts when ctx ends, and for the release of their instances.
func awaitReleased(ctx context.Context, left []*provider) error {
	limit := tasks.WithGrace(ctx)
	defer limit.Stop()
	var failures []error
	for _, p := range left {
		select {
		case <-p.draining.released:
		case <-ctx.Done():
			p.cancelCalls()
		}
	}
	for _, p := range left {
		if err := p.waitReleased(limit); err != nil {
			failures = append(failures, err)
		}
	}
	if len(failures) > 0 {
		return fault.Join("registry: ", failures)
	}
	return nil
}

// Left returns a channel that is closed when the provider has left the registry
// and its last call has ended.
func (r *Registration) Left() <-chan struct{} { return r.provider.draining.idle }

// SetPriority changes the provider's place inside its group and returns the
// previous priority.
func (r *Registration) SetPriority(priority Priority) (previous Priority, err error) {
	if !priority.valid() {
		return 0, invalid("Priority", priority, "one of CRITICAL, HIGH, NORMAL, LOW, FALLBACK")
	}
	err = r.change("priority", func(p *provider) (from, to any, err error) {
		previous, p.definition.Priority = p.definition.Priority, priority
		return previous, priority, nil
	})
	return previous, err
}

// SetGroup moves the provider to another priority group and returns the number
// of the previous one. It takes on the strategy of a group that exists, and
// takes its own along to a new one.
func (r *Registration) SetGroup(number int) (previous int, err error) {
	err = r.change("group", func(p *provider) (from, to any, err error) {
		previous = p.group.key.number
		strategy := p.group.strategy
		p.service.leaveGroup(p)
		p.service.enterGroup(p, groupID{p.definition.Handler, number, p.layer}, strategy)
		return previous, number, nil
	})
	return previous, err
}

// SetStrategy changes the strategy of the provider's whole group, for all its
// members, and returns the previous one.
func (r *Registration) SetStrategy(strategy Strategy) (previous Strategy, err error) {
	if strategy.IsZero() {
		return previous, invalid("Strategy", strategy.String(), "a strategy")
	}
	if err := checkStrategy(strategy); err != nil {
		return previous, err
	}
	strategy = r.provider.registry.namedStrategy(strategy)
	err = r.change("strategy of the group", func(p *provider) (from, to any, err error) {
		if strategy.Named() && strategy.Same(p.group.strategy) {
			strategy = p.group.strategy
		}
		if err := p.registry.knownStrategy(strategy); err != nil {
			return nil, nil, err
		}
		previous, p.group.strategy = p.group.strategy, strategy
		p.group.setBy = p.name()
		return previous, strategy, nil
	})
	return previous, err
}

// SetWeight changes the provider's share beside others (zero: 1), for strategies that
// heed it, and returns the previous one. What was measured of it is kept.
func (r *Registration) SetWeight(weight float64) (previous float64, err error) {
	if err := checkWeight(weight); err != nil {
		return 0, err
	}
	err = r.change("weight", func(p *provider) (from, to any, err error) {
		previous, p.definition.Weight = p.definition.Weight, weight
		return previous, weight, nil
	})
	return previous, err
}

// SetBreaker changes the breaker's policy and returns the previous one. State
// and counts are kept: a closed breaker follows the new policy from the next
// outcome on; an open or half-open period in progress ends as it began, but for
// the number of trial slots.
func (r *Registration) SetBreaker(policy BreakerPolicy) (previous BreakerPolicy, err error) {
	if err := r.present(); err != nil {
		return BreakerPolicy{}, err
	}
	p := r.acting()
	previous, err = p.breaker.configure(policy)
	if err != nil {
		return BreakerPolicy{}, err
	}
	p.shift(0, 0, &event.Event{
		Kind: event.Changed, Reason: "breaker", From: fmt.Sprintf("%+v", previous), To: fmt.Sprintf("%+v", policy),
	})
	return previous, nil
}

// SetAttemptTimeout changes the attempt timeout (zero: 30 s) for attempts that
// begin from now on, and returns the previous one.
func (r *Registration) SetAttemptTimeout(timeout time.Duration) (previous time.Duration, err error) {
	timeout, err = checkTimeout("AttemptTimeout", timeout)
	if err != nil {
		return 0, err
	}
	err = r.change("attempt timeout", func(p *provider) (from, to any, err error) {
		previous = time.Duration(p.timeout.Swap(int64(timeout)))
		return previous, timeout, nil
	})
	return previous, err
}

// SetLimits changes the limits of the provider's whole domain and returns the
// previous ones. Attempts in progress keep their places, and those who wait go on
// waiting; rates begin anew.
func (r *Registration) SetLimits(policy LimitPolicy) (previous LimitPolicy, err error) {
	if policy, err = policy.withDefaults(); err != nil {
		return LimitPolicy{}, err
	}
	err = r.change("limits of the domain", func(p *provider) (from, to any, err error) {
		if before := p.domain.limits; before != nil {
			previous = before.policy
		}
		p.limitDomain(policy)
		return fmt.Sprintf("%+v", previous), fmt.Sprintf("%+v", policy), nil
	})
	return previous, err
}

// SetRetry changes the retry policy for calls that fail from now on, and returns
// the previous one. The budget begins anew.
func (r *Registration) SetRetry(policy RetryPolicy) (previous RetryPolicy, err error) {
	if policy, err = policy.withDefaults(); err != nil {
		return RetryPolicy{}, err
	}
	err = r.change("retry", func(p *provider) (from, to any, err error) {
		previous, _ = RetryPolicy{}.withDefaults() // the zero value is valid
		p.learns.Store(true)
		if before := p.retries.Swap(newRetries(policy)); before != nil {
			previous = before.policy
		}
		return fmt.Sprintf("%+v", previous), fmt.Sprintf("%+v", policy), nil
	})
	return previous, err
}

// change makes one change of membership or settings, in one step with its event.
func (r *Registration) change(what string, apply func(*provider) (from, to any, err error)) error {
	r.provider.registry.mu.Lock()
	defer r.provider.registry.mu.Unlock()
	if err := r.presentLocked(); err != nil {
		return err
	}
	p := r.acting()
	from, to, err := apply(p)
	if err != nil {
		return err
	}
	p.service.outdate()
	p.registry.bus.publish(p.event(event.Event{
		Kind: event.Changed, Reason: what, From: fmt.Sprint(from), To: fmt.Sprint(to),
	}))
	return nil
}

func (r *Registration) present() error {
	r.provider.registry.mu.Lock()
	defer r.provider.registry.mu.Unlock()
	return r.presentLocked()
}

func (r *Registration) presentLocked() error {
	if r.acting().hasLeft() {
		return fmt.Errorf("registry: provider %q: %w", r.provider.name(), ErrNotRegistered)
	}
	return nil
}

// Breaker returns the state of the provider's breaker. It changes nothing.
func (r *Registration) Breaker() BreakerStats { return r.acting().breaker.read() }

// ForceOpen opens the breaker for the given time, more than zero, whatever its
// state; then it is half-open. The reason is shown to whoever asks why. The
// next ordinary trip has the ordinary recovery time again.
func (r *Registration) ForceOpen(openFor time.Duration, reason string) error {
	if err := r.present(); err != nil {
		return err
	}
	return r.acting().breaker.forceOpen(openFor, reason)
}

// Reset closes the breaker with all its counts at zero, and ends a cooldown
// together with its growth.
func (r *Registration) Reset() error {
	if err := r.present(); err != nil {
		return err
	}
	p := r.acting()
	p.breaker.reset()
	p.endCooldown()
	return nil
}
