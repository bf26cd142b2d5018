package registry

import (
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/internal/striped"
	"github.com/capreg/registry/internal/tasks"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/verdict"
)

const defaultDrainTimeout = 30 * time.Second

// Options are the settings of a registry. The zero value is the default of each.
type Options struct {
	// Logger gets one line for each event, from a goroutine of the registry's
	// that exists only while there is something to log; a logger that falls
	// behind loses the oldest lines and is told how many. Default: none.
	Logger *zap.Logger
	// Strategies are those that configuration can name beside FALLBACK and
	// ROUND_ROBIN: package selectors has a list of its own.
	Strategies []Strategy
	// Selection is how groups are treated and what is measured, in every service
	// that does not say otherwise ([Service.SetSelection]). Default: strict groups.
	Selection selection.Policy
	// Decisions is how many of the latest picks [Registry.Decisions] remembers. Each
	// then costs about a microsecond. Default: none.
	Decisions int
	// Required are the services that [Registry.WaitReady] waits for when it is
	// given no names.
	Required []string
	// Classify recognises errors of every provider, after the classifiers of the
	// provider and of its service ([Service.Classify]) and before the built-in one.
	Classify verdict.Classifier
	// Admit, when set, is asked about every registration before it takes place;
	// an error refuses it and is returned, wrapped. It runs in the goroutine of
	// the registration and under no lock; a panic counts as a refusal.
	Admit func(ctx context.Context, d Definition) error
	// Authorize, when set, is asked before every attempt and lease whether the
	// caller may use the provider; an error keeps it away, and the call moves on.
	// It runs in the goroutine of the call and under no lock; a panic refuses.
	Authorize func(ctx context.Context, caller, service, provider string) error
	// BeforeCall and AfterCall run around each call and lease, BeforeAttempt and
	// AfterAttempt around each of its attempts, all in its goroutine. What the
	// first of a pair returns replaces the context, so that it can add values
	// (correlation ids, a trace) and nothing else: it must be derived from the one
	// given. Panics are caught. Without hooks a call does not pay for them.
	BeforeCall    func(ctx context.Context, r CallReport) context.Context
	AfterCall     func(ctx context.Context, r CallReport)
	BeforeAttempt func(ctx context.Context, r CallReport, a Attempt) context.Context
	AfterAttempt  func(ctx context.Context, r CallReport, a Attempt)
	// ForbidMocks refuses a mock for a service that has real providers, and a
	// real provider for one that has mocks. Default: mocks are picked only after
	// all real ones, whatever their group and priority.
	ForbidMocks bool
	// OnlyMocks leaves real providers registered and never picks one: for tests
	// of programs that register real ones. It excludes ForbidMocks.
	OnlyMocks bool
	// PanicsAsErrors turns a panic of a call's function into a [PanicError] and
	// asks the next provider. Default: the panic goes on to the caller, after it
	// has been recorded.
	PanicsAsErrors bool
	// ProbeConcurrency is how many health probes may run at once; one that is
	// stuck counts no longer. Default: 32.
	ProbeConcurrency int
	// DrainTimeout is how long calls in flight may go on when their provider was
	// replaced or its lifetime ended, before their contexts are cancelled.
	// Default: 30 s.
	DrainTimeout time.Duration
}

