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
	changes  []changeset.Change
	steps    []step // by change
	set      bool   // errors say which change of the set they are of
	plan     changeset.Plan
	proofs   changeset.Proofs // of the providers that have to prove themselves
	applied  bool
	left     []*provider // to be drained
}

// run makes the changes, or none.
func (t *transaction) run(ctx context.Context) error {
	if err := t.admit(ctx); err != nil {
		return err
	}
	defer t.finish() // deferred: ctx is a user's
	if err := t.begin(); err != nil || t.applied {
		return err
	}
	for _, i := range t.proofs.All() {
		if p := t.steps[i].provider; p.lazy != nil {
			p.lazy.Start()
		}
	}
	return t.prove(ctx)
}

// admit checks the input, finds the services and asks the admission hook.
func (t *transaction) admit(ctx context.Context) error {
	var errs []error
	for i := range t.steps {
		s := &t.steps[i]
		t.changes[i].Wanted = t.registry.strategies.Resolve(t.changes[i].Wanted)
		s.entry.definition.Strategy = t.registry.strategies.Resolve(s.entry.definition.Strategy)
		if s.refused == nil && s.find != nil {
			s.service, _, s.refused = s.find(t.registry)
		}
		if s.refused != nil {
			errs = append(errs, t.of(i, s.refused))
		}
	}
	for i := range t.steps {
		if s := &t.steps[i]; len(errs) == 0 && s.joins() && s.entry.overrideID == 0 {
			if err := t.registry.askAdmission(ctx, &s.entry.definition); err != nil {
				return t.join([]error{t.of(i, err)})
			}
		}
	}
	return t.join(errs)
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
		if d := &t.steps[i].entry.definition; t.steps[i].joins() && d.Name == "" {
			d.Name = r.unusedName(d.Service, t.steps)
		}
	}
	if err := t.validateLocked(); err != nil {
		return err
	}
	for i := range t.steps {
		s := &t.steps[i]
		if !s.joins() {
			continue
		}
		s.provider = r.make(s.service, &s.entry)
		if s.entry.overrideID == 0 && (t.set || s.replaced != nil) && s.entry.provesItself() {
			t.proofs.Add(i, s.entry.proving)
		}
	}
	if len(t.proofs.All()) == 0 {
		t.applyLocked()
	}
	return nil
}

// provesItself reports whether the provider of the entry proves itself before it takes the place of another.
func (e *entry) provesItself() bool {
	own := e.health.Probe != nil || e.instance != nil && e.instance.Checker != nil
	return !e.atOnce && (e.build != nil || !e.health.Off && (own || len(e.health.Capabilities) > 0))
}

// validateLocked checks the set against the present members, whatever was checked before.
func (t *transaction) validateLocked() error {
	r := t.registry
	if r.closing {
		return fmt.Errorf("registry: %w", ErrClosed)
	}
	for i := range t.steps {
		if s, c := &t.steps[i], &t.changes[i]; s.joins() {
			listed, err := s.service.list()
			if err != nil {
				return t.of(i, err)
			}
			s.service = listed
			c.Name, c.Replace, c.Member = s.entry.definition.Name, s.entry.replace, s.entry.member()
			s.replaced = r.providers[c.Name]
		}
	}
	plan, refused := changeset.Resolve(&r.world, t.changes, changeset.Rules{Strategies: r.strategies, ForbidMocks: r.options.ForbidMocks})
	var errs []error
	for _, no := range refused {
		errs = append(errs, t.of(no.Index, &FieldError{Field: no.Field, Value: no.Value, Bound: no.Bound, Err: no.Kind}))
	}
	for i := range t.steps {
		s := &t.steps[i]
		if s.joins() || len(refused) > 0 {
			continue
		}
		s.provider = r.providers[t.changes[i].Name]
		if err := s.setting.check(s.provider); err != nil {
			errs = append(errs, t.of(i, err))
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
	p := t.steps[i].provider
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
		p := t.steps[i].provider
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
		t.steps[i].provider.service.outdate()
	}
	for _, i := range t.plan.Order {
		t.applyStepLocked(&t.steps[i], t.changes[i].Kind)
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

func (t *transaction) applyStepLocked(s *step, kind changeset.Kind) {
	switch r := t.registry; kind {
	case changeset.Leave:
		t.left = append(t.left, s.provider.chain()...)
		r.remove(s.provider, "unregistered")
	case changeset.Join:
		if s.replaced != nil && s.replaced.hasLeft() { // the set has removed it
			s.replaced = nil
		} else if s.replaced != nil {
			t.left = append(t.left, s.replaced)
		}
		r.join(s.provider, s.replaced, &s.entry)
		s.handle.provider = s.provider
	default:
		s.setting.applyTo(s.provider)
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
	for i := range t.steps {
		s := &t.steps[i]
		if s.setting.after != nil {
			s.setting.after(s.provider)
		}
		if s.entry.until != nil {
			s.provider.watchLifetime(s.entry.until)
		}
	}
}

func (t *transaction) undo() {
	r := t.registry
	var made []*provider
	r.mu.Lock()
	for i := range t.steps {
		s := &t.steps[i]
		if s.joins() && s.provider != nil {
			r.drop(s.provider)
			made = append(made, s.provider)
		}
		if s.service != nil {
			s.service.forgetIdle()
		}
	}
	r.mu.Unlock()
	quiesceAll(made)
}

// member returns what the provider of the entry shares, or wants to share, with others.
func (e *entry) member() changeset.Member {
	return changeset.Member{
		Service: e.definition.Service, Group: e.groupID(), Strategy: e.definition.Strategy,
		Domain: override.DomainKey(e.definition.Domain, e.overrideID > 0), Limits: limit.Policy(e.limits),
		Mock: e.definition.Mock, OfTest: e.overrideID > 0,
	}
}

// newWorld returns what the check of a set looks at, with Registry.mu held.
func (r *Registry) newWorld() changeset.Members[*provider] {
	return changeset.Members[*provider]{
		Named: r.providers, Domains: r.domains,
		Of: func(service string) (map[*provider]struct{}, pick.Groups) {
			svc := r.knownService(service)
			return svc.members, svc.groups
		},
		Describe: func(p *provider) (string, changeset.Member) {
			return p.name(), changeset.Member{
				Service: p.service.name, Group: p.group.GroupID, Domain: override.DomainKey(p.definition.Domain, p.ofTest()),
				Mock: p.mock(), OfTest: p.overrideID > 0,
			}
		},
		CheckName: r.overrides.CheckName,
	}
}
