package registry

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"time"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/typed"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/verdict"
)

const (
	// maxLeaseWithoutTimeout ends leases of providers with NoTimeout, so that a
	// forgotten lease does not keep its place for ever.
	maxLeaseWithoutTimeout = time.Hour

	globalHandler = "*"

	defaultProveWithin = 30 * time.Second
)

// NoTimeout as [Provider.AttemptTimeout] lets an attempt run for as long as its caller's context allows, even if
// another provider could be asked. Such an attempt gets the caller's context itself: it is not cancelled when its
// provider is removed, and costs no allocation.
const NoTimeout time.Duration = math.MaxInt64

// Provider is the input of a registration. The zero value of every field but Instance
// is the documented default. The registry copies what it keeps.
type Provider[T any] struct {
	// Name identifies the provider in its service; at most 256 bytes. Default: one made from the service's name that
	// no other has.
	Name string
	// Instance serves the calls. It must be safe for concurrent use, and must not be nil unless Factory is set.
	Instance T
	// Factory makes the instance at first need, once, in a goroutine of its own. Calls that need the instance wait
	// for it within their contexts. The factory's context ends when the provider is removed. An error, a panic or a
	// nil instance makes the provider ineligible with that cause; the factory runs again at the first need after a
	// delay that grows from 1 s to 1 min. The registry owns the instance and, if it is an io.Closer, closes it
	// after its last call.
	Factory func(context.Context) (T, error)

	// Handler scopes the provider to one handler, a part of the program that makes requests: queries of that
	// handler see it before the global providers, other queries do not see it. Empty or "*": global.
	Handler string
	// Capabilities lists the words that requests can require, at most 256. They are compared
	// exactly; repetitions are dropped.
	Capabilities []string
	// Priority orders the providers of a group. Default: PriorityNormal.
	Priority Priority
	// Group is the priority group, any integer: a lower group is exhausted before the next is tried. Default: 0.
	Group int
	// Strategy picks among the members of the group (service, handler, number). The zero value takes the strategy
	// of the group, FALLBACK in a new one; another strategy than the group has is an error matching ErrConflict.
	// Package selectors provides more strategies.
	Strategy selection.Strategy
	// Weight is the provider's share among others, for strategies that use weights. Default: 1. See also NoTraffic.
	Weight float64
	// NoTraffic is a weight of 0: whatever the strategy, no look-up or call is given to the
	// provider, until [Registration.SetWeight] gives it another weight. It is probed, and counts
	// neither for nor against the health of its service.
	NoTraffic bool
	// Mock marks a provider that is not real. See [Options] for when mocks are picked.
	Mock bool
	// LastResort lets a call that no provider admits try this one although its breaker is open, its health is bad,
	// or it cools down without having asked for it. Among several, the strategy of the group of the one that would
	// return first picks (FALLBACK that one), and after a failure the next is tried. The outcome counts and moves
	// no breaker. Default: such calls fail at once, and say when to retry.
	LastResort bool
	// Window is the longest request that the provider accepts, in a unit of your
	// choice such as tokens. A request that was too long for one provider moves on only
	// to providers whose window is larger, or unknown. Default: 0, unknown.
	Window int

	// Domain names a failure domain, which providers of any service can share: a key, a host, a GPU. Its members
	// share their limits, and cool down together when one of them is rate limited or has a dead key. Overload and a
	// missing model concern one provider alone, so register one for each model. Default: a domain of its own.
	Domain string
	// Limits bounds the use of the provider's domain. The zero value takes the limits of the domain; other limits
	// than the domain has are an error matching ErrConflict. Default: none.
	Limits LimitPolicy
	// Retry configures retries on this provider within one call, and their budget. Default: none.
	Retry RetryPolicy
	// AttemptTimeout bounds one attempt, and the life of an unreported lease. It is taken at its
	// word, whichever other provider could be asked. Default: 30 s, or less where the caller's
	// deadline has to leave time for another provider; see [Call]. See also NoTimeout.
	AttemptTimeout time.Duration
	// Breaker configures the provider's circuit breaker. Default: the zero policy with its own defaults.
	Breaker BreakerPolicy
	// Classify recognises errors of this provider, before the classifiers of the service ([Service.Classify]), of
	// the registry and the built-in one. See package verdict.
	Classify verdict.Classifier

	// Health configures the probes of the provider. The zero value probes instances
	// that implement [health.Checker], with the default policy, and no others.
	Health health.Policy

	// Until, when set, bounds the life of the registration: when it ends, the provider
	// is removed and its calls in flight are drained within [Options.DrainTimeout].
	Until context.Context
	// Replace replaces the provider of the same name and service, if there is one. A new one that is probed or made by
	// a factory has to prove itself first: its factory runs at once, and its probes, until it is made, healthy and has
	// each capability that is probed. Meanwhile the old one serves, and stays if the factory fails, the probes find
	// the new one unhealthy, or ProveWithin is over. Then the old one is drained within [Options.DrainTimeout]. The
	// new one starts afresh, but keeps the position, the turn in rotations and the queue of the old one.
	Replace bool
	// ProveWithin bounds the time in which it proves itself, as a replacement or in an [Update]. Default: 30 s.
	ProveWithin time.Duration
	// AtOnce lets it replace another, or join in an [Update], without proving itself: its factory runs at first need.
	AtOnce bool

	// Version, Description, Team and Documentation describe the provider, for those who read [Info]. Version and Team, which
	// answers for it, have at most 256 bytes, the others 16 KiB. Documentation must be an absolute URL.
	Version, Description, Team, Documentation string
	// Endpoint is the address of the provider, and Endpoints has further ones by their purpose, such as "health" and
	// "metrics", at most 256: absolute URLs, which the registry does not use by itself.
	Endpoint  string
	Endpoints map[string]string
	// ExpectedResponse is the usual time of an answer. It is a description, to be compared with [Info.MeanLatency]:
	// AttemptTimeout bounds an attempt, and strategies go by what they have measured. Default: 0, unknown.
	ExpectedResponse time.Duration
	// Requires lists the capabilities that this provider needs of others.
	Requires []string
	// Metadata holds any further description, such as the model: at most 256 texts of at most 16 KiB each.
	Metadata map[string]string
	// Tags lists words that queries can ask for and strategies can use, beside the capabilities.
	Tags []string
	// Region is the location of the provider, such as "eu-west-1"; see [selection.Candidate.Proximity].
	Region string
	// Cost is the price of a request, in a unit of your choice.
	Cost float64
}