// Registry holds providers of services and gives out the best one that is able,
// healthy and admitted now.
//
// It is made by [New] and must not be copied. All methods are safe for
// concurrent use, and none runs user code under a lock. It starts no goroutine
// that outlives what it was started for; [Registry.Close] waits for all of them.
type Registry struct {
	options  Options
	seed     maphash.Seed
	epoch    time.Time // of now(); made in New, so that it belongs to a bubble of synctest
	schedule *schedule.Scheduler
	hooked   bool // some hook is set

	observers atomic.Pointer[[]*observer] // copied on write, under mu; nil: none
	sprints   atomic.Bool                 // calls begin as sprints; see maySprint

	// life is the context of factories; end cancels it.
	life context.Context //nolint:containedctx // the registry's own lifetime
	end  context.CancelCauseFunc

	services atomic.Pointer[map[string]*service] // copied on write, under mu
	prober   prober

	strategies map[string]Strategy // by name
	decisions  *decisions          // nil: nobody wants to know

	// mu guards membership and every gate, plan, rotation table, event sequence
	// and subscriber, so that a change and its event are one step. Picking does
	// not take it. No code of a user runs while it is held, and nothing waits.
	mu            sync.Mutex
	providers     map[string]*provider
	byCapability  map[string]map[*provider]struct{}
	domains       map[string]*domain
	generation    uint64
	unnamed       uint64
	eligibleAgain chan struct{} // closed when somebody became eligible, or left; nil while nobody waits
	bus           bus
	closing       bool
	draining      map[*provider]struct{} // removed, with calls in flight
	holds         []*tenure              // of those who have put something in the place of providers
	layers        uint64

	tasks   tasks.Group   // the goroutines of the registry
	leaving []*provider   // of Close, newest first; readable when closed is closed
	closed  chan struct{} // closed when the first Close is over
}

type lookups struct{ hits, misses atomic.Uint64 }

// service is what the registry knows of one service. It exists from the first
// use of its key on.
type service struct {
	registry *Registry
	name     string
	binding  binding
	plans    atomic.Pointer[map[uint64]*queryPlan] // copied on write, under Registry.mu
	classify atomic.Pointer[verdict.Classifier]
	lookups  striped.Cells[lookups]
	tally    tally

	// Guarded by Registry.mu.
	members   map[*provider]struct{}
	groups    map[groupID]*group
	overrides []*override
	policy    selection.Policy
	planOrder []*queryPlan           // attached ones, oldest first
	sorted    map[string][]*provider // by handler, each in the one order; nil when out of date
}

// groupID names a priority group within a service. An override has groups of its own.
type groupID struct {
	handler string
	number  int
	layer   uint64
}

// group is a priority group; it exists while it has members.
type group struct {
	key      groupID
	strategy Strategy
	setBy    string // the provider whose registration or change set the strategy
	members  int
	faults   pick.Faults // of its selector
}

// New returns an empty registry. It starts no goroutine. The error, a
// [FieldError], names the option that is out of bounds.
func New(options Options) (*Registry, error) {
	if options.DrainTimeout < 0 {
		return nil, invalid("Options.DrainTimeout", options.DrainTimeout, "0 (default 30s) or more")
	}
	options.DrainTimeout = cmp.Or(options.DrainTimeout, defaultDrainTimeout)
	if options.OnlyMocks && options.ForbidMocks {
		return nil, invalid("Options.OnlyMocks", true, "false together with ForbidMocks")
	}
	if options.ProbeConcurrency < 0 {
		return nil, invalid("Options.ProbeConcurrency", options.ProbeConcurrency, fmt.Sprintf("0 (default %d) or more", defaultProbeConcurrency))
	}
	options.ProbeConcurrency = cmp.Or(options.ProbeConcurrency, defaultProbeConcurrency)
	options.Required = slices.Clone(options.Required)
	for i, name := range options.Required {
		if err := checkName(fmt.Sprintf("Options.Required[%d]", i), name); err != nil {
			return nil, err
		}
	}
	strategies, err := checkSelection(&options)
	if err != nil {
		return nil, err
	}
	r := &Registry{
		options: options, strategies: strategies, decisions: newDecisions(options.Decisions), seed: maphash.MakeSeed(), epoch: time.Now(), schedule: schedule.New(),
		providers:    make(map[string]*provider),
		byCapability: make(map[string]map[*provider]struct{}),
		domains:      make(map[string]*domain),
		draining:     make(map[*provider]struct{}),
		closed:       make(chan struct{}),
	}
	r.life, r.end = context.WithCancelCause(context.Background())
	r.services.Store(&map[string]*service{})
	r.hooked = options.BeforeCall != nil || options.AfterCall != nil ||
		options.BeforeAttempt != nil || options.AfterAttempt != nil
	r.sprints.Store(r.maySprint())
	r.bus.init(r)
	r.prober.registry, r.prober.limit = r, options.ProbeConcurrency
	return r, nil
}

