package registry

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/verdict"
)

const (
	// defaultAttemptTimeout bounds an attempt whose provider states no other time.
	defaultAttemptTimeout = 30 * time.Second
	// longestLeaseWithoutTimeout ends leases of providers with NoTimeout, so
	// that nothing forgotten holds its place for ever.
	longestLeaseWithoutTimeout = time.Hour

	longestName   = 256
	globalHandler = "*"
)

// NoTimeout as [Provider.AttemptTimeout] lets an attempt run for as long as its
// caller's context allows, whoever else could be asked. Such an attempt gets the caller's context as it is,
// so it is not told when its provider is removed, and costs no allocation.
const NoTimeout time.Duration = math.MaxInt64

// Service is the typed key of a service: a name bound to one Go type.
//
// Declare it once, as a package-level variable, and use it to register and to
// resolve. A registry binds the name to the type when the key is first used
// with it; another type for the same name is an error matching [ErrConflict]
// there. A Service holds no state, may be copied, and is safe for concurrent use.
type Service[T any] struct {
	name string
}

// NewService returns the key of the named service. It never fails: a bad name
// (empty, longer than 256 bytes, not UTF-8, spaces at its ends) is an error of
// whatever uses the key.
func NewService[T any](name string) Service[T] { return Service[T]{name: name} }

// Name returns the name of the service.
func (s Service[T]) Name() string { return s.name }

// Provider returns the input of a registration that def describes, ready to be
// given its Instance or Factory. The service of def is not looked at.
func (s Service[T]) Provider(def Definition) Provider[T] {
	return Provider[T]{
		Name: def.Name, Handler: def.Handler, Capabilities: slices.Clone(def.Capabilities),
		Priority: def.Priority, Group: def.Group, Strategy: def.Strategy, Mock: def.Mock,
		LastResort: def.LastResort, Window: def.Window, Domain: def.Domain,
		Version: def.Version, Description: def.Description, Endpoint: def.Endpoint,
		Requires: slices.Clone(def.Requires), Metadata: maps.Clone(def.Metadata),
		Tags: slices.Clone(def.Tags), Region: def.Region, Weight: def.Weight, Cost: def.Cost,
	}
}

// Register adds a provider to the registry and returns its handle.
//
// It does not block on providers: an instance is eligible at once, or from its first
// good probe on where it has one, and a factory is run at first need. ctx is what the admission hook of the registry gets
// ([Options.Admit]); it does not limit the life of the registration, see
// [Provider.Until] for that. A registration that fails leaves no trace. The
// errors match [ErrInvalid] or [ErrConflict] (as [FieldError]), [ErrExists],
// [ErrClosed], or are the admission hook's.
func (s Service[T]) Register(ctx context.Context, r *Registry, p Provider[T]) (*Registration, error) {
	if !r.made() {
		return nil, errNotMade()
	}
	entry, err := newEntry(s.name, p)
	if err != nil {
		return nil, err
	}
	if err := checkServiceName(s.name); err != nil {
		return nil, err
	}
	svc, err := r.bindService(s.name, bindingOf[T]())
	if err != nil {
		return nil, err
	}
	return r.register(ctx, svc, entry)
}

// Classify sets what recognises the errors of all providers of the service in
// that registry: after the provider's own classifier, before the registry's and
// the built-in one. nil removes it. It holds for outcomes from now on.
func (s Service[T]) Classify(r *Registry, classify verdict.Classifier) error {
	if !r.made() {
		return errNotMade()
	}
	if err := checkServiceName(s.name); err != nil {
		return err
	}
	svc, err := r.bindService(s.name, bindingOf[T]())
	if err != nil {
		return err
	}
	svc.classify.Store(&classify)
	return nil
}

// Bind returns a resolver of the service for one kind of request. Keep it: it
// holds the prepared plan for that query, and resolving through it takes no
// lock and allocates nothing. A bad query, key or registry is an error of each
// method of the resolver.
func (s Service[T]) Bind(r *Registry, q Query) *Resolver[T] {
	slot, err := s.slot(r, &q)
	kept := q.clone()
	return &Resolver[T]{slot: slot, service: s.name, query: &kept, key: kept.Key, err: err}
}

// Get is [Resolver.Get] for a query that is given each time. Bind is faster
// where the query stays the same.
func (s Service[T]) Get(ctx context.Context, r *Registry, q Query) (T, error) {
	slot, err := s.slot(r, &q)
	resolver := Resolver[T]{slot: slot, key: q.Key, err: err}
	return resolver.Get(ctx)
}

