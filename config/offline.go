package config

import (
	"fmt"
	"maps"
	"slices"

	"github.com/capreg/registry"
	"github.com/capreg/registry/selectors"
)

// The functions of this file work on documents alone, as a command line does. Without kinds they take the settings of
// providers as they are, references included.

// Check returns what is wrong with a document, as an [Error], without a registry: all that [Manager.Plan] finds. With
// no Options.Kinds, settings are not checked and references not resolved.
func Check(d *Document, options Options) error {
	_, _, err := rehearsed(d, options)
	return err
}

// Compare returns the plan from one document to the next, all of whose providers are taken to be healthy. A nil old
// document is one without providers. The error is an [Error].
func Compare(old, next *Document, options Options) (*Plan, error) {
	m, err := offline(options)
	if err != nil {
		return nil, err
	}
	if old != nil {
		before, r, err := rehearsed(old, options)
		if err != nil {
			return nil, err
		}
		m.applied, m.registry = before, r.registry
	} else if m.registry, err = registry.New(registry.Options{Strategies: m.options.Strategies}); err != nil {
		return nil, err
	}
	p, err := m.plan(next)
	if err != nil {
		return nil, err
	}
	return p.plan, nil
}

// Explain returns which provider the named query of a document is given to when all are healthy, and why not the
// others. The error is an [Error], or matches [registry.ErrInvalid] for a query that the document does not have.
func Explain(d *Document, query string, options Options) (registry.Explanation, error) {
	p, r, err := rehearsed(d, options)
	if err != nil {
		return registry.Explanation{}, err
	}
	q, there := p.Queries[query]
	if !there {
		return registry.Explanation{}, fmt.Errorf("config: the document has no query %q: want one of %v: %w",
			query, slices.Sorted(maps.Keys(p.Queries)), registry.ErrInvalid)
	}
	return registry.NewService[any](q.Service).Bind(r.registry, q.Query).Explain(), nil
}

// offline returns a manager without a registry.
func offline(options Options) (*Manager, error) {
	known, err := index(options.Kinds)
	if err != nil {
		return nil, err
	}
	if len(options.Kinds) == 0 {
		known = nil // any kind
	}
	if options.Strategies == nil {
		options.Strategies = selectors.All()
	}
	return &Manager{options: options, kinds: known, applied: nothing(), unmade: true}, nil
}

// rehearsed returns a document that was tried, and the registry that it was tried in.
func rehearsed(d *Document, options Options) (*prepared, *rehearsal, error) {
	m, err := offline(options)
	if err != nil {
		return nil, nil, err
	}
	if d == nil {
		return nil, nil, errNoDocument()
	}
	p, problems := m.kinds.prepare(d, nothing())
	if err := refusal(problems); err != nil {
		return nil, nil, err
	}
	r, err := newRehearsal(m.options.Strategies)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range p.specs {
		r.add(s, "")
	}
	problems = r.run(p.places)
	problems = append(problems, r.selectAll(p)...)
	if err := refusal(problems); err != nil {
		return nil, nil, err
	}
	return p, r, nil
}