// maySprint reports whether nobody has anything to say to every call.
func (r *Registry) maySprint() bool {
	return !r.hooked && r.options.Authorize == nil && !r.options.PanicsAsErrors && r.observers.Load() == nil
}

// made reports whether the registry comes from New.
func (r *Registry) made() bool { return r != nil && r.schedule != nil }

func errNotMade() error {
	return invalid("Registry", verbatim("nil or zero"), "a registry made by New")
}

// now is the registry's clock: monotonic, and half the price of time.Now.
func (r *Registry) now() time.Duration { return time.Since(r.epoch) }

func (r *Registry) knownService(name string) *service { return (*r.services.Load())[name] }

// bindService returns the service of that name and Go type.
func (r *Registry) bindService(name string, b binding) (*service, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := *r.services.Load()
	svc, ok := known[name]
	if !ok {
		svc = &service{
			registry: r, name: name, binding: b,
			members: make(map[*provider]struct{}), groups: make(map[groupID]*group), policy: r.options.Selection,
		}
		svc.plans.Store(&map[uint64]*queryPlan{})
		svc.lookups.Local() // now, so that look-ups need not ask for it
		services := maps.Clone(known)
		services[name] = svc
		r.services.Store(&services)
		return svc, nil
	}
	if svc.binding.goType != b.goType {
		return nil, refuse(ErrConflict, "Service", name,
			fmt.Sprintf("Go type %v, which it is bound to, not %v", svc.binding.goType, b.goType))
	}
	return svc, nil
}

// Register is the dynamic path: it adds a provider to a service that is known
// by name only, as configuration files name it. The service must have been
// bound to its Go type before, by [Service.Bind] or [Service.Register]; else the
// error matches [ErrUnknownService]. An instance of another type is a
// [FieldError]; a factory that makes one leaves its provider not ready. In all
// else it is [Service.Register].
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
	e, err := newEntry(serviceName, p)
	if err != nil {
		return nil, err
	}
	if e, err = e.adapt(svc.binding); err != nil {
		return nil, err
	}
	return r.register(ctx, svc, e)
}

func (r *Registry) register(ctx context.Context, svc *service, e entry) (*Registration, error) {
	e.definition.Strategy = r.namedStrategy(e.definition.Strategy)
	if err := r.admit(ctx, e.definition); err != nil {
		return nil, err
	}
	p, replaced, err := r.join(svc, e)
	if err != nil {
		return nil, err
	}
	if replaced != nil {
		replaced.drainWithin(r.options.DrainTimeout)
	}
	if e.until != nil {
		p.endWith(e.until)
	}
	return &Registration{provider: p}, nil
}

// admit asks the admission hook.
func (r *Registry) admit(ctx context.Context, d Definition) error {
	if r.options.Admit == nil {
		return nil
	}
	err := fault.Run(func() error { return r.options.Admit(ctx, d.clone()) })
	if err != nil {
		return fault.Wrap(fmt.Sprintf("registry: registration of provider %q for service %q refused: ",
			oneline.Cut(d.Name, 64), oneline.Cut(d.Service, 64)), err)
	}
	return nil
}

