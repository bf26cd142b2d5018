package registry

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/changeset"
	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/selection"
)

// transaction is an update that is being made.
//
//	state    | next, where all is well               | otherwise
//	new      | checked: the input, by the hook       | refused
//	checked  | made: the providers that join         | refused
//	made     | proven: none of them has failed       | refused
//	proven   | applied, if it still can be           | refused: those that were made are dropped
type transaction struct {
	registry *Registry
	steps    []step
	set      bool                // errors say which change of the set they are of
	services map[string]*service // that providers join
	joining  []*provider         // by step; nil: none, or not yet
	plan     changeset.Plan
	proving  []int // the steps whose providers have to prove themselves
	applied  bool
	changed  []*provider // by step; whose setting was changed
	left     []*provider // to be drained
}

// run makes the changes, or none.
func (t *transaction) run(ctx context.Context) error {
	if err := t.admit(ctx); err != nil {
		return err
	}
	t.joining, t.changed = make([]*provider, len(t.steps)), make([]*provider, len(t.steps))
	defer t.finish() // deferred: ctx is a user's
	if err := t.begin(); err != nil || t.applied {
		return err
	}
	for _, i := range t.proving {
		if p := t.joining[i]; p.lazy != nil {
			p.lazy.Start()
		}
	}
	return t.prove(ctx)
}

// admit checks the input, finds the services and asks the admission hook.
func (t *transaction) admit(ctx context.Context) error {
	var errs []error
	t.services = make(map[string]*service)
	for i := range t.steps {
		s := &t.steps[i]
		s.change.Wanted = t.registry.strategies.Resolve(s.change.Wanted)
		if s.refused == nil && s.find != nil {
			s.entry.definition.Strategy = t.registry.strategies.Resolve(s.entry.definition.Strategy)
			s.refused = t.findService(s)
		}
		if s.refused != nil {
			errs = append(errs, t.of(i, s.refused))
		}
	}
	for i, s := range t.steps {
		if len(errs) == 0 && s.find != nil && s.entry.overrideID == 0 {
			if err := t.registry.askAdmission(ctx, s.entry.definition); err != nil {
				return t.join([]error{t.of(i, err)})
			}
		}
	}
	return t.join(errs)
}

// findService finds the service that a provider joins, which may be new, and one for several of the set.
func (t *transaction) findService(s *step) error {
	svc, _, err := s.find(t.registry)
	if err != nil {
		return err
	}
	if known, ok := t.services[svc.name]; ok {
		return known.checkType(svc.binding.Type)
	}
	t.services[svc.name] = svc
	return nil
}

// of makes an error say which change of the set it is of.
func (t *transaction) of(i int, err error) error {
	if !t.set {
		return err
	}
	var field *FieldError
	if errors.As(err, &field) {
		return &FieldError{Field: check.Item("Update", i) + "." + field.Field, Value: field.Value, Bound: field.Bound, Err: field.Err}
	}
	return fault.Wrap(check.Item("Update", i)+": ", err)
}

// join returns the errors of all changes as one.
func (t *transaction) join(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	if !t.set {
		return errs[0]
	}
	return fault.Join("", errs)
}

// begin checks the set, makes the providers that join and, unless one of them has to prove itself, applies the set.
func (t *transaction) begin() error {
	r := t.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range t.steps {
		if d := &t.steps[i].entry.definition; t.steps[i].find != nil && d.Name == "" {
			d.Name = t.unusedNameLocked(d.Service)
		}
	}
	if err := t.validateLocked(); err != nil {
		return err
	}
	for i, s := range t.steps {
		if s.find == nil {
			continue
		}
		t.joining[i] = r.make(t.services[s.entry.definition.Service], s.entry)
		if t.provesItselfLocked(&s.entry) {
			t.proving = append(t.proving, i)
		}
	}
	if len(t.proving) == 0 {
		t.applyLocked()
	}
	return nil
}

// unusedNameLocked returns a name that no provider has, nor another one of the set.
func (t *transaction) unusedNameLocked(service string) string {
	for {
		name := t.registry.unusedName(service)
		if !slices.ContainsFunc(t.steps, func(s step) bool { return s.entry.definition.Name == name }) {
			return name
		}
	}
}

// provesItselfLocked reports whether the provider of an entry proves itself before it joins.
func (t *transaction) provesItselfLocked(e *entry) bool {
	if e.atOnce || e.overrideID > 0 || !t.set && t.registry.providers[e.definition.Name] == nil {
		return false
	}
	own := e.health.Probe != nil || e.instance != nil && e.instance.Checker != nil
	return e.build != nil || !e.health.Off && (own || len(e.health.Capabilities) > 0)
}