func (q Query) clone() Query {
	q.Require, q.Prefer, q.Where = slices.Clone(q.Require), slices.Clone(q.Prefer), q.Where.Clone()
	return q
}

func (s Service[T]) slot(r *Registry, q *Query) (*queryPlan, error) {
	if !r.made() {
		return nil, errNotMade()
	}
	svc := r.knownService(s.name)
	if svc == nil || svc.binding.goType != reflect.TypeFor[T]() {
		if err := checkServiceName(s.name); err != nil {
			return nil, err
		}
		var err error
		if svc, err = r.bindService(s.name, bindingOf[T]()); err != nil {
			return nil, err
		}
	}
	return svc.queryPlan(q)
}

// Provider is what goes into a registration. The zero value of every field but
// Instance is the documented default; the registry copies what it keeps.
type Provider[T any] struct {
	// Name identifies the provider in the whole registry, whatever its service;
	// at most 256 bytes. Empty: a unique one is made from the service's name.
	Name string
	// Instance serves the calls. It must be safe for concurrent use, and must
	// not be nil unless Factory is set.
	Instance T
	// Factory makes the instance at first need, once, in a goroutine of its own,
	// while those who need it wait within their contexts. Its context ends when
	// the provider is removed. An error, a panic or a nil instance makes the
	// provider ineligible with that cause; it is tried again at the first need
	// after a delay that grows from 1 s to 1 min. What a factory made belongs to
	// the registry: if it is an io.Closer it is closed after its last call.
	Factory func(context.Context) (T, error)

	// Handler scopes the provider to one handler, the part of the program that
	// asks: queries of that handler see it before the global providers, others
	// do not see it. Empty or "*": global.
	Handler string
	// Capabilities are what requests can require; exact words, folded when
	// given twice.
	Capabilities []string
	// Priority orders the providers of a group. Default: PriorityNormal.
	Priority Priority
	// Group is the priority group, any integer: a lower group is exhausted
	// before the next is tried. Default: 0.
	Group int
	// Strategy is how the group (service, handler, number) picks. Zero takes
	// what the group has, FALLBACK when it is new; another one than the group
	// has is an error matching ErrConflict. Package selectors has more of them.
	Strategy Strategy
	// Weight is the provider's share beside others, for strategies that heed it.
	// Default: 1.
	Weight float64
	// Mock marks a stand-in; see [Options] for when mocks are picked.
	Mock bool
	// LastResort lets calls that nobody admits try the provider although its
	// breaker is open, its health bad, or it cools down without having asked to:
	// among several, the one whose time ends first. The outcome counts and moves
	// no breaker. Default: such calls fail at once, and say when to come back.
	LastResort bool
	// Window is the longest request the provider accepts, in a unit of your
	// choice such as tokens. A request that was too long for one provider is
	// offered only to those with a larger window. Zero: unknown.
	Window int

	// Domain names what the provider shares with others, of any service: a key, a
	// host, a GPU. Those of one domain share their limits, and cool down together
	// when one of them is rate limited, overloaded or refused for its
	// credentials. What is not found (a model) concerns one provider alone, so
	// register one for each model. Default: a domain to itself.
	Domain string
	// Limits bounds what is asked of the provider's domain. The zero value takes
	// what the domain has; other limits than it has are an error matching
	// ErrConflict. Default: none.
	Limits LimitPolicy
	// Retry is how often the provider is tried again within one call, and how
	// much of that it bears. Default: never.
	Retry RetryPolicy
	// AttemptTimeout bounds one attempt, and the life of an unreported lease.
	// Default: 30 s. See also NoTimeout.
	AttemptTimeout time.Duration
	// Breaker is when calls are kept away. The zero value is the default policy.
	Breaker BreakerPolicy
	// Classify recognises errors of this provider before the classifiers of the
	// service ([Service.Classify]), of the registry and the built-in one do. See
	// package verdict.
	Classify verdict.Classifier

	// Health is how the provider is probed. The zero value probes instances that
	// are a [health.Checker], with the default policy, and no others.
	Health health.Policy

	// Until, when set, bounds the life of the registration: when it ends, the
	// provider is removed and its calls in flight are drained for at most
	// [Options.DrainTimeout].
	Until context.Context
	// Replace lets this registration take the place of the provider of the same
	// name and service, if there is one: the old one is drained for at most
	// [Options.DrainTimeout], the new one starts afresh.
	Replace bool

	// Version, Description and Endpoint describe the provider; an endpoint, when
	// given, must be an absolute URL.
	Version, Description, Endpoint string
	// Requires are the capabilities that this provider itself needs.
	Requires []string
	// Metadata is anything else worth knowing, such as the model.
	Metadata map[string]string
	// Tags are words that queries can ask for and strategies can heed, beside the
	// capabilities.
	Tags []string
	// Region is where it is, such as "eu-west-1"; see [selection.Proximity].
	Region string
	// Cost is what a request costs, in a unit of your choice.
	Cost float64
}

