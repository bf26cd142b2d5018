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
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/override"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/status"
)

// transaction is an update that is being made: the host of its [changeset.Transaction].
type transaction struct {
	*Registry

	changes changeset.Transaction
	steps   []step // by change
	set     bool   // errors say which change of the set they are of
	done    bool
	left    []*provider // to be drained

	// The room that a set of one change needs.
	oneChange [1]changeset.Change
	oneStep   [1]step
	oneEntry  entry
}

// run makes the changes, or none.
func (t *transaction) run(ctx context.Context, changes []changeset.Change) error {
	if err := t.checkInput(changes); err != nil {
		return err
	}
	if err := t.askAdmit(ctx); err != nil {
		return err
	}
	defer t.finish() // deferred: ctx is a user's
	return t.changes.Run(ctx)
}

// checkInput checks the input and finds the services.
func (t *transaction) checkInput(changes []changeset.Change) error {
	t.changes = changeset.Transaction{
		Host: t, World: &t.world, Changes: changes,
		Rules: changeset.Rules{Strategies: t.strategies, ForbidMocks: t.options.ForbidMocks},
	}
	var errs []error
	for i := range t.steps {
		s := &t.steps[i]
		t.changes.Changes[i].Wanted = t.strategies.Resolve(t.changes.Changes[i].Wanted)
		if s.joins() {
			s.entry.definition.Strategy = t.strategies.Resolve(s.entry.definition.Strategy)
		}
		if s.refused == nil && s.find != nil {
			s.service, _, s.refused = s.find(t.Registry)
		}
		if s.refused != nil {
			errs = append(errs, t.of(i, s.refused))
		}
	}
	return t.Join(errs)
}