// validateLocked checks the set against the present members, whatever was checked before.
func (t *transaction) validateLocked() error {
	r := t.registry
	if r.closing {
		return fmt.Errorf("registry: %w", ErrClosed)
	}
	var errs []error
	for name, svc := range t.services {
		listed, err := svc.list()
		if err != nil {
			return err
		}
		t.services[name] = listed
	}
	changes := make([]changeset.Change, len(t.steps))
	for i, s := range t.steps {
		changes[i] = s.change
		if s.find != nil {
			changes[i].Name, changes[i].Replace, changes[i].Member = s.entry.definition.Name, s.entry.replace, s.entry.member()
		}
	}
	plan, refused := changeset.Resolve(world{r}, changes,
		changeset.Rules{Strategies: r.strategies, ForbidMocks: r.options.ForbidMocks})
	for _, no := range refused {
		errs = append(errs, t.of(no.Index, &FieldError{Field: no.Field, Value: no.Value, Bound: no.Bound, Err: no.Kind}))
	}
	for i, s := range t.steps {
		if p := r.providers[s.change.Name]; p != nil && s.find == nil && len(refused) == 0 {
			if err := s.setting.check(p); err != nil {
				errs = append(errs, t.of(i, err))
			}
		}
	}
	t.plan = plan
	return t.join(errs)
}

// prove applies the set when all that have to prove themselves have done so, within ctx and their own time.
func (t *transaction) prove(ctx context.Context) error {
	began := t.registry.now()
	for waiting := t.proving; ; {
		left, changed, err := t.applyIfProven(&waiting, t.registry.now()-began)
		if err != nil || t.applied {
			return err
		}
		if await(ctx, left, changed) == waitCancelled {
			return t.refuseAll(fault.OfContext(ctx))
		}
	}
}

// applyIfProven removes those that have proven themselves from the waiting ones, and applies the set when none is left.
// Otherwise it returns a channel that is closed when that may be so, and the time until the first of them is too late.
func (t *transaction) applyIfProven(waiting *[]int, after time.Duration) (left time.Duration, changed <-chan struct{}, err error) {
	r := t.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing {
		return 0, nil, fmt.Errorf("registry: %w", ErrClosed)
	}
	still, failed := t.unprovenLocked(*waiting, after)
	if len(still)+len(failed) == 0 { // those that were well a while ago have to be so now
		still, failed = t.unprovenLocked(t.proving, after)
	}
	if len(failed) > 0 {
		var errs []error
		for _, i := range failed {
			errs = append(errs, t.of(i, refuseUnprovenLocked(t.joining[i], t.steps[i].entry.proving <= after)))
		}
		return 0, nil, t.join(errs)
	}
	if len(still) == 0 {
		if err := t.validateLocked(); err != nil {
			return 0, nil, err
		}
		t.applyLocked()
		return 0, nil, nil
	}
	left = math.MaxInt64
	for _, i := range still {
		left = min(left, t.steps[i].entry.proving-after)
	}
	*waiting = still
	return left, r.changedLocked(), nil
}

// unprovenLocked returns those of the steps whose providers may still prove themselves, and those whose providers have failed
// or are too late.
func (t *transaction) unprovenLocked(steps []int, after time.Duration) (still, failed []int) {
	for _, i := range steps {
		p := t.joining[i]
		switch now := p.gateNow(); {
		case now&(gateNotReady|gateUnhealthy) != 0:
			failed = append(failed, i)
		case now&gateUnproven == 0 && (p.lazy == nil || p.instance.Load() != nil) && p.health.watch.CapabilitiesWork():
		case t.steps[i].entry.proving <= after:
			failed = append(failed, i)
		default:
			still = append(still, i)
		}
	}
	return still, failed
}

// refuseUnprovenLocked returns the error of a provider that has not proven itself, and publishes it.
func refuseUnprovenLocked(p *provider, late bool) error {
	why := refusal.NotProven(p.gateNow(), facts{p}, p.outage(p.definition.Capabilities), late, time.Now())
	p.registry.bus.Publish(p.event(event.Event{Kind: event.Refused, Reason: why.Error(), Err: why}))
	return fault.Wrap(fmt.Sprintf("registry: provider %q has not proven itself: ", shortName(p.name())), why)
}

// refuseAll returns the error of a set whose context ended before all had proven themselves.
func (t *transaction) refuseAll(causes []error) error {
	t.registry.mu.Lock()
	defer t.registry.mu.Unlock()
	still, failed := t.unprovenLocked(t.proving, 0)
	for _, i := range append(failed, still...) {
		causes = append(causes, t.of(i, refuseUnprovenLocked(t.joining[i], false)))
	}
	return fault.Join("registry: ", append(causes, ErrNotReady))
}

