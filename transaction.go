package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/changeset"
	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/comeback"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/override"
	"github.com/capreg/registry/internal/pick"
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
	proofs   changeset.Proofs // of the providers that have to prove themselves
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
	for _, i := range t.proofs.All() {
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
			t.proofs.Add(i, s.entry.proving)
		}
	}
	if len(t.proofs.All()) == 0 {
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
	plan, refused := changeset.Resolve(r.world(*r.services.Load()), changes,
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
	for began := t.registry.now(); ; {
		left, changed, err := t.applyIfProven(t.registry.now() - began)
		if err != nil || t.applied {
			return err
		}
		if comeback.Await(ctx, left, changed) == comeback.Cancelled {
			return t.refuseAll(fault.OfContext(ctx))
		}
	}
}

// applyIfProven applies the set if all have proven themselves. Otherwise it returns a channel that is closed when that
// may be so, and the time until the first of them is late.
func (t *transaction) applyIfProven(after time.Duration) (left time.Duration, changed <-chan struct{}, err error) {
	r := t.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing {
		return 0, nil, fmt.Errorf("registry: %w", ErrClosed)
	}
	failed, left, proven := t.proofs.Look(after, t.proofLocked)
	switch {
	case len(failed) > 0:
		return 0, nil, t.join(t.refuseUnprovenLocked(failed, after))
	case !proven:
		return left, r.changedLocked(), nil
	}
	if err = t.validateLocked(); err == nil {
		t.applyLocked()
	}
	return 0, nil, err
}

// proofLocked tells how far the provider of a step has proven itself.
func (t *transaction) proofLocked(i int) changeset.Proof {
	p := t.joining[i]
	switch now := p.gateNow(); {
	case now&(refusal.NotReady|refusal.Unhealthy) != 0:
		return changeset.Failed
	case now&refusal.Unproven == 0 && (p.lazy == nil || p.instance.Load() != nil) && p.health.watch.CapabilitiesWork():
		return changeset.Proven
	}
	return changeset.Pending
}

// refuseUnprovenLocked returns the errors of providers that have not proven themselves, and publishes them.
func (t *transaction) refuseUnprovenLocked(failed []int, after time.Duration) (errs []error) {
	for _, i := range failed {
		p := t.joining[i]
		why := refusal.NotProven(p.gateNow(), facts{p}, p.outage(p.definition.Capabilities), t.proofs.Late(i, after), time.Now())
		p.registry.bus.Publish(p.event(event.Event{Kind: event.Refused, Reason: why.Error(), Err: why}))
		errs = append(errs, t.of(i, fault.Wrap(fmt.Sprintf("registry: provider %q has not proven itself: ", shortName(p.name())), why)))
	}
	return errs
}

// refuseAll returns the error of a set whose context ended before all had proven themselves.
func (t *transaction) refuseAll(causes []error) error {
	t.registry.mu.Lock()
	defer t.registry.mu.Unlock()
	unproven := slices.DeleteFunc(slices.Clone(t.proofs.All()), func(i int) bool { return t.proofLocked(i) == changeset.Proven })
	return fault.Join("registry: ", append(append(causes, ErrNotReady), t.refuseUnprovenLocked(unproven, 0)...))
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
		t.applyStepLocked(i)
	}
	for _, brought := range t.plan.Strategies {
		if p := r.providers[brought.By]; !brought.Value.Same(p.group.Strategy) {
			change, _ := strategySetting(brought.Value, new(selection.Strategy)) // its input was checked
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

func (t *transaction) applyStepLocked(i int) {
	r, s := t.registry, &t.steps[i]
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
		Domain: override.DomainKey(e.definition.Domain, e.overrideID > 0), Limits: limit.Policy(e.limits),
		Mock: e.definition.Mock, OfTest: e.overrideID > 0,
	}
}

// world returns what the check of a set looks at, with Registry.mu held.
func (m *membership) world(services map[string]*service) changeset.Members[*provider] {
	return changeset.Members[*provider]{
		Named: m.providers, Domains: m.domains,
		Of: func(service string) (map[*provider]struct{}, pick.Groups) {
			svc := services[service]
			return svc.members, svc.groups
		},
		Describe: func(p *provider) (string, changeset.Member) {
			return p.name(), changeset.Member{
				Service: p.service.name, Group: p.group.GroupID, Domain: override.DomainKey(p.definition.Domain, p.ofTest()),
				Mock: p.mock(), OfTest: p.overrideID > 0,
			}
		},
		CheckName: m.overrides.CheckName,
	}
}