// askAdmit asks the admission hook.
func (t *transaction) askAdmit(ctx context.Context) error {
	for i := range t.steps {
		if s := &t.steps[i]; s.joins() && s.entry.overrideID == 0 {
			if err := t.askAdmission(ctx, &s.entry.definition); err != nil {
				return t.Join([]error{t.of(i, err)})
			}
		}
	}
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

// Refuse implements [changeset.Host], as the methods below do.
func (t *transaction) Refuse(no changeset.Refusal) error {
	return t.of(no.Index, &FieldError{Field: no.Field, Value: no.Value, Bound: no.Bound, Err: no.Kind})
}

// Join returns the errors of all changes as one.
func (t *transaction) Join(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	if !t.set {
		return errs[0]
	}
	return fault.Join("", errs)
}

// Lock and Unlock are those of the registry.
func (t *transaction) Lock()   { t.mu.Lock() }
func (t *transaction) Unlock() { t.mu.Unlock() }

// Open returns the error of a registry that is closing.
func (t *transaction) Open() error {
	if t.closing {
		return fmt.Errorf("registry: %w", ErrClosed)
	}
	return nil
}

// Complete finds the provider that a change is of, and the service and the name of one that joins.
func (t *transaction) Complete(i int, c *changeset.Change) (err error) {
	s := &t.steps[i]
	if s.only != nil && s.only.hasLeft() {
		return t.of(i, errLeft(s.only))
	}
	if !s.joins() {
		s.provider = t.providers[c.Of]
		return nil
	}
	if s.service, err = s.service.list(); err != nil {
		return t.of(i, err)
	}
	d := &s.entry.definition
	if d.Name == "" {
		d.Name = changeset.NameFor(d.Service, &t.unnamed, t.nameTaken)
	}
	c.Of = status.ProviderID{Service: d.Service, Name: d.Name}
	s.replaced = t.providers[c.Of]
	c.Replace, c.Member = s.entry.replace, s.entry.member()
	return nil
}

// nameTaken reports whether a provider of the service has the name, or one that is to join with it.
func (t *transaction) nameTaken(id status.ProviderID) bool {
	return t.providers[id] != nil ||
		slices.ContainsFunc(t.steps, func(s step) bool { return s.joins() && s.entry.definition.Name == id.Name })
}

// Accept checks what depends on the provider that a setting is of.
func (t *transaction) Accept(i int) error {
	if err := t.steps[i].setting.check(t.steps[i].provider); err != nil {
		return t.of(i, err)
	}
	return nil
}

// Make makes the provider that joins.
func (t *transaction) Make(i int) (within time.Duration) {
	s := &t.steps[i]
	s.provider = t.make(s.service, s.entry)
	if s.entry.overrideID == 0 && (t.set || s.replaced != nil) && s.entry.provesItself() {
		return s.entry.proving
	}
	return 0
}

// provesItself reports whether the provider of the entry proves itself before it takes the place of another.
func (e *entry) provesItself() bool {
	own := e.health.Probe != nil || e.instance != nil && e.instance.Checker != nil
	return !e.atOnce && (e.build != nil || !e.health.Off && (own || len(e.health.Capabilities) > 0))
}

// Prove runs the factory; probes run already.
func (t *transaction) Prove(i int) {
	if made := t.steps[i].provider.lazy; made != nil {
		made.Start()
	}
}

// Proof tells how far the provider has proven itself.
func (t *transaction) Proof(i int) changeset.Proof {
	p := t.steps[i].provider
	switch now := p.gateNow(); {
	case now&(refusal.NotReady|refusal.Unhealthy) != 0:
		return changeset.Failed
	case now&refusal.Unproven == 0 && (p.lazy == nil || p.instance.Load() != nil) && p.health.Watch.CapabilitiesWork():
		return changeset.Proven
	}
	return changeset.Pending
}

// Changed returns a channel that is closed when any provider has changed.
func (t *transaction) Changed() <-chan struct{} { return t.changedLocked() }

// Unproven returns the error of a provider that has not proven itself, and publishes it.
func (t *transaction) Unproven(i int, late bool) error {
	p := t.steps[i].provider
	why := refusal.NotProven(p.gateNow(), facts{p}, p.outage(p.definition.Capabilities), late, time.Now())
	t.bus.Publish(p.event(event.Event{Kind: event.Refused, Reason: why.Error(), Err: why}))
	return t.of(i, fault.Wrap(fmt.Sprintf("registry: provider %q has not proven itself: ", shortName(p.id().String())), why))
}

// Prepare puts the plans out of force that the change concerns.
func (t *transaction) Prepare(i int) { t.steps[i].provider.service.outdate() }

// Apply makes one change.
func (t *transaction) Apply(i int) {
	switch s := &t.steps[i]; t.changes.Changes[i].Kind {
	case changeset.Leave:
		t.left = append(t.left, s.provider.chain()...)
		t.remove(s.provider, "unregistered")
	case changeset.Join:
		if s.replaced != nil && s.replaced.hasLeft() { // the set has removed it
			s.replaced = nil
		} else if s.replaced != nil {
			t.left = append(t.left, s.replaced)
		}
		t.join(s.provider, s.replaced, s.entry)
		s.handle.provider = s.provider
	default:
		s.setting.applyTo(s.provider)
	}
}

// SetStrategy sets the strategy of the provider's group.
func (t *transaction) SetStrategy(by status.ProviderID, strategy selection.Strategy) {
	if p := t.providers[by]; !strategy.Same(p.group.Strategy) {
		change, _ := strategySetting(strategy, new(selection.Strategy)) // its input was checked
		change.applyTo(p)
	}
}

// SetLimits sets the limits of the provider's domain.
func (t *transaction) SetLimits(by status.ProviderID, policy limit.Policy) {
	if p := t.providers[by]; policy != p.domain.Policy() {
		change, _ := limitsSetting(LimitPolicy(policy), new(LimitPolicy))
		change.applyTo(p)
	}
}

// Done forgets the services that have no provider any more.
func (t *transaction) Done() {
	for _, p := range t.left {
		p.service.forgetIdle()
	}
	t.done = true
}

// finish does what remains when the set is applied, or drops the providers that were made.
func (t *transaction) finish() {
	if !t.done {
		t.undo()
		return
	}
	for _, p := range t.left {
		p.drain.StartWithin(t.options.DrainTimeout)
	}
	for i := range t.steps {
		s := &t.steps[i]
		if s.setting.after != nil {
			s.setting.after(s.provider)
		}
		if s.joins() && s.entry.until != nil {
			s.provider.watchLifetime(s.entry.until)
		}
	}
}

func (t *transaction) undo() {
	var made []*provider
	t.mu.Lock()
	for i := range t.steps {
		s := &t.steps[i]
		if s.joins() && s.provider != nil {
			t.drop(s.provider)
			made = append(made, s.provider)
		}
		if s.service != nil {
			s.service.forgetIdle()
		}
	}
	t.mu.Unlock()
	quiesceAll(made)
}

// member returns what the provider of the entry shares, or wants to share, with others.
func (e *entry) member() changeset.Member {
	return changeset.Member{
		Group: e.groupID(), Strategy: e.definition.Strategy,
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
		Describe: func(p *provider) (status.ProviderID, changeset.Member) {
			return p.id(), changeset.Member{
				Group: p.group.GroupID, Domain: override.DomainKey(p.definition.Domain, p.ofTest()),
				Mock: p.mock(), OfTest: p.overrideID > 0,
			}
		},
		CheckName: r.overrides.CheckName,
	}
}