// join makes the entry a member, in one step with its event. The provider it
// replaces, if any, has left when join returns and remains to be drained.
func (r *Registry) join(svc *service, e entry) (joined, replaced *provider, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing {
		return nil, nil, fmt.Errorf("registry: %w", ErrClosed)
	}
	if e.definition.Name == "" {
		e.definition.Name = r.unusedName(svc.name)
	}
	if taken, ok := r.providers[e.definition.Name]; ok {
		if !e.replace {
			return nil, nil, refuse(ErrExists, "Name", e.definition.Name,
				fmt.Sprintf("a name that no provider of service %q has, or Replace", oneline.Cut(taken.service.name, 64)))
		}
		if taken.service != svc {
			return nil, nil, refuse(ErrConflict, "Replace", e.definition.Name,
				fmt.Sprintf("a provider of service %q; that one serves %q", svc.name, taken.service.name))
		}
		replaced = taken
	}
	if err := r.checkSwapped(e.definition.Name); err != nil {
		return nil, nil, err
	}
	if err := svc.checkMock(e, replaced); err != nil {
		return nil, nil, err
	}
	id := groupID{e.definition.Handler, e.definition.Group, e.layer}
	if err := svc.checkStrategy(id, e.definition.Strategy, replaced); err != nil {
		return nil, nil, err
	}
	if err := r.checkDomain(e, replaced); err != nil {
		return nil, nil, err
	}

	if replaced != nil {
		r.leave(replaced, "replaced")
	}
	r.generation++
	joined = newProvider(svc, e, r.generation)
	r.enterDomain(joined, e.limits)
	if joined.hidden() != "" {
		joined.gate.Store(uint32(joined.gateNow() | gateReal))
	}
	r.providers[e.definition.Name] = joined
	for _, capability := range e.definition.Capabilities {
		members, ok := r.byCapability[capability]
		if !ok {
			members = make(map[*provider]struct{})
			r.byCapability[capability] = members
		}
		members[joined] = struct{}{}
	}
	svc.members[joined] = struct{}{}
	svc.enterGroup(joined, id, e.definition.Strategy)
	svc.outdate()
	r.bus.publish(joined.event(event.Event{Kind: event.Registered}))
	joined.watchFirst()
	r.wakeWaiters()
	return joined, replaced, nil
}

func (r *Registry) unusedName(service string) string {
	for {
		r.unnamed++
		name := fmt.Sprintf("%s-%d", oneline.Cut(service, longestName-24), r.unnamed)
		if _, taken := r.providers[name]; !taken {
			return name
		}
	}
}

// checkMock refuses mocks beside real providers where the options forbid that.
// Caller holds Registry.mu.
func (s *service) checkMock(e entry, leaving *provider) error {
	if !s.registry.options.ForbidMocks || e.layer > 0 {
		return nil
	}
	for member := range s.members {
		if member != leaving && member.layer == 0 && member.mock() != e.definition.Mock {
			return refuse(ErrConflict, "Mock", e.definition.Mock,
				fmt.Sprintf("the same as provider %q has: Options.ForbidMocks is set", member.name()))
		}
	}
	return nil
}

// checkStrategy refuses another strategy than the group has. Caller holds
// Registry.mu.
func (s *service) checkStrategy(id groupID, wanted Strategy, leaving *provider) error {
	g, ok := s.groups[id]
	if wanted.IsZero() || ok && wanted.Same(g.strategy) {
		return nil
	}
	if !ok || g.members == 1 && leaving != nil && leaving.group == g {
		return s.registry.knownStrategy(wanted)
	}
	return refuse(ErrConflict, "Strategy", wanted,
		fmt.Sprintf("%v, which provider %q set for group %d", g.strategy, g.setBy, id.number))
}

// enterGroup makes p a member of the group, which is made when p is its first.
// Caller holds Registry.mu.
func (s *service) enterGroup(p *provider, id groupID, wanted Strategy) {
	g, ok := s.groups[id]
	if !ok {
		g = &group{key: id, strategy: cmp.Or(wanted, StrategyFallback), setBy: p.name()}
		s.groups[id] = g
	}
	g.members++
	p.group = g
	p.definition.Group = id.number
}

// leaveGroup ends the group with its last member. Caller holds Registry.mu.
func (s *service) leaveGroup(p *provider) {
	p.group.members--
	if p.group.members == 0 {
		delete(s.groups, p.group.key)
	}
}

