package registry

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync/atomic"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/meter"
	"github.com/capreg/registry/internal/override"
	"github.com/capreg/registry/internal/pace"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/query"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/internal/typed"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/verdict"
)

// Service is the typed key of a service: a name bound to one Go type.
//
// Declare it once, as a package-level variable, and use it to register and to resolve. A registry binds the name to
// the type with its first provider, or by [Service.Bind], [Service.Classify] or [Service.SetSelection]; from then
// on another type for the same name is an error matching [ErrConflict]. A name that only providers have bound is
// forgotten with the last of them. A Service holds no state, may be copied, and is safe for concurrent use.
type Service[T any] struct {
	name string
}

// NewService returns the key of the named service. It never fails: a bad name (empty, longer than 256 bytes, not
// UTF-8, with control characters or spaces at its ends) is an error of each operation that uses the key.
func NewService[T any](name string) Service[T] { return Service[T]{name: name} }

// Name returns the name of the service.
func (s Service[T]) Name() string { return s.name }

// Provider returns the registration input that def describes. Its Instance or
// Factory remains to be set. The service of def is ignored.
func (s Service[T]) Provider(def Definition) Provider[T] {
	return Provider[T]{
		Name: def.Name, Handler: def.Handler, Capabilities: slices.Clone(def.Capabilities),
		Priority: def.Priority, Group: def.Group, Strategy: def.Strategy, Mock: def.Mock,
		LastResort: def.LastResort, Window: def.Window, Domain: def.Domain,
		Version: def.Version, Description: def.Description, Endpoint: def.Endpoint,
		Requires: slices.Clone(def.Requires), Metadata: maps.Clone(def.Metadata),
		Tags: slices.Clone(def.Tags), Region: def.Region, Weight: def.Weight, NoTraffic: def.NoTraffic, Cost: def.Cost,
		Endpoints: maps.Clone(def.Endpoints), Team: def.Team, Documentation: def.Documentation, ExpectedResponse: def.ExpectedResponse,
	}
}

// Register adds a provider to the registry and returns its handle.
//
// It blocks on the admission hook ([Options.Admit]), which gets ctx, and while a provider that replaces another
// proves itself ([Provider.Replace]), within ctx. Otherwise an instance is eligible at once or, where it has a probe,
// after the first probe that succeeds; a factory runs at first need. ctx does not limit the life of the registration:
// see [Provider.Until]. A registration that fails leaves no trace, except for an event where it has not proven itself.
//
// The errors match [ErrInvalid] or [ErrConflict] (as [FieldError]), [ErrExists] or [ErrClosed], or wrap the error of
// the admission hook. One that has not proven itself matches [ErrNotReady], what it failed with, and the error of ctx
// where that ended first.
func (s Service[T]) Register(ctx context.Context, r *Registry, p Provider[T]) (*Registration, error) {
	if !r.made() {
		return nil, errNotMade()
	}
	e, err := newEntry(s.name, p)
	if err != nil {
		return nil, err
	}
	svc, _, err := s.find(r)
	if err != nil {
		return nil, err
	}
	return r.register(ctx, svc, &e)
}

// Classify sets the classifier of the service in that registry and replaces the previous one; nil removes it. It
// recognises errors of all providers of the service, after the provider's own classifier and before the registry's
// and the built-in one. It applies to outcomes from now on.
//
// The errors match [ErrInvalid] or [ErrConflict].
func (s Service[T]) Classify(r *Registry, classify verdict.Classifier) error {
	svc, err := s.in(r)
	if err != nil {
		return err
	}
	svc.classify.Store(&classify)
	return nil
}

// Bind returns a resolver of the service for one kind of request. Keep it: it holds the prepared plan for the
// query, and resolving through it takes no lock and allocates nothing. Bind itself never fails; a bad query, key or
// registry is an error of each method of the resolver.
func (s Service[T]) Bind(r *Registry, q Query) *Resolver[T] {
	var plan *queryPlan
	svc, err := s.in(r)
	if err == nil {
		plan, err = svc.queryPlan(&q)
	}
	kept := q.clone()
	return &Resolver[T]{plan: plan, service: s.name, query: &kept, key: kept.Key, err: err}
}

// Get is [Resolver.Get] for a query that is used once. [Service.Bind] is faster for a query that is used again.
// Nothing is kept of a name that the registry does not know.
func (s Service[T]) Get(ctx context.Context, r *Registry, q Query) (T, error) {
	svc, listed, err := s.find(r)
	resolver := Resolver[T]{key: q.Key, err: err}
	if err == nil {
		resolver.plan, resolver.err = svc.queryPlan(&q)
	}
	if err == nil && !listed {
		defer r.forgotten.Add(svc.meter)
	}
	return resolver.Get(ctx)
}

