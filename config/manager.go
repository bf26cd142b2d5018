package config

import (
	"context"
	"errors"
	"fmt"
	"iter"
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
	unmade   bool          // it works without instances, in a registry of its own
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

// planned is a document that is ready to be applied, with the changes that do so.
type planned struct {
	old, next *prepared
	now       listed
	plan      *Plan
	set       changes
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
	p := &planned{old: old, next: next, now: m.list(old, next), plan: &Plan{}}
	p.plan.Changes = diff(old, next, p.now.has)
	p.set = changes{old: old, next: next, unmade: m.unmade}
	p.set.collect(p.plan)
	before, err1 := newRehearsal(m.options.Strategies)
	after, err2 := newRehearsal(m.options.Strategies)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if err := m.registry.CheckUpdate(&p.set.update); err != nil {
		problems = problemsOf(err, next.places, p.set.of)
	}
	if err := refusal(append(problems, after.selectAll(next)...)); err != nil {
		return nil, err
	}
	if err := p.rehearse(before, after); err != nil {
		return nil, err
	}
	p.plan.Warnings = append(next.warnFallback(p.now.firsts(), p.firsts()), next.warnLiterals()...)
	return p, nil
}

func errNoDocument() error {
	return &Error{Problems: []Problem{{Text: "there is no document", Err: registry.ErrInvalid}}}
}

// listed holds the providers of the registry at one moment, in the order of its listing, which is that of picks among equals.
type listed struct {
	all    []stands
	by     map[identity]int // in all
	shares map[identity]share
}

// stands is a provider as the registry lists it, as far as a plan needs it.
type stands struct {
	identity

	group    int
	eligible bool
	reason   string
	info     *registry.Info // where it is to be rehearsed as it is; else nil
}

func (l *listed) has(id identity) bool {
	_, there := l.by[id]
	return there
}

// list lists the providers, in full those of the services that queries are about.
func (m *Manager) list(old, next *prepared) listed {
	now := listed{by: make(map[identity]int, len(old.specs)), shares: make(map[identity]share, len(old.specs))}
	asked := next.asked()
	for info := range m.registry.All() {
		s := stands{identity{info.Service, info.Name}, info.Group, info.Eligible, info.Reason, nil}
		if asked[s.service] {
			whole := info // a copy: only what is kept is to be allocated
			s.info = &whole
		}
		now.by[s.identity] = len(now.all)
		now.all = append(now.all, s)
		now.shares[shareOf(&info)] = share{info.Attempts, info.Failures}
	}
	return now
}

// asked returns the services that queries are about.
func (p *prepared) asked() map[string]bool {
	asked := make(map[string]bool, len(p.Queries))
	for _, q := range p.Queries {
		asked[q.Service] = true
	}
	return asked
}

// rehearse tries without instances what is picked before and after. The selection policies after are in force.
func (p *planned) rehearse(before, after *rehearsal) error {
	asked := p.next.asked()
	for i := range p.now.all {
		if at := &p.now.all[i]; at.info != nil {
			before.addListed(at.info)
		}
	}
	for at := range p.afterwards() {
		switch {
		case !asked[at.service]:
		case at.spec != nil:
			after.add(at.spec, at.out)
		default:
			after.addListed(p.now.all[p.now.by[at.identity]].info)
		}
	}
	if err := refusal(slices.Concat(before.run(nil), after.run(p.next.places))); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(p.next.Queries)) {
		q := p.next.Queries[name]
		p.plan.Picks = append(p.plan.Picks, Pick{Query: name, Before: before.picked(&q), After: after.picked(&q)})
	}
	return nil
}

// becomes is a provider after the plan: one of the document, or one of the program's own.
type becomes struct {
	identity

	spec  *spec // nil: the program's own
	group int
	out   string // why it is not eligible; empty: it is
}

// afterwards yields the providers after the plan, in their order.
func (p *planned) afterwards() iter.Seq[becomes] {
	kept := make(map[identity]bool, len(p.plan.Changes))
	for i := range p.plan.Changes {
		c := &p.plan.Changes[i]
		kept[identity{c.Service, c.Provider}] = c.Action == Keep || c.Action == Alter
	}
	return func(yield func(becomes) bool) {
		for i := range p.now.all {
			at := &p.now.all[i]
			if b, stays := p.becomes(at, kept[at.identity]); stays && !yield(b) {
				return
			}
		}
		for _, s := range p.next.specs {
			if !p.now.has(s.identity) && !yield(becomes{identity: s.identity, spec: s, group: s.Group}) {
				return
			}
		}
	}
}

// becomes returns what a provider is after the plan, which keeps its instance or not; false: it is removed.
func (p *planned) becomes(at *stands, kept bool) (b becomes, stays bool) {
	b = becomes{identity: at.identity, spec: p.next.by[at.identity], group: at.group}
	if b.spec != nil {
		b.group = b.spec.Group
	} else if p.old.by[at.identity] != nil {
		return b, false
	}
	if !at.eligible && (b.spec == nil || kept) {
		b.out = at.reason
	}
	return b, true
}

// firsts returns the number of the first group with an eligible provider, by service; none: no entry.
func (l *listed) firsts() map[string]int {
	first := make(map[string]int)
	for i := range l.all {
		if at := &l.all[i]; at.eligible {
			lower(first, at.service, at.group)
		}
	}
	return first
}

// firsts is that of [listed] after the plan, where those that are new are healthy.
func (p *planned) firsts() map[string]int {
	first := make(map[string]int)
	for at := range p.afterwards() {
		if at.out == "" && (at.spec == nil || !at.spec.NoTraffic) {
			lower(first, at.service, at.group)
		}
	}
	return first
}

func lower(first map[string]int, service string, group int) {
	if known, there := first[service]; !there || group < known {
		first[service] = group
	}
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