// leave takes p out of everything that picks. It keeps its group, for those who
// still look at it. Caller holds mu.
func (r *Registry) leave(p *provider, reason string) {
	delete(r.providers, p.name())
	for _, capability := range p.definition.Capabilities {
		delete(r.byCapability[capability], p)
		if len(r.byCapability[capability]) == 0 {
			delete(r.byCapability, capability)
		}
	}
	delete(p.service.members, p)
	p.service.leaveGroup(p)
	r.leaveDomain(p)
	p.service.outdate() // before any gate changes: a plan that somebody still walks stays as it was
	r.gone(p, reason)
	for below := p.below; below != nil; below = below.below { // they have the same place
		below.standIn.Store(nil)
		r.leaveDomain(below)
		r.gone(below, reason)
	}
	r.wakeWaiters()
}

// gone begins the drain of a provider that nothing picks any more. Caller holds mu.
func (r *Registry) gone(p *provider, reason string) {
	r.draining[p] = struct{}{}
	p.gate.Store(uint32(p.gateNow() | gateGone))
	r.bus.publish(p.event(event.Event{Kind: event.Draining, Reason: reason}))
}

// wakeWaiters lets those who wait for an eligible provider look again. Caller
// holds mu.
func (r *Registry) wakeWaiters() {
	if r.eligibleAgain != nil {
		close(r.eligibleAgain)
		r.eligibleAgain = nil
	}
}

// changed returns a channel that is closed when somebody becomes eligible, or
// leaves.
func (r *Registry) changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changedLocked()
}

// changedLocked is changed for callers that hold mu.
func (r *Registry) changedLocked() <-chan struct{} {
	if r.eligibleAgain == nil {
		r.eligibleAgain = make(chan struct{})
	}
	return r.eligibleAgain
}

// Provider returns the handle of the provider with that name.
func (r *Registry) Provider(name string) (*Registration, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.providers[name]
	if !ok {
		return nil, false
	}
	return &Registration{provider: p.bottom()}, true
}

// All yields every provider in the one order of every listing: service by name,
// handler by name with the global ones last, then group, priority and
// registration. It is a snapshot taken when the iteration begins.
func (r *Registry) All() iter.Seq[Info] {
	return func(yield func(Info) bool) {
		for _, p := range r.listing() {
			if !yield(p.info()) {
				return
			}
		}
	}
}

// breakers returns the statistics of every breaker. A breaker's lock comes before
// the registry's, so they are read before a step that looks at everything.
func (r *Registry) breakers() map[*provider]BreakerStats {
	breakers := make(map[*provider]BreakerStats)
	for _, p := range r.listing() {
		breakers[p] = p.breaker.read()
	}
	return breakers
}

// infos returns the view of every provider at one moment, in the one order.
func (r *Registry) infos() []Info {
	breakers := r.breakers()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.infosLocked(breakers)
}

// infosLocked is infos for callers that hold mu, with what breakers returned before;
// the state of a breaker is taken from the gate, within the step.
func (r *Registry) infosLocked(breakers map[*provider]BreakerStats) []Info {
	var infos []Info
	for _, p := range r.listingLocked() {
		breaker := breakers[p]
		breaker.State = p.gateNow().breaker()
		infos = append(infos, p.infoLocked(breaker))
	}
	return infos
}

func (r *Registry) listing() []*provider {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.listingLocked()
}

// listingLocked returns every provider in the one order. Caller holds mu.
func (r *Registry) listingLocked() []*provider {
	members := slices.Collect(maps.Values(r.providers))
	sortListing(members)
	return members
}

// Discover returns the providers that have all the given capabilities, across
// services, in the order of [Registry.All]. No capability matches every
// provider.
func (r *Registry) Discover(capabilities ...string) []Info {
	r.mu.Lock()
	found := r.having(capabilities)
	sortListing(found)
	r.mu.Unlock()
	infos := make([]Info, 0, len(found))
	for _, p := range found {
		infos = append(infos, p.info())
	}
	return infos
}