// Definition is the serialisable description of a provider. Its fields are those
// of [Provider]; Service is the name of the service.
type Definition struct {
	Service      string            `json:"service"`
	Name         string            `json:"name"`
	Handler      string            `json:"handler,omitempty"`
	Capabilities []string          `json:"capabilities,omitempty"`
	Priority     Priority          `json:"priority"`
	Group        int               `json:"group"`
	Strategy     Strategy          `json:"strategy,omitzero"`
	Weight       float64           `json:"weight,omitempty"`
	Mock         bool              `json:"mock,omitempty"`
	LastResort   bool              `json:"last_resort,omitempty"`
	Window       int               `json:"window,omitempty"`
	Domain       string            `json:"domain,omitempty"`
	Version      string            `json:"version,omitempty"`
	Description  string            `json:"description,omitempty"`
	Endpoint     string            `json:"endpoint,omitempty"`
	Requires     []string          `json:"requires,omitempty"`
	Metadata     map[string]string `json:"metadata,omitempty"`
	Tags         []string          `json:"tags,omitempty"`
	Region       string            `json:"region,omitempty"`
	Cost         float64           `json:"cost,omitempty"`
}

func (d Definition) clone() Definition {
	d.Capabilities = slices.Clone(d.Capabilities)
	d.Requires = slices.Clone(d.Requires)
	d.Metadata = maps.Clone(d.Metadata)
	d.Tags = slices.Clone(d.Tags)
	return d
}

// Info is the read-only view of a provider at one moment. Reading it changes
// nothing.
type Info struct {
	Definition

	// Generation tells registrations of one name apart; it grows with every
	// registration of the registry.
	Generation uint64 `json:"generation"`
	// Eligible says whether a call could be given to the provider now, and
	// Reason why not.
	Eligible bool   `json:"eligible"`
	Reason   string `json:"reason,omitempty"`
	// Health is what is known of its health.
	Health health.Status `json:"health"`
	// Made says whether the instance exists: false before a factory's first need.
	Made bool `json:"made"`
	// AttemptTimeout is the longest time of one attempt.
	AttemptTimeout time.Duration `json:"attempt_timeout"`
	// Breaker is the state of the provider's breaker.
	Breaker BreakerStats `json:"breaker"`
	// CooldownUntil is when the provider may be asked again; zero when it is not
	// cooling down.
	CooldownUntil time.Time `json:"cooldown_until,omitzero"`

	// Attempts is how many attempts and leases the provider was given. At rest
	// it is Successes + Failures + Ignored + Limited.
	Attempts uint64 `json:"attempts"`
	// Successes counts answers, also those that say no.
	Successes uint64 `json:"successes"`
	// Failures counts what was the provider's fault.
	Failures uint64 `json:"failures"`
	// Ignored counts what says nothing about the provider, such as cancelled calls.
	Ignored uint64 `json:"ignored"`
	// Limited counts refusals for load, limits and credentials.
	Limited uint64 `json:"limited"`
	// InFlight is how many attempts and leases have not ended.
	InFlight uint64 `json:"in_flight"`
	// MeanLatency is the mean duration of the successes; zero before the first.
	MeanLatency time.Duration `json:"mean_latency"`
}

// entry is a checked registration, free of its type parameter and of anything
// the caller can still change.
type entry struct {
	definition Definition
	instance   *instance
	build      func(context.Context) (*instance, error)
	timeout    time.Duration
	breaker    BreakerPolicy
	retry      RetryPolicy // zero: the default
	limits     LimitPolicy // zero: none, or the domain's
	classify   verdict.Classifier
	health     health.Policy   // with its defaults
	until      context.Context //nolint:containedctx // it is a lifetime, not a request
	replace    bool
	layer      uint64 // of the override that it is of; zero: of none
}

// instance is what serves the calls, typed again by whoever hands it out.
type instance struct {
	holder  any            // *holder[T]
	closer  io.Closer      // closes what a factory made; nil where nothing is to close
	checker health.Checker // asks it how it is; nil where it cannot be asked
}

type holder[T any] struct{ value T }

func hold[T any](value T) *instance {
	held := &instance{holder: &holder[T]{value: value}}
	held.checker, _ = any(value).(health.Checker)
	return held
}