// entry is a registration that is checked and has its defaults. It is free of the type
// parameter, and shares nothing that its caller could still change.
type entry struct {
	definition Definition
	instance   *typed.Instance
	build      typed.Builder
	timeout    time.Duration
	breaker    BreakerPolicy
	retry      RetryPolicy // zero: the default
	limits     LimitPolicy // zero: none, or the domain's
	classify   verdict.Classifier
	health     health.Policy
	until      context.Context //nolint:containedctx // it is a lifetime, not a request
	replace    bool
	atOnce     bool
	proving    time.Duration // at most
	overrideID uint64        // of the override that registers it; zero: of none
}

// newEntry returns the checked entry of a registration. All input is checked and given
// its defaults here, but for what depends on other registrations.
func newEntry[T any](service string, p Provider[T]) (entry, error) {
	e := entry{
		definition: Definition{
			Service: service, Name: p.Name, Handler: p.Handler, Capabilities: p.Capabilities,
			Priority: p.Priority, Group: p.Group, Strategy: p.Strategy, Mock: p.Mock, LastResort: p.LastResort,
			Window: p.Window, Domain: p.Domain, Version: p.Version, Description: p.Description, Endpoint: p.Endpoint,
			Requires: p.Requires, Metadata: maps.Clone(p.Metadata), Tags: p.Tags, Region: p.Region,
			Weight: p.Weight, NoTraffic: p.NoTraffic, Cost: p.Cost, Endpoints: maps.Clone(p.Endpoints),
			Team: p.Team, Documentation: p.Documentation, ExpectedResponse: p.ExpectedResponse,
		},
		timeout: p.AttemptTimeout, breaker: p.Breaker, retry: p.Retry, limits: p.Limits, health: p.Health,
		classify: p.Classify, until: p.Until, replace: p.Replace, atOnce: p.AtOnce, proving: p.ProveWithin,
	}
	if e.definition.Handler == globalHandler {
		e.definition.Handler = ""
	}
	err := cmp.Or(e.checkNames(), e.definition.checkDescription(), e.checkPolicies(), asInvalid(cmp.Or(
		check.OptionalName("Domain", p.Domain),
		check.Range[time.Duration]{Default: defaultProveWithin}.Fill("ProveWithin", &e.proving),
	)))
	if err != nil {
		return entry{}, err
	}
	var v *check.Violation
	if e.definition.Weight = cmp.Or(p.Weight, 1); p.NoTraffic {
		e.definition.Weight = 0
	}
	e.instance, e.build, v = typed.Source(p.Instance, p.Factory, asInvalid)
	return e, asInvalid(v)
}