// Selection returns the selection policy in force for the service in that registry. It binds nothing. The errors
// match [ErrInvalid] or [ErrConflict].
func (s Service[T]) Selection(r *Registry) (policy selection.Policy, err error) {
	svc, _, err := s.find(r)
	if err != nil {
		return policy, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return svc.policy, nil
}

// SetSelection changes the selection policy of the service in that registry, from now on: the treatment of its
// groups and the measurements of its providers. It returns the previous policy. Measurements are kept.
//
// The errors match [ErrInvalid] (a [FieldError] that names the field), [ErrConflict] or [ErrClosed]; nothing changes.
func (s Service[T]) SetSelection(r *Registry, policy selection.Policy) (previous selection.Policy, err error) {
	if _, _, err := s.find(r); err != nil {
		return previous, err
	}
	if err := checkSelection("Selection", policy); err != nil {
		return previous, err
	}
	svc, err := s.in(r)
	if err != nil {
		return previous, err
	}
	return svc.setSelection(policy)
}

// in returns the service of the key in the registry, which it binds for good.
func (s Service[T]) in(r *Registry) (*service, error) {
	svc, _, err := s.find(r)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if svc, err = svc.list(); err == nil {
		svc.bound = true
	}
	return svc, err
}

// find returns the service of the key in the registry, or a new one that is not listed.
func (s Service[T]) find(r *Registry) (svc *service, listed bool, err error) {
	if !r.made() {
		return nil, false, errNotMade()
	}
	if svc = r.knownService(s.name); svc != nil {
		return svc, true, svc.checkType(reflect.TypeFor[T]())
	}
	if err := checkServiceName(s.name); err != nil {
		return nil, false, err
	}
	return newService(r, s.name, typed.Bind[T]()), false, nil
}

// service is a service in one registry. It is listed from its first provider, or until the registry closes from its
// binding, and forgotten when neither is left. Of a name there is at most one that is listed.
type service struct {
	registry *Registry
	name     string
	binding  typed.Binding
	plans    *query.Cache[*queryPlan] // changed under Registry.mu
	classify atomic.Pointer[verdict.Classifier]
	meter    *meter.Service
	pace     pace.Pace // of the longest answers of any provider

	serviceState
}

// serviceState is the part of a service that Registry.mu guards. All its methods are called with that mutex held.
type serviceState struct {
	bound     bool // for good, by more than its providers
	proving   int  // providers that are to join
	members   map[*provider]struct{}
	groups    pick.Groups
	overrides override.Stack
	policy    selection.Policy
	sorted    query.Scopes[*provider] // nil when out of date
	version   uint64                  // of the plans; it grows with what puts them out of force
}

func (r *Registry) knownService(name string) *service { return (*r.services.Load())[name] }

func (s *service) checkType(goType reflect.Type) error {
	if s.binding.Type == goType {
		return nil
	}
	return refuse(ErrConflict, "Service", s.name,
		fmt.Sprintf("Go type %v, which it is bound to, not %v", s.binding.Type, goType))
}

// list makes look-ups find the service, and returns it or one that was listed meanwhile. Caller holds Registry.mu.
func (s *service) list() (*service, error) {
	known := *s.registry.services.Load()
	if listed, ok := known[s.name]; ok {
		return listed, listed.checkType(s.binding.Type)
	}
	services := maps.Clone(known)
	services[s.name] = s
	s.registry.services.Store(&services)
	return s, nil
}

// forgetIdle forgets a service that has no provider and that only providers have bound. Caller holds Registry.mu.
func (s *service) forgetIdle() {
	if s.bound || s.proving > 0 || len(s.members) > 0 || s.registry.knownService(s.name) != s {
		return
	}
	services := maps.Clone(*s.registry.services.Load())
	delete(services, s.name)
	s.registry.services.Store(&services)
	s.registry.forgotten.Add(s.meter)
}

func newService(r *Registry, name string, b typed.Binding) *service {
	svc := &service{registry: r, name: name, binding: b, meter: meter.NewService(), serviceState: serviceState{
		members: make(map[*provider]struct{}), groups: make(pick.Groups), policy: r.options.Selection,
	}}
	svc.plans = query.NewCache(r.seed, (*queryPlan).drop)
	return svc
}

func (s *service) setSelection(policy selection.Policy) (previous selection.Policy, err error) {
	r := s.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing {
		return previous, fmt.Errorf("registry: %w", ErrClosed)
	}
	previous, s.policy = s.policy, policy
	for p := range s.members {
		if measured := p.vitals.Load(); measured != nil {
			measured.SetDecay(policy.Decay)
		}
	}
	s.outdate()
	r.bus.Publish(event.Event{
		Kind: event.Changed, Service: s.name, Reason: "selection",
		From: fmt.Sprintf("%+v", previous), To: fmt.Sprintf("%+v", policy),
	})
	return previous, nil
}

// served reports whether any provider is eligible.
func (s *serviceState) served() bool {
	for p := range s.members {
		if p.gateNow()&refusal.Blocked == 0 && s.mismatch(p, Query{}) == nil {
			return true
		}
	}
	return false
}

// names lists the members, for an error.
func (s *serviceState) names() string {
	var names []string
	for member := range s.members {
		names = append(names, member.name())
	}
	return refusal.NamesOf(names)
}

// assign makes p a member of the group. [pick.Groups.Leave] takes it out, but p.group stays, for explanations.
func (s *serviceState) assign(p *provider, id pick.GroupID, wanted selection.Strategy) {
	if wanted.IsZero() {
		wanted = StrategyFallback
	}
	p.group = s.groups.Join(id, wanted, p.name())
	p.definition.Group = id.Number
}