// held returns the value; the binding of the service guarantees its type.
func held[T any](i *instance) T { return i.holder.(*holder[T]).value } //nolint:forcetypeassert // see above

// binding is what a registry knows of the Go type of a service.
type binding struct {
	goType reflect.Type
	// adopt holds a value that was registered by the service's name only.
	adopt func(value any) (*instance, bool)
}

func bindingOf[T any]() binding {
	return binding{
		goType: reflect.TypeFor[T](),
		adopt: func(value any) (*instance, bool) {
			typed, ok := value.(T)
			if !ok {
				return nil, false
			}
			return hold(typed), true
		},
	}
}

// adapt returns the entry with its instance and factory turned into the
// service's Go type.
func (e entry) adapt(b binding) (entry, error) {
	mismatch := func(value any) error {
		return invalid("Instance", verbatim(fmt.Sprintf("of type %T", value)), "a "+b.goType.String())
	}
	if e.instance != nil {
		value := held[any](e.instance)
		adopted, ok := b.adopt(value)
		if !ok {
			return e, mismatch(value)
		}
		e.instance = adopted
	}
	if build := e.build; build != nil {
		e.build = func(ctx context.Context) (*instance, error) {
			made, err := build(ctx)
			if err != nil {
				return nil, err
			}
			value := held[any](made)
			adopted, ok := b.adopt(value)
			if !ok {
				if made.closer != nil { // nobody else knows of it
					return nil, fault.Join("", append([]error{mismatch(value)}, fault.List(fault.Run(made.closer.Close))...))
				}
				return nil, mismatch(value)
			}
			adopted.closer = made.closer
			return adopted, nil
		}
	}
	return e, nil
}

// newEntry checks and copies p; what it returns shares nothing with the caller.
func newEntry[T any](service string, p Provider[T]) (entry, error) {
	e := entry{
		definition: Definition{
			Service: service, Name: p.Name, Handler: p.Handler, Priority: p.Priority, Group: p.Group,
			Strategy: p.Strategy, Mock: p.Mock, LastResort: p.LastResort, Window: p.Window, Domain: p.Domain, Version: p.Version,
			Description: p.Description, Endpoint: p.Endpoint, Metadata: maps.Clone(p.Metadata),
			Region: p.Region, Weight: p.Weight, Cost: p.Cost,
		},
		timeout: p.AttemptTimeout, classify: p.Classify, until: p.Until, replace: p.Replace,
	}
	if e.definition.Handler == globalHandler {
		e.definition.Handler = ""
	}
	if p.Name != "" {
		if err := checkName("Name", p.Name); err != nil {
			return entry{}, err
		}
	} else if p.Replace {
		return entry{}, invalid("Replace", true, "a Name that says which provider is replaced")
	}
	if e.definition.Handler != "" {
		if err := checkName("Handler", p.Handler); err != nil {
			return entry{}, err
		}
	}
	if p.Until != nil && isNil(p.Until) {
		return entry{}, invalid("Until", verbatim(fmt.Sprintf("a nil %T", p.Until)), "a context, or nothing")
	}
	var err error
	if e.definition.Capabilities, err = checkWords("Capabilities", p.Capabilities); err != nil {
		return entry{}, err
	}
	if e.definition.Requires, err = checkWords("Requires", p.Requires); err != nil {
		return entry{}, err
	}
	if e.definition.Tags, err = checkWords("Tags", p.Tags); err != nil {
		return entry{}, err
	}
	if err := checkDescription(e.definition); err != nil {
		return entry{}, err
	}
	if e.timeout, err = checkTimeout("AttemptTimeout", p.AttemptTimeout); err != nil {
		return entry{}, err
	}
	if e.breaker, err = p.Breaker.withDefaults(); err != nil {
		return entry{}, err
	}
	if p.Retry != (RetryPolicy{}) {
		if e.retry, err = p.Retry.withDefaults(); err != nil {
			return entry{}, err
		}
	}
	if e.limits, err = p.Limits.withDefaults(); err != nil {
		return entry{}, err
	}
	if e.health, err = withProbeDefaults(p.Health, e.definition.Capabilities); err != nil {
		return entry{}, err
	}
	if e.definition.Domain != "" {
		if err := checkName("Domain", e.definition.Domain); err != nil {
			return entry{}, err
		}
	}
	switch {
	case p.Factory != nil && !isNil(p.Instance) && !reflect.ValueOf(&p.Instance).Elem().IsZero():
		return entry{}, invalid("Factory", verbatim("set"), "either Instance or Factory, not both")
	case p.Factory != nil:
		factory := p.Factory
		e.build = func(ctx context.Context) (*instance, error) {
			value, err := factory(ctx)
			if err != nil {
				return nil, err
			}
			if isNil(value) {
				return nil, invalid("Factory", verbatim("making nil"), "an instance or an error")
			}
			made := hold(value)
			made.closer, _ = any(value).(io.Closer)
			return made, nil
		}
	case isNil(p.Instance):
		return entry{}, invalid("Instance", verbatim(fmt.Sprintf("a nil %s", reflect.TypeFor[T]())), "an instance or a Factory")
	default:
		e.instance = hold(p.Instance)
	}
	return e, nil
}

