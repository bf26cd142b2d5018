package config

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/verdict"
)

// Kind is a name by which documents ask for providers of one service, and the factory that makes them. Use [Bind] or
// [BindImplementation].
type Kind struct {
	service, name string
	settings      reflect.Type
	implement     func(settings any, s *secrets) (joiner, error)
	selects       func(r *registry.Registry, policy selection.Policy) (previous selection.Policy, err error)
}

// Implementation holds the code of a provider; the document says all else.
type Implementation[T any] struct {
	// Factory makes the instance; see [registry.Provider]. Set it or Instance.
	Factory func(context.Context) (T, error)
	// Instance is one that the program has made, and closes by itself.
	Instance T
	// Classify recognises errors of the provider.
	Classify verdict.Classifier
	// Probe, CapabilityProbes and Recover are the functions of [health.Policy].
	Probe            health.Probe
	CapabilityProbes map[string]health.Probe
	Recover          func(context.Context) error
}

// Bind returns the kind of that name: providers of the service whose instances the factory makes. The settings of a
// provider are decoded into S as strictly as the document itself, by the tags that package json uses; a field tagged
// jsonschema:"required" must be there. Where S has a method Validate() error, that is asked too.
//
// A factory runs under the rules of [registry.Provider]. Errors and panics of it have the values of references
// replaced by the references; use [Secret] for what settings hold, so that a log of them does not show it.
func Bind[T, S any](service registry.Service[T], kind string, factory func(ctx context.Context, settings S) (T, error)) Kind {
	return BindImplementation(service, kind, func(settings S) (Implementation[T], error) {
		return Implementation[T]{Factory: func(ctx context.Context) (T, error) { return factory(ctx, settings) }}, nil
	})
}

// BindImplementation returns a kind whose providers have more than a factory, such as probes. The function is called
// when a document is planned, and again when it is applied, with settings that may be the same: it prepares, and changes
// nothing, not what the settings refer to either.
func BindImplementation[T, S any](service registry.Service[T], kind string, implement func(settings S) (Implementation[T], error)) Kind {
	return Kind{
		service: service.Name(), name: kind, settings: reflect.TypeFor[S](),
		implement: func(settings any, s *secrets) (_ joiner, err error) {
			defer func() {
				if v := recover(); v != nil {
					err = fmt.Errorf("panic: %s", s.scrub(fmt.Sprint(v)))
				}
			}()
			made, err := implement(settings.(S)) //nolint:forcetypeassert // decoded into S
			if err != nil {
				return nil, s.hide(err)
			}
			return typedJoiner[T]{service, made, s}, nil
		},
		selects: service.SetSelection,
	}
}

// joiner adds one provider to a set of changes.
type joiner interface {
	addTo(u *registry.Update, s *spec, replace bool) *registry.Registration
	healthPolicy(s *spec) health.Policy
}

type typedJoiner[T any] struct {
	service registry.Service[T]
	made    Implementation[T]
	secrets *secrets
}

func (j typedJoiner[T]) addTo(u *registry.Update, s *spec, replace bool) *registry.Registration {
	p := j.service.Provider(s.definition())
	p.Instance, p.Classify = j.made.Instance, j.made.Classify
	if j.made.Factory != nil {
		p.Factory = guard(j.secrets, j.made.Factory)
	}
	p.Limits, p.Retry, p.Breaker = s.limits, s.Retry, s.Breaker
	p.AttemptTimeout = s.timeout()
	p.Health = j.healthPolicy(s)
	p.Replace, p.AtOnce, p.ProveWithin = replace, s.AtOnce, time.Duration(s.ProveWithin)
	return j.service.AddTo(u, p)
}

func (j typedJoiner[T]) healthPolicy(s *spec) health.Policy {
	policy := s.Health.Clone()
	policy.Probe = guardProbe(j.secrets, j.made.Probe)
	policy.Recover = guardProbe(j.secrets, j.made.Recover)
	for capability, probe := range j.made.CapabilityProbes {
		if policy.Capabilities == nil {
			policy.Capabilities = make(map[string]health.Probe)
		}
		policy.Capabilities[capability] = guardProbe(j.secrets, probe)
	}
	return policy
}

// guard keeps secrets out of the errors and panics of a factory.
func guard[T any](s *secrets, factory func(context.Context) (T, error)) func(context.Context) (T, error) {
	return func(ctx context.Context) (made T, err error) {
		defer s.guardPanic()
		made, err = factory(ctx)
		return made, s.hide(err)
	}
}

// guardProbe does the same for a probe, or for any function like it.
func guardProbe[F ~func(context.Context) error](s *secrets, probe F) F {
	if probe == nil {
		return nil
	}
	return func(ctx context.Context) error {
		defer s.guardPanic()
		return s.hide(probe(ctx))
	}
}

// guardPanic panics again, with a text that has no secrets, where the value had some.
func (s *secrets) guardPanic() {
	v := recover()
	if v == nil {
		return
	}
	if text := fmt.Sprint(v); s.scrub(text) != text {
		panic(s.scrub(text))
	}
	panic(v)
}