// having returns the providers with all the capabilities. Caller holds mu.
func (r *Registry) having(capabilities []string) []*provider {
	if len(capabilities) == 0 {
		return slices.Collect(maps.Values(r.providers))
	}
	rarest := r.byCapability[capabilities[0]]
	for _, capability := range capabilities[1:] {
		if with := r.byCapability[capability]; len(with) < len(rarest) {
			rarest = with
		}
	}
	var found []*provider
	for p := range rarest {
		if p.missing(capabilities) == "" {
			found = append(found, p)
		}
	}
	return found
}

// sortListing sorts into the one order of every listing. Caller holds
// Registry.mu.
func sortListing(members []*provider) {
	slices.SortFunc(members, func(a, b *provider) int {
		return cmp.Or(
			cmp.Compare(a.service.name, b.service.name),
			compareBool(a.definition.Handler == "", b.definition.Handler == ""),
			cmp.Compare(a.definition.Handler, b.definition.Handler),
			compareProviders(a, b),
		)
	})
}

// Stats are the totals of a registry.
type Stats struct {
	// Services and Providers are how many there are now; Eligible is how many of
	// the providers a call could be given to.
	Services  int `json:"services"`
	Providers int `json:"providers"`
	Eligible  int `json:"eligible"`
	// Lookups counts every Get, Acquire, Many and Call; at rest each was a hit,
	// when a provider was given, or a miss.
	Lookups uint64 `json:"lookups"`
	Hits    uint64 `json:"hits"`
	Misses  uint64 `json:"misses"`
}

// Stats returns the totals. Reading them changes nothing.
func (r *Registry) Stats() Stats {
	var stats Stats
	for _, svc := range *r.services.Load() {
		for cell := range svc.lookups.Each {
			stats.Hits += cell.hits.Load()
			stats.Misses += cell.misses.Load()
		}
	}
	stats.Lookups = stats.Hits + stats.Misses
	r.mu.Lock()
	defer r.mu.Unlock()
	stats.Providers = len(r.providers)
	for _, p := range r.providers {
		if p.gateNow()&gateBlocked == 0 {
			stats.Eligible++
		}
	}
	for _, svc := range *r.services.Load() {
		if len(svc.members) > 0 {
			stats.Services++
		}
	}
	return stats
}

// WaitReady blocks until each of the named services has an eligible provider,
// whatever its handler and capabilities; one whose factory has not run yet
// counts. Without names it waits for
// [Options.Required]; with nothing required it returns at once.
//
// It wakes on changes, without polling. When ctx ends first, the error matches
// [ErrNotReady] and the context's error and cause, and holds one
// [UnavailableError] for each service that is missing. On a registry that is
// closing it matches [ErrClosed].
func (r *Registry) WaitReady(ctx context.Context, services ...string) error {
	if len(services) == 0 {
		services = r.options.Required
	}
	if ctx == nil {
		return invalid("ctx", verbatim("nil"), "a context")
	}
	for i, name := range services {
		if err := checkName(fmt.Sprintf("services[%d]", i), name); err != nil {
			return err
		}
	}
	for {
		missing, again, err := r.unserved(services)
		if err != nil || len(missing) == 0 {
			return err
		}
		select {
		case <-again:
		case <-ctx.Done():
			return r.notReady(ctx, missing)
		}
	}
}