// applyLocked makes the changes that were checked.
func (t *transaction) applyLocked() {
	r := t.registry
	for i := range t.steps { // first: a plan that is still iterated over stays as it was
		if s := &t.steps[i]; s.find != nil {
			t.joining[i].service.outdate()
		} else {
			r.providers[s.change.Name].service.outdate()
		}
	}
	for _, i := range t.plan.Order {
		s := &t.steps[i]
		switch s.change.Kind {
		case changeset.Leave:
			p := r.providers[s.change.Name]
			t.left = append(t.left, p.chain()...)
			r.remove(p, "unregistered")
		case changeset.Join:
			replaced := r.providers[s.entry.definition.Name]
			if replaced != nil {
				t.left = append(t.left, replaced)
			}
			r.join(t.joining[i], replaced, s.entry)
			s.handle.provider = t.joining[i]
		default:
			t.changed[i] = r.providers[s.change.Name]
			s.setting.applyTo(t.changed[i])
		}
	}
	for _, brought := range t.plan.Strategies {
		if p := r.providers[brought.By]; !brought.Value.Same(p.group.Strategy) {
			change, _ := strategySetting(brought.Value, new(Strategy)) // its input was checked
			change.applyTo(p)
		}
	}
	for _, brought := range t.plan.Limits {
		if p := r.providers[brought.By]; brought.Value != p.domain.Policy() {
			change, _ := limitsSetting(LimitPolicy(brought.Value), new(LimitPolicy))
			change.applyTo(p)
		}
	}
	for _, p := range t.left {
		p.service.forgetIdle()
	}
	t.applied = true
}

// finish does what remains when the set is applied, or drops the providers that were made.
func (t *transaction) finish() {
	if !t.applied {
		t.undo()
		return
	}
	for _, p := range t.left {
		p.drain.StartWithin(t.registry.options.DrainTimeout)
	}
	for i, s := range t.steps {
		if p := t.changed[i]; p != nil && s.setting.after != nil {
			s.setting.after(p)
		}
		if until := s.entry.until; until != nil {
			t.joining[i].watchLifetime(until)
		}
	}
}

func (t *transaction) undo() {
	r := t.registry
	r.mu.Lock()
	for _, p := range t.joining {
		if p != nil {
			r.drop(p)
		}
	}
	for _, svc := range t.services {
		svc.forgetIdle()
	}
	r.mu.Unlock()
	for _, p := range t.joining {
		if p != nil {
			p.drain.Start()
		}
	}
}

// member returns what the provider of the entry shares, or wants to share, with others.
func (e *entry) member() changeset.Member {
	return changeset.Member{
		Service: e.definition.Service, Group: e.groupID(), Strategy: e.definition.Strategy,
		Domain: domainKey(e.definition.Domain, e.overrideID > 0), Limits: limit.Policy(e.limits),
		Mock: e.definition.Mock, OfTest: e.overrideID > 0,
	}
}

// world lets the check of a set see the members. Its methods are called with Registry.mu held.
type world struct{ registry *Registry }

func (w world) Member(name string) (m changeset.Member, ok bool) {
	p, ok := w.registry.providers[name]
	if !ok {
		return m, false
	}
	return memberOf(p), true
}

func memberOf(p *provider) changeset.Member {
	return changeset.Member{
		Service: p.service.name, Group: p.group.GroupID, Domain: domainKey(p.definition.Domain, p.ofTest()),
		Mock: p.mock(), OfTest: p.overrideID > 0,
	}
}

func (w world) SwappedBy(name string) string {
	for _, o := range w.registry.overrides {
		if o.swapped == name {
			return o.owner
		}
	}
	return ""
}

func (w world) Group(group changeset.GroupKey) (shared changeset.Shared[selection.Strategy]) {
	svc := w.registry.knownService(group.Service)
	if svc == nil || svc.groups[group.ID] == nil {
		return shared
	}
	g := svc.groups[group.ID]
	return changeset.Shared[selection.Strategy]{Value: g.Strategy, By: g.SetBy, Size: g.Size(), Names: func(yield func(string) bool) {
		for p := range svc.members {
			if p.group == g && !yield(p.name()) {
				return
			}
		}
	}}
}

func (w world) Domain(key string) (shared changeset.Shared[limit.Policy]) {
	d, ok := w.registry.domains[key]
	if !ok {
		return shared
	}
	return changeset.Shared[limit.Policy]{Value: d.Policy(), By: d.LimitsBy(), Size: d.Size(), Names: func(yield func(string) bool) {
		for _, p := range d.Members() {
			if !yield(p.name()) {
				return
			}
		}
	}}
}

func (w world) Members(service string) iter.Seq2[string, changeset.Member] {
	return func(yield func(string, changeset.Member) bool) {
		for p := range w.registry.knownService(service).members {
			if !yield(p.name(), memberOf(p)) {
				return
			}
		}
	}
}
