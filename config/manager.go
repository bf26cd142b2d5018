package config

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/capreg/registry"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
)

// Options configures a Manager. The zero value of each field is its default.
type Options struct {
	// Kinds are those that documents may ask for.
	Kinds []Kind
	// Strategies are those that groups may name beside FALLBACK and ROUND_ROBIN: the ones of
	// [registry.Options.Strategies]. Default: those of package selectors.
	Strategies []selection.Strategy
	// Listen, when set, is called with each document that was applied or refused, one call at a time. A panic of it is
	// recovered.
	Listen func(Event)
}

// Manager makes the providers of a registry those of a document. Providers that the program registers by itself are
// left alone, and count where a plan says what is picked.
//
// All methods are safe for concurrent use. Documents are applied one at a time; those that wait for their turn do so
// within their contexts.
type Manager struct {
	registry *registry.Registry
	options  Options
	kinds    kinds
	turn     chan struct{} // held while a document is planned or applied

	// Guarded by turn.
	usual map[string]selection.Policy // of services, before documents set another one

	mu sync.Mutex // held for a moment, and never while other code runs

	// Guarded by mu, and changed with the turn held.
	applied      *prepared
	before       *prepared          // the one before that, which a canary goes back to; nil: none
	sharesBefore map[identity]share // the counts of attempts when it was replaced
	restored     map[identity]providerState
	salt         []byte // of their identities
}

// New returns a manager of the registry, which has applied nothing yet. It starts nothing, and needs no closing. The
// errors match [registry.ErrInvalid] or [registry.ErrConflict].
func New(r *registry.Registry, options Options) (*Manager, error) {
	if r == nil {
		return nil, fmt.Errorf("config: the registry is nil: %w", registry.ErrInvalid)
	}
	known, err := index(options.Kinds)
	if err != nil {
		return nil, err
	}
	if options.Strategies == nil {
		options.Strategies = selectors.All()
	}
	m := &Manager{
		registry: r, options: options, kinds: known, turn: make(chan struct{}, 1),
		usual: make(map[string]selection.Policy), applied: nothing(),
	}
	return m, nil
}

func nothing() *prepared {
	return &prepared{Document: newDocument(), by: make(map[identity]*spec), secrets: newSecrets()}
}

// Current returns the document that was applied last; nil before the first.
func (m *Manager) Current() *Document {
	if at := m.current(); len(at.specs) > 0 {
		return at.Document
	}
	return nil
}

func (m *Manager) current() *prepared {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.applied
}

// WaitReady waits until each service that the applied document requires has an eligible provider; see
// [registry.Registry.WaitReady].
func (m *Manager) WaitReady(ctx context.Context) error {
	if required := m.current().Required; len(required) > 0 {
		return m.registry.WaitReady(ctx, required...)
	}
	return nil
}

// take waits for the turn, which is given back by the function that it returns.
func (m *Manager) take(ctx context.Context) (release func(), err error) {
	if ctx == nil {
		return nil, fmt.Errorf("config: the context is nil: %w", registry.ErrInvalid)
	}
	select {
	case m.turn <- struct{}{}:
		return func() { <-m.turn }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Plan returns what applying the document would change. It changes nothing and makes no instance. It blocks while
// another document is applied, within ctx, and on the files of references.
//
// A document that would be refused is an [Error], as far as that can be known before its providers are made.
func (m *Manager) Plan(ctx context.Context, d *Document) (*Plan, error) {
	release, err := m.take(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	p, err := m.plan(d)
	if err != nil {
		return nil, err
	}
	return p.plan, nil
}

// planned is a document that is ready to be applied.
type planned struct {
	old, next *prepared
	now       listed
	plan      *Plan
}

// plan understands the document and compares it with what is there. Caller has the turn.
func (m *Manager) plan(d *Document) (*planned, error) {
	if d == nil {
		return nil, errNoDocument()
	}
	old := m.current()
	next, problems := m.kinds.prepare(d, old)
	if err := refusal(problems); err != nil {
		return nil, err
	}
	now := listed{by: make(map[identity]*registry.Info)}
	for info := range m.registry.All() {
		id := identity{info.Service, info.Name}
		now.order, now.by[id] = append(now.order, id), &info
	}
	plan := &Plan{Changes: diff(old, next, func(id identity) bool { return now.by[id] != nil })}
	if err := m.rehearse(old, next, now, plan); err != nil {
		return nil, err
	}
	plan.Warnings = append(plan.Warnings, next.warnLiterals()...)
	return &planned{old, next, now, plan}, nil
}

func errNoDocument() error {
	return &Error{Problems: []Problem{{Text: "there is no document", Err: registry.ErrInvalid}}}
}

// listed holds the providers of the registry at one moment, in the order of its listing, which is that of picks among equals.
type listed struct {
	order []identity
	by    map[identity]*registry.Info
}

// rehearse tries the plan without instances: whether a registry accepts it, and what it then picks.
func (m *Manager) rehearse(old, next *prepared, now listed, plan *Plan) error {
	after, err := newRehearsal(m.options.Strategies)
	if err != nil {
		return err
	}
	action := make(map[identity]Action)
	for _, c := range plan.Changes {
		action[identity{c.Service, c.Provider}] = c.Action
	}
	for _, id := range now.order {
		s, info, out := next.by[id], now.by[id], ""
		if act := action[id]; !info.Eligible && (act == Keep || act == Alter) {
			out = info.Reason
		}
		switch {
		case s != nil:
			after.add(s, out)
		case old.by[id] == nil: // the program's own
			after.addListed(info)
		}
	}
	for _, s := range next.specs {
		if now.by[s.identity] == nil {
			after.add(s, "")
		}
	}
	problems := after.run(next.places)
	problems = append(problems, after.selectAll(next)...)
	if err := refusal(problems); err != nil {
		return err
	}
	return m.compare(next, now, plan, after)
}

// compare adds to the plan what is picked before and after, and what may not be meant.
func (m *Manager) compare(next *prepared, now listed, plan *Plan, after *rehearsal) error {
	before, err := newRehearsal(m.options.Strategies)
	if err != nil {
		return err
	}
	asked := make(map[string]bool)
	for _, q := range next.Queries {
		asked[q.Service] = true
	}
	for _, id := range now.order {
		if asked[id.service] {
			before.addListed(now.by[id])
		}
	}
	if err := refusal(before.run(nil)); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(next.Queries)) {
		q := next.Queries[name]
		plan.Picks = append(plan.Picks, Pick{Query: name, Before: before.picked(&q), After: after.picked(&q)})
	}
	plan.Warnings = next.warnFallback(now.firsts(), after.first)
	return nil
}

// firsts returns the number of the first group with an eligible provider, by service; none: no entry.
func (l listed) firsts() map[string]int {
	first := make(map[string]int)
	for id, info := range l.by {
		if group, known := first[id.service]; info.Eligible && (!known || info.Group < group) {
			first[id.service] = info.Group
		}
	}
	return first
}

// warnFallback warns of services that lose their first group, or all that is healthy.
func (p *prepared) warnFallback(before, after map[string]int) (warnings []string) {
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		first, served := after[name]
		switch began, was := before[name]; {
		case !served:
			warnings = append(warnings, fmt.Sprintf("service %q has no healthy provider afterwards", name))
		case was && first > began:
			warnings = append(warnings, fmt.Sprintf("service %q falls back from group %d to group %d", name, began, first))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if _, served := after[name]; !served && len(p.Services[name].Providers) == 0 {
			warnings = append(warnings, fmt.Sprintf("service %q has no provider afterwards", name))
		}
	}
	return warnings
}