// unserved returns the services without an eligible provider, and a channel
// that is closed when that may have changed.
func (r *Registry) unserved(services []string) (missing []string, again <-chan struct{}, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing {
		return nil, nil, fmt.Errorf("registry: %w", ErrClosed)
	}
	for _, name := range services {
		if svc := r.knownService(name); svc == nil || !svc.served() {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		again = r.changedLocked()
	}
	return missing, again, nil
}

// served reports whether any provider is eligible. Caller holds Registry.mu.
func (s *service) served() bool {
	for p := range s.members {
		if p.gateNow()&gateBlocked == 0 && s.mismatch(p, Query{}) == nil {
			return true
		}
	}
	return false
}

func (r *Registry) notReady(ctx context.Context, missing []string) error {
	causes := append([]error{ErrNotReady}, fault.OfContext(ctx)...)
	for _, name := range missing {
		causes = append(causes, r.unavailableService(name))
	}
	return fault.Join("registry: ", causes)
}

// Close ends the registry. It refuses new picks and registrations at once,
// waits for calls and leases in flight until ctx ends, then cancels their
// contexts; ends factories in progress; and closes, in reverse order of
// registration, the instances that factories made and that are io.Closers.
// Instances that were passed in remain the caller's.
//
// It leaves no goroutine of the registry behind. When user code keeps running
// for two seconds after ctx has ended, Close returns an error that names it and
// matches [ErrStuck] and the context's error. Errors of closers are joined.
// Close may be called any number of times and concurrently: every call waits,
// within its own ctx, for the first one and, where that gave up, for what it
// waited for.
//
// Give it a context that has not ended: a program that stops on a signal calls
// it with a fresh one.
func (r *Registry) Close(ctx context.Context) error {
	if ctx == nil {
		return invalid("ctx", verbatim("nil"), "a context")
	}
	leaving, first := r.leaveAll()
	limit := tasks.WithGrace(ctx)
	defer limit.Stop()
	if first {
		r.leaving = leaving
		r.drainAll(ctx)
		err := r.releaseAll(limit)
		close(r.closed)
		return err
	}
	select {
	case <-r.closed:
		return r.releaseAll(limit)
	case <-limit.Over:
		return fault.Join("registry: ", append([]error{ErrStuck}, fault.OfContext(ctx)...))
	}
}

// drainAll waits for the calls in flight within ctx, and then tells them to end.
func (r *Registry) drainAll(ctx context.Context) {
	for _, p := range r.leaving {
		p.retire()
		p.checkIdle()
	}
	for _, p := range r.leaving {
		p.waitIdle(ctx)
	}
	for _, p := range r.leaving {
		p.cancelCalls() // of no effect where nothing is in flight
	}
}

// releaseAll gives up the instances in order, ends everything else, and says
// what stands in the way. It may be called again, and concurrently.
func (r *Registry) releaseAll(limit tasks.GraceWait) error {
	var failures []error
	late := false
	for i, p := range r.leaving {
		if !late && isDone(limit.Over) {
			// One was stuck. The others begin now, and get a grace of their own.
			late = true
			for _, other := range r.leaving[i:] {
				other.giveUp()
			}
			limit = limit.Again()
			defer limit.Stop()
		}
		if err := p.release(limit); err != nil {
			failures = append(failures, err)
		}
	}
	r.end(fmt.Errorf("registry: %w", ErrClosed))
	if len(failures) == 0 {
		r.schedule.Close() // else leases that nobody reports still expire
	}
	r.mu.Lock()
	if !r.bus.closed {
		r.bus.publish(event.Event{Kind: event.Closed})
		r.bus.close()
	}
	r.mu.Unlock()
	if err := r.tasks.Wait(limit); err != nil {
		failures = append(failures, err)
	}
	if len(failures) > 0 {
		return fault.Join("registry: ", failures)
	}
	return nil
}

// leaveAll takes every provider out and returns them, together with those that
// had left before and have calls in flight, newest first. Only the first call
// does so.
func (r *Registry) leaveAll() (leaving []*provider, first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closing {
		return nil, false
	}
	r.closing = true
	r.bus.publish(event.Event{Kind: event.Closing})
	for _, p := range slices.SortedFunc(maps.Values(r.providers), func(a, b *provider) int {
		return cmp.Compare(a.generation, b.generation)
	}) {
		r.leave(p, "registry closing")
	}
	for _, svc := range *r.services.Load() {
		svc.outdate()
	}
	r.wakeWaiters()
	return slices.SortedFunc(maps.Keys(r.draining), func(a, b *provider) int {
		return cmp.Compare(b.generation, a.generation)
	}), true
}
