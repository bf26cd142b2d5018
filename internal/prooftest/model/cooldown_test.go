package model_test

import (
	"slices"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// domain is what the providers have in common that name it; one that names none has one for itself.
type domain struct {
	name    string
	members []*provider
	places  int // calls at once; 0: any number
	inside  int
	rest    rest
}

// rest is a cooldown. A part of its length is random, so that its end is known by its bounds.
type rest struct {
	least, most time.Duration // 0: there is none
	parked      bool
	begun       int   // since the last success, which doubles the next one
	refused     []int // the calls in a row whose credentials were refused
}

// cool says how long an outcome keeps a provider, or all of its domain, away.
type cool struct {
	shared      bool          // by the domain
	first, last time.Duration // where the server asks for nothing: doubled from the first to the last
	after       time.Duration // what it asks for
	third       bool          // only at the third call in a row
	parks       bool
}

// mostRefused is the number of calls in a row that are refused before the key is taken to be dead.
const mostRefused = 3

// cool begins the cooldown that an outcome says, or makes it longer.
func (o *oracle) cool(p *provider, out outcome, call int) {
	if slices.Contains(o.gone, p) {
		return // it may have been asked with another key
	}
	if out.counts == "success" {
		for _, r := range []*rest{&p.rest, &p.domain.rest} {
			r.refused = nil
			if out.name == fine.name {
				r.begun = 0
			}
		}
	}
	c, r := out.cool, &p.rest
	if c.shared && o.defect != "cools down one of the domain" {
		r = &p.domain.rest
	}
	if c.third {
		if len(r.refused) < mostRefused && !slices.Contains(r.refused, call) {
			r.refused = append(r.refused, call)
		}
		if len(r.refused) < mostRefused && o.defect != "parks at the first refusal" {
			return
		}
	}
	if o.defect == "lets a later cooldown shorten" {
		r.end()
	}
	if c != (cool{}) {
		r.extend(o.now, c)
	}
}

func (r *rest) extend(now time.Duration, c cool) {
	shortest, longest := c.after, c.after
	switch {
	case c.first == 0: // what was asked for, to the nanosecond
	case c.after > 0:
		longest += c.after / 10
	default:
		doubled := r.begun
		if r.most > 0 {
			doubled = max(doubled-1, 0)
		}
		longest = min(c.first<<min(doubled, 16), c.last)
		shortest = longest - longest/5
	}
	if r.most == 0 && c.first > 0 {
		r.begun++
	}
	r.least, r.most = max(r.least, now+shortest), max(r.most, now+longest)
	r.parked = r.parked || c.parks
}

// end ends the cooldown; the next one is as long as it would have been.
func (r *rest) end() { r.least, r.most, r.parked = 0, 0, false }

// reset forgets everything.
func (r *rest) reset() { *r = rest{} }

// forgiveKey forgets what only the key was to blame for.
func (d *domain) forgiveKey() {
	d.rest.refused = nil
	if d.rest.parked {
		d.rest.end()
	}
}

// enterDomain makes the provider a member; an empty name stands for a domain of its own.
func (o *oracle) enterDomain(p *provider, name string, places int) {
	d := o.domains[name]
	if d == nil {
		d = &domain{name: name, places: places}
	}
	if name != "" {
		o.domains[name] = d
	}
	p.domain = d
	d.members = append(d.members, p)
}

// leaveDomain ends the domain with its last member.
func (o *oracle) leaveDomain(p *provider) {
	d := p.domain
	d.members = slices.DeleteFunc(d.members, func(other *provider) bool { return other == p })
	if len(d.members) == 0 {
		delete(o.domains, d.name)
	}
}

// adopt takes over the ends of the cooldowns of all providers, of which a part is random, after a look at their
// bounds. The later of a provider's own and its domain's is what can be read of both.
func (m *machine) adopt(rt *rapid.T) {
	now := m.oracle.now
	for _, p := range m.oracle.providers {
		own, shared := &p.rest, &p.domain.rest
		until := m.handles[p].Info().Cooldown.Until
		shown := time.Duration(0)
		if !until.IsZero() {
			shown = until.Sub(m.began)
		}
		for _, r := range []*rest{own, shared} {
			if r.most > 0 && (r.most <= now || shown == 0) {
				require.LessOrEqual(rt, r.least, now, "%s cools down no longer", p.name)
				r.end()
			}
		}
		require.LessOrEqual(rt, max(own.least, shared.least), shown, "%s: at least", p.name)
		require.GreaterOrEqual(rt, max(own.most, shared.most), shown, "%s: at most", p.name)
		own.most, shared.most = min(own.most, shown), min(shared.most, shown)
		switch {
		case own.most < shown:
			shared.least = shown
		case shared.most < shown:
			own.least = shown
		}
		if hidden := own.most > 0 && own.least <= now || shared.most > 0 && shared.least <= now; hidden {
			m.reset(rt, p) // it may be over or not
		}
	}
}