func checkDescription(d Definition) error {
	if !d.Priority.valid() {
		return invalid("Priority", d.Priority, "one of CRITICAL, HIGH, NORMAL, LOW, FALLBACK")
	}
	if err := checkStrategy(d.Strategy); err != nil {
		return err
	}
	if err := checkWeight(d.Weight); err != nil {
		return err
	}
	if !(d.Cost >= 0) || math.IsInf(d.Cost, 0) {
		return invalid("Cost", d.Cost, "0 or more")
	}
	if d.Region != "" {
		if err := checkName("Region", d.Region); err != nil {
			return err
		}
	}
	if d.Window < 0 {
		return invalid("Window", d.Window, "0 or more")
	}
	if d.Endpoint != "" {
		if u, err := url.Parse(d.Endpoint); err != nil || !u.IsAbs() || u.Opaque != "" || u.Host == "" && !strings.HasPrefix(u.Path, "/") {
			return invalid("Endpoint", d.Endpoint, "a URL such as https://host/path or unix:///path")
		}
	}
	for field, text := range map[string]string{"Version": d.Version, "Description": d.Description, "Endpoint": d.Endpoint} {
		if !utf8.ValidString(text) {
			return invalid(field, text, "valid UTF-8")
		}
	}
	for key, value := range d.Metadata {
		if key == "" || !utf8.ValidString(key) || !utf8.ValidString(value) {
			return invalid(fmt.Sprintf("Metadata[%q]", oneline.Cut(key, 64)), value, "a non-empty key and valid UTF-8")
		}
	}
	return nil
}

func checkStrategy(s Strategy) error {
	if err := s.Check(); err != nil {
		return invalid("Strategy", s.String(), "a strategy of package selectors, or one of your own with a selector and a printable name: "+err.Error())
	}
	return nil
}

func checkWeight(weight float64) error {
	if !(weight >= 0) || math.IsInf(weight, 0) {
		return invalid("Weight", weight, "0 (default 1) or more")
	}
	return nil
}

// checkTimeout returns the timeout with its default.
func checkTimeout(field string, timeout time.Duration) (time.Duration, error) {
	if timeout < 0 {
		return 0, invalid(field, timeout, "0 (default 30s) or more, or NoTimeout")
	}
	if timeout == 0 {
		return defaultAttemptTimeout, nil
	}
	return timeout, nil
}

func checkServiceName(name string) error {
	return checkName("Service", name)
}

func checkName(field, name string) error {
	switch {
	case plainName(name):
		return nil // as nearly all are
	case name == "":
		return invalid(field, name, "a name")
	case len(name) > longestName:
		return invalid(field, name, fmt.Sprintf("at most %d bytes, not %d", longestName, len(name)))
	case !utf8.ValidString(name):
		return invalid(field, name, "valid UTF-8")
	case strings.TrimSpace(name) != name:
		return invalid(field, name, "no space at its ends")
	}
	return nil
}

// plainName reports whether a name is one at a glance: visible ASCII, and not too long.
func plainName(name string) bool {
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c > '~' {
			return false
		}
	}
	return name != "" && len(name) <= longestName
}

// checkWords returns a copy of words without repetitions, in the order given.
func checkWords(field string, words []string) ([]string, error) {
	if len(words) == 0 {
		return nil, nil
	}
	folded := make([]string, 0, len(words))
	for i, word := range words {
		if checkName(field, word) != nil {
			return nil, checkName(fmt.Sprintf("%s[%d]", field, i), word)
		}
		if !slices.Contains(folded, word) {
			folded = append(folded, word)
		}
	}
	return folded, nil
}

// isNil reports whether value is nil, also where a nil pointer, map, channel,
// function or slice hides in an interface.
func isNil(value any) bool {
	if value == nil {
		return true
	}
	v := reflect.ValueOf(value)
	switch v.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Chan, reflect.Func, reflect.Interface, reflect.Slice, reflect.UnsafePointer:
		return v.IsNil()
	default:
		return false
	}
}