// Register adds a provider to a service that is known by its name only, such as from
// a configuration file, and returns its handle. The service must be bound to
// its Go type, by [Service.Bind] for good or by a provider that is registered.
//
// An instance of another type is a [FieldError]; a factory that makes one leaves its provider not ready. Otherwise
// Register behaves like [Service.Register]. The errors also match [ErrUnknownService] when the service was not bound.
func (r *Registry) Register(ctx context.Context, serviceName string, p Provider[any]) (*Registration, error) {
	if !r.made() {
		return nil, errNotMade()
	}
	if err := checkServiceName(serviceName); err != nil {
		return nil, err
	}
	svc := r.knownService(serviceName)
	if svc == nil {
		return nil, fmt.Errorf("registry: %w: %q: bind it through its Service key before registering by name",
			ErrUnknownService, oneline.Cut(serviceName, 64))
	}
	e, err := newUntypedEntry(svc, p)
	if err != nil {
		return nil, err
	}
	return r.register(ctx, svc, &e)
}

// newUntypedEntry returns the checked entry of a registration by the name of the service, to whose Go type it is turned.
func newUntypedEntry(svc *service, p Provider[any]) (entry, error) {
	e, err := newEntry(svc.name, p)
	if err != nil {
		return e, err
	}
	var v *check.Violation
	if e.instance != nil {
		e.instance, v = svc.binding.Convert(e.instance)
	}
	if e.build != nil {
		e.build = svc.binding.ConvertBuilder(e.build, asInvalid)
	}
	return e, asInvalid(v)
}

// checkNames checks name, handler, lifetime and words.
func (e *entry) checkNames() error {
	d := &e.definition
	if d.Name == "" && e.replace {
		return invalid("Replace", true, "a Name that says which provider is replaced")
	}
	if v := cmp.Or(check.OptionalName("Name", d.Name), check.OptionalName("Handler", d.Handler)); v != nil {
		return asInvalid(v)
	}
	if e.until != nil && isNil(e.until) {
		return invalid("Until", raw(fmt.Sprintf("a nil %T", e.until)), "a context, or nothing")
	}
	return asInvalid(cmp.Or(check.Words("Capabilities", &d.Capabilities), check.Words("Requires", &d.Requires),
		check.Words("Tags", &d.Tags)))
}

// checkPolicies checks all policies and fills in their defaults.
func (e *entry) checkPolicies() error {
	var wrong [5]error
	_, wrong[0] = checkTimeout("AttemptTimeout", e.timeout) // zero stays zero: it was not chosen
	e.breaker, wrong[1] = e.breaker.withDefaults()
	if e.retry != (RetryPolicy{}) {
		e.retry, wrong[2] = e.retry.withDefaults()
	}
	e.limits, wrong[3] = e.limits.withDefaults()
	e.health, wrong[4] = withProbeDefaults(e.health, e.definition.Capabilities)
	return cmp.Or(wrong[:]...)
}
