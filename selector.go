package registry

import (
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/verdict"
)

// selectorHooks returns the hooks of a plan of the query. groups are the groups of its tiers. Caller holds
// Registry.mu.
func (s *queryPlan) selectorHooks(p *plan, groups []*pick.Group) pick.Hooks {
	hooks := pick.Hooks{Fault: s.service.selectorFailed}
	if kept := s.service.registry.decisions; kept != nil {
		hooks.Decided = func(d pick.Decision) {
			kept.Add(selection.Decision{
				Time: time.Now(), Service: s.service.name, Query: strings.TrimSpace(s.query.String()),
				Provider: p.candidates[d.Candidate].name(), Group: groups[d.Tier].Number, Strategy: d.Strategy,
				Eligible: d.Eligible, Candidates: d.Candidates, Asked: d.Asked, Detail: d.Detail,
			})
		}
	}
	return hooks
}

// selectorFailed publishes a fault of a selector.
func (s *service) selectorFailed(f pick.Failure) {
	change := event.Event{
		Kind: event.SelectorFailed, Service: s.name, Reason: "strategy " + f.Strategy.String() + " " + f.Kind.String(),
	}
	if f.Kind == pick.Panicked {
		change.Err = &verdict.PanicError{Value: f.Value, Stack: debug.Stack()}
	}
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	s.registry.bus.Publish(change)
}

func requestOf(q *Query, service string) selection.Request {
	return selection.Request{
		// Copies: selectors see them.
		Service: service, Handler: q.Handler, Require: slices.Clone(q.Require), Prefer: slices.Clone(q.Prefer), Near: q.Near, Where: q.Where.Clone(),
	}
}

// profileOf returns the part of a definition that selectors and requirements see.
func profileOf(d *Definition) choice.Profile {
	return choice.Profile{
		Service: d.Service, Handler: d.Handler, Name: d.Name, Capabilities: d.Capabilities, Tags: d.Tags,
		Metadata: d.Metadata, Version: d.Version, Region: d.Region, Weight: d.Weight, Cost: d.Cost,
	}
}

// vitalsOf returns the vitals of the provider, made for the first plan that reads them. Caller holds Registry.mu.
func vitalsOf(p *provider) *choice.Vitals {
	known := p.vitals.Load()
	if known == nil {
		known = choice.NewVitals(p.ready, p.service.policy.Decay)
		p.vitals.Store(known)
		p.showVitals()
	}
	return known
}
