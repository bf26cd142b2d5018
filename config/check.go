package config

import (
	"maps"
	"slices"
	"strconv"

	"github.com/capreg/registry"
)

// checks collects what is wrong with a document, as far as the document alone tells it.
type checks struct {
	*Document
	problems []Problem
}

func (d *Document) check() []Problem {
	c := checks{Document: d}
	if len(d.Services) == 0 {
		c.say("services", "there are none: want at least one")
	}
	services := slices.Sorted(maps.Keys(d.Services))
	for _, name := range services {
		c.checkService("services."+name, d.Services[name])
	}
	for _, name := range d.Required {
		if len(d.Services[name].Providers) == 0 {
			c.say("required", "%q has no provider", name).Nearest = nearest(name, services)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.Queries)) {
		if q := d.Queries[name]; len(d.Services[q.Service].Providers) == 0 {
			c.say("queries."+name+".service", "%q has no provider", q.Service).Nearest = nearest(q.Service, services)
		}
	}
	return c.problems
}

func (c *checks) say(path, format string, args ...any) *Problem {
	c.problems = append(c.problems, c.places.of(path, format, args...))
	return &c.problems[len(c.problems)-1]
}

func (c *checks) checkService(path string, s Service) {
	used := make(map[int]bool)
	seen := make(map[string]bool)
	for i := range s.Providers {
		p := &s.Providers[i]
		used[p.Group] = true
		switch {
		case p.Name == "":
			c.say(path+".providers", "a provider has an empty name")
		case seen[p.Name]:
			c.say(path+".providers["+p.Name+"]", "is there twice")
		}
		seen[p.Name] = true
		c.checkProvider(path+".providers["+p.Name+"]", p)
	}
	for _, number := range slices.Sorted(maps.Keys(s.Groups)) {
		if !used[number] {
			c.say(join(path+".groups", strconv.Itoa(number)), "no provider is in the group")
		}
	}
}

func (c *checks) checkProvider(path string, p *Provider) {
	if p.NoTimeout && p.AttemptTimeout != 0 {
		c.say(path+".no_timeout", "excludes attempt_timeout")
	}
	if p.Domain == "" {
		return
	}
	if p.Limits != (registry.LimitPolicy{}) {
		c.say(path+".limits", "are those of the domain: want them in domains.%s", p.Domain)
	}
	if _, known := c.Domains[p.Domain]; !known {
		c.say(path+".domain", "%q is not one of the domains", p.Domain).Nearest = nearest(p.Domain, slices.Sorted(maps.Keys(c.Domains)))
	}
}
