package config

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/capreg/registry"
	"github.com/capreg/registry/selection"
)

// identity tells a provider apart from others, and finds it again from one document to the next.
type identity struct{ service, name string }

func (i identity) path() string { return "services." + i.service + ".providers[" + i.name + "]" }

// spec is a provider of a document, with what its group and its domain say of it, and its implementation.
type spec struct {
	identity
	*Provider

	strategy    selection.Strategy
	limits      registry.LimitPolicy
	fingerprint [sha256.Size]byte // of kind and settings, references resolved
	decoded     any               // the settings, of the type of the kind; nil: they have secrets, which each document is to know
	joiner      joiner
}

// definition returns what the registry lists of the provider.
func (s *spec) definition() registry.Definition {
	return registry.Definition{
		Service: s.service, Name: s.name, Handler: s.Handler, Capabilities: s.Capabilities, Priority: s.Priority,
		Group: s.Group, Strategy: s.strategy, Weight: s.Weight, NoTraffic: s.NoTraffic, Mock: s.Mock,
		LastResort: s.LastResort, Window: s.Window, Domain: s.Domain, Version: s.Version, Description: s.Description,
		Endpoint: s.Endpoint, Requires: s.Requires, Metadata: s.Metadata, Tags: s.Tags, Region: s.Region, Cost: s.Cost,
		Endpoints: s.Endpoints, Team: s.Team, Documentation: s.Documentation, ExpectedResponse: time.Duration(s.ExpectedResponse),
	}
}

func (s *spec) timeout() time.Duration {
	if s.NoTimeout {
		return registry.NoTimeout
	}
	return time.Duration(s.AttemptTimeout)
}

// prepared is a document that is understood: settings decoded, references resolved, kinds found.
type prepared struct {
	*Document

	specs   []*spec // services by name, providers in their order
	by      map[identity]*spec
	secrets *secrets
}

// prepare understands a document, or returns all that is wrong with it. What is known of the one before is not found out
// again.
func (k kinds) prepare(d *Document, before *prepared) (*prepared, []Problem) {
	count := 0
	for _, s := range d.Services {
		count += len(s.Providers)
	}
	p := &prepared{Document: d, specs: make([]*spec, 0, count), by: make(map[identity]*spec, count), secrets: newSecrets()}
	problems := append(d.check(), d.checkComponents()...)
	for _, name := range slices.Sorted(maps.Keys(d.Services)) {
		s := d.Services[name]
		for i := range s.Providers {
			made, wrong := k.spec(p, name, &s.Providers[i], before)
			problems = append(problems, wrong...)
			p.specs, p.by[made.identity] = append(p.specs, made), made
		}
	}
	return p, problems
}

// kinds are the bound kinds, by service and name. Nil stands for any kind with any settings.
type kinds map[string]map[string]*Kind

// spec understands one provider.
func (k kinds) spec(p *prepared, service string, from *Provider, before *prepared) (*spec, []Problem) {
	s := &spec{identity: identity{service, from.Name}, Provider: from, limits: from.Limits}
	s.strategy = p.Services[service].Groups[from.Group].Strategy
	if s.strategy.IsZero() {
		s.strategy = registry.StrategyFallback
	}
	if from.Domain != "" {
		s.limits = p.Domains[from.Domain].Limits
	}
	if k == nil {
		return s, s.decodeAny()
	}
	of := k[service]
	kind := of[from.Kind]
	if kind == nil {
		known := slices.Sorted(maps.Keys(of))
		wrong := p.places.of(s.path()+".kind", "service %q has no kind %q: want %s", service, from.Kind, oneOf(known))
		wrong.Nearest = nearest(from.Kind, known)
		return s, []Problem{wrong}
	}
	settings, problems := s.decode(p, kind, before.by[s.identity])
	if len(problems) > 0 {
		return s, problems
	}
	var err error
	if s.joiner, err = kind.implement(settings, p.secrets); err != nil {
		wrong := p.places.of(s.path()+".settings", "%s", err.Error())
		wrong.Err = err
		return s, []Problem{wrong}
	}
	return s, nil
}

// decode decodes the settings into the type of the kind.
func (s *spec) decode(p *prepared, kind *Kind, before *spec) (any, []Problem) {
	if before != nil && before.decoded != nil && before.Kind == s.Kind && sameText(before.Settings.node, s.Settings.node) {
		s.fingerprint, s.decoded = before.fingerprint, before.decoded
		return s.decoded, nil
	}
	path := s.path() + ".settings"
	n := s.Settings.node
	d, kept := &decoder{file: s.Settings.file, secrets: p.secrets}, p.secrets.count()
	if n == nil {
		at := p.places[s.path()]
		n, d.file = &yaml.Node{Kind: yaml.MappingNode, Line: at.line, Column: at.column}, at.file
	}
	into := reflect.New(kind.settings).Elem()
	d.value(path, n, into)
	if len(d.problems) > 0 {
		return nil, d.problems
	}
	if v, ok := reflect.TypeAssert[interface{ Validate() error }](into.Addr()); ok {
		if err := v.Validate(); err != nil {
			d.problem(path, n, "%s", p.secrets.scrub(err.Error()))
			return nil, d.problems
		}
	}
	var resolved any
	d.free(path, n, &resolved)
	text, err := jsonOf(resolved)
	if err != nil {
		d.problem(path, n, "%s", p.secrets.scrub(err.Error()))
	}
	s.fingerprint = sha256.Sum256(append([]byte(s.Kind+"\x00"), text...))
	if p.secrets.count() == kept {
		s.decoded = into.Interface()
	}
	return into.Interface(), d.problems
}

// sameText reports whether two settings have the same text, which has no reference: those stand for what may change.
func sameText(a, b *yaml.Node) bool {
	if a == nil || b == nil || a.Kind != b.Kind || a.Kind == yaml.AliasNode || a.Tag != b.Tag || a.Value != b.Value || refers(a.Value) ||
		len(a.Content) != len(b.Content) {
		return false
	}
	for i := range a.Content {
		if !sameText(a.Content[i], b.Content[i]) {
			return false
		}
	}
	return true
}

// decodeAny takes the settings of an unknown kind as they were written.
func (s *spec) decodeAny() []Problem {
	var written any
	d := &decoder{file: s.Settings.file, literal: true}
	if n := s.Settings.node; n != nil {
		d.free(s.path()+".settings", n, &written)
	}
	text, _ := jsonOf(written) // of what JSON knows
	s.fingerprint = sha256.Sum256(append([]byte(s.Kind+"\x00"), text...))
	return d.problems
}

func oneOf(known []string) string {
	if len(known) == 0 {
		return "one that the program has bound; it has bound none"
	}
	return "one of " + strings.Join(known, ", ")
}

// index returns the kinds by service and name.
func index(all []Kind) (kinds, error) {
	k := make(kinds)
	for i := range all {
		kind := &all[i]
		if kind.implement == nil || kind.name == "" {
			return nil, fmt.Errorf("config: Kinds[%d] is empty: want one of Bind, with a name: %w", i, registry.ErrInvalid)
		}
		if k[kind.service] == nil {
			k[kind.service] = make(map[string]*Kind)
		}
		if k[kind.service][kind.name] != nil {
			return nil, fmt.Errorf("config: Kinds[%d] binds %q of service %q again: %w", i, kind.name, kind.service, registry.ErrConflict)
		}
		k[kind.service][kind.name] = kind
	}
	return k, nil
}
