package registry

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"maps"
	"math/bits"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/capreg/registry/internal/bitset"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/selection"
)

// Query says which providers of a service are wanted. The zero value wants any
// global one.
type Query struct {
	// Handler sees the providers registered for it before the global ones.
	// Empty or "*": only the global ones.
	Handler string `json:"handler,omitempty"`
	// OwnOnly leaves the global providers out; it needs a Handler.
	OwnOnly bool `json:"own_only,omitempty"`
	// Require are the capabilities that a provider must have, all of them,
	// compared exactly.
	Require []string `json:"require,omitempty"`
	// TryRefused asks the next provider when one refuses the content. Default:
	// the refusal is the answer.
	TryRefused bool `json:"try_refused,omitempty"`
	// Where is what a provider must meet beside that to be a candidate, whatever
	// the strategy of its group.
	Where selection.Requirements `json:"where,omitzero"`
	// Prefer are capabilities and tags that a provider better has, and Near the
	// region of the one who asks: for strategies that heed them.
	Prefer []string `json:"prefer,omitempty"`
	Near   string   `json:"near,omitempty"`
	// Key is what strategies stick to one provider by: a session, a user, a prompt.
	// Queries that differ in nothing else share their plan. Default: the key of
	// the context ([selection.WithKey]).
	Key string `json:"key,omitempty"`
}

// String returns what the query wants in words, to be put behind the name of a
// service; nothing for the zero value.
func (q Query) String() string {
	var text strings.Builder
	if q.Handler != "" && q.Handler != globalHandler {
		fmt.Fprintf(&text, " for handler %s", oneline.Cut(q.Handler, 64))
		if q.OwnOnly {
			text.WriteString(" alone")
		}
	}
	if len(q.Require) > 0 {
		fmt.Fprintf(&text, " requiring %s", oneline.Cut(strings.Join(q.Require, ", "), 200))
	}
	if !q.Where.IsZero() {
		fmt.Fprintf(&text, " where %s", oneline.Cut(q.Where.String(), 200))
	}
	if len(q.Prefer) > 0 {
		fmt.Fprintf(&text, " preferring %s", oneline.Cut(strings.Join(q.Prefer, ", "), 200))
	}
	if q.Near != "" {
		fmt.Fprintf(&text, " near %s", oneline.Cut(q.Near, 64))
	}
	return oneline.Of(text.String())
}

// normal returns a checked copy that equal queries share, without the key.
func (q Query) normal() (Query, error) {
	q.Key = "" // it is no part of the kind of query
	if q.Handler == globalHandler {
		q.Handler = ""
	}
	if q.Handler != "" {
		if err := checkName("Query.Handler", q.Handler); err != nil {
			return Query{}, err
		}
	} else if q.OwnOnly {
		return Query{}, invalid("Query.OwnOnly", true, "a Handler")
	}
	words, err := checkWords("Query.Require", q.Require)
	if err != nil {
		return Query{}, err
	}
	slices.Sort(words)
	q.Require = words
	if !plain(&q) {
		err = normalWishes(&q)
	}
	return q, err
}

// plain reports whether the query asks for nothing that only some queries do.
func plain(q *Query) bool { return len(q.Prefer) == 0 && q.Near == "" && q.Where.IsZero() }

// normalWishes checks and copies what only some queries ask for.
func normalWishes(q *Query) (err error) {
	if field, value, bound := q.Where.Check(); field != "" {
		return invalid("Query.Where."+field, value, bound)
	}
	if q.Near != "" {
		if err := checkName("Query.Near", q.Near); err != nil {
			return err
		}
	}
	for field, words := range map[string]*[]string{
		"Query.Prefer": &q.Prefer, "Query.Where.Tags": &q.Where.Tags,
		"Query.Where.Regions": &q.Where.Regions, "Query.Where.Exclude": &q.Where.Exclude,
	} {
		if *words, err = checkWords(field, *words); err != nil {
			return err
		}
		slices.Sort(*words)
	}
	return nil
}

// sameWishes reports whether q and the normal query n ask for the same of what only
// some queries ask for.
func sameWishes(q, n *Query) bool {
	a, b := &q.Where, &n.Where
	return q.Near == n.Near && a.MaxLatency == b.MaxLatency && a.MaxCost == b.MaxCost && a.MinVersion == b.MinVersion &&
		sameWords(q.Prefer, n.Prefer) && sameWords(a.Tags, b.Tags) && sameWords(a.Regions, b.Regions) && sameWords(a.Exclude, b.Exclude)
}

// sameWords reports whether words are those of normal, in any order.
func sameWords(words, normal []string) bool {
	if len(words) != len(normal) {
		return false
	}
	for _, word := range normal {
		if !slices.Contains(words, word) {
			return false
		}
	}
	return true
}

// sameQuery reports whether q asks what the normal query n does; it may find queries
// different that are not, when q repeats a word.
func sameQuery(q, n *Query) bool {
	return q.Handler == n.Handler && q.OwnOnly == n.OwnOnly && q.TryRefused == n.TryRefused && sameWords(q.Require, n.Require) &&
		(plain(q) && plain(n) || sameWishes(q, n))
}

// hashQuery does not depend on the order of the required words.
func hashQuery(q *Query, seed maphash.Seed) uint64 {
	sum := maphash.String(seed, q.Handler)
	for _, word := range q.Require {
		sum += maphash.String(seed, word) * 29 // a handler may have the same name
	}
	if q.OwnOnly {
		sum = ^sum
	}
	if q.TryRefused {
		sum *= 31
	}
	if !plain(q) {
		sum += hashWishes(q, seed)
	}
	return sum
}

// hashWishes does not depend on the order of words either.
func hashWishes(q *Query, seed maphash.Seed) uint64 {
	where := &q.Where
	sum := maphash.String(seed, q.Near)*3 + maphash.String(seed, where.MinVersion)*5 +
		maphash.Comparable(seed, where.MaxLatency)*7 + maphash.Comparable(seed, where.MaxCost)*11
	for i, words := range [][]string{q.Prefer, where.Tags, where.Regions, where.Exclude} {
		for _, word := range words {
			sum += maphash.String(seed, word) * uint64(13+2*i)
		}
	}
	return sum
}

// gate is a word of reasons that keep calls away from a provider; zero is
// closed, healthy and ready.
type gate uint32

const (
	gateGone       gate = 1 << iota // removed, or the registry is closing
	gateNotReady                    // its factory failed and waits to be tried again
	gateUnproven                    // no probe of it has succeeded yet
	gateUnhealthy                   // its health is bad
	gateOpen                        // its breaker is open
	gateHalfOpen                    // its breaker is half-open: calls may be trials
	gateTrialsFull                  // ... and all trial slots are taken
	gateCooling                     // it asked to be left alone
	gateReal                        // it is real, and only what stands in for it is picked

	// gateAway are the reasons that a provider comes back from to a slow start.
	gateAway = gateUnproven | gateUnhealthy | gateOpen | gateHalfOpen
	// gateHelpless are the reasons that keep even a last resort away.
	gateHelpless = gateGone | gateNotReady | gateReal
	// gateBlocked are the reasons that keep every call away.
	gateBlocked = gateGone | gateNotReady | gateUnproven | gateUnhealthy | gateOpen | gateTrialsFull | gateCooling | gateReal
)

// breaker returns the state of the breaker as far as calls see it.
func (g gate) breaker() BreakerState {
	switch {
	case g&gateOpen != 0:
		return BreakerOpen
	case g&gateHalfOpen != 0:
		return BreakerHalfOpen
	default:
		return BreakerClosed
	}
}

// plan is the answer to a query as far as membership decides it: the candidates
// in the one order, cut into runs that one strategy picks from. It is immutable
// but for the two sets, which follow the gates of the candidates while the plan
// is in force.
type plan struct {
	candidates []*provider
	runs       []run
	runOf      []int32     // candidate → its run
	steady     *bitset.Set // candidates with no gate at all: what Get gives
	callable   *bitset.Set // candidates that calls may enter, trials included
	inOrder    bool        // the first one that may be picked is: no group has its own mind
	tryRefused bool
	leastBad   bool
	wishes     *wishes // nil: nobody chooses but the two built-in strategies
}

// run is a stretch of candidates of one group.
type run struct {
	low, high int
	rotation  *rotation // nil: take the first, and nobody chooses
	keys      []uint64  // of the run's candidates, ascending, for the rotation; see placeBits
	choice    *choice   // nil: the strategy is built in and may be taken at its word
}

// The lowest bits of a key in a run say where in the run it stands, so that whoever
// was picked last is found without a search. They do not tell keys apart.
const (
	placeBits = 16
	placeMask = 1<<placeBits - 1
)

// rotation remembers who was picked last, as its order key: it stays right
// whoever joins or leaves. A cache line of its own keeps rotations of
// different queries apart.
type rotation struct {
	last atomic.Uint64

	// What selectors remember, and whose it is. Guarded by Registry.mu.
	cursor   *selection.Cursor
	strategy selection.Strategy

	_ [40]byte
}

// next returns the eligible candidate after the one picked last, -1 when none is
// eligible, and moves on to it where move says so.
func (r *run) next(eligible *bitset.Set, move bool) int {
	for {
		last := r.rotation.last.Load()
		after := r.low + r.after(last)
		i := eligible.Next(after, r.high)
		if i < 0 {
			if i = eligible.Next(r.low, after); i < 0 {
				return -1
			}
		}
		if !move || r.rotation.last.CompareAndSwap(last, r.keys[i-r.low]) {
			return i
		}
	}
}

// after returns how many of the run's keys are at most key, wherever it stood.
func (r *run) after(key uint64) int {
	if i := int(key & placeMask); i < len(r.keys) && r.keys[i] == key {
		return i + 1 // it was picked from this plan, as nearly always
	}
	i, found := slices.BinarySearch(r.keys, key|placeMask)
	if found {
		i++
	}
	return i
}

// undecided is what first returns where there is a choice.
const undecided = -2

// first picks where a walk begins: the candidate, or -1. Without move it only
// looks. It leaves choices to begin. Those to whom the price of a function matters
// look themselves whether the plan is in order.
func (p *plan) first(eligible *bitset.Set, move bool) int {
	if p.inOrder {
		return eligible.First()
	}
	if len(p.candidates) <= bitset.OneWord {
		return p.firstOfFew(eligible, move)
	}
	for i := eligible.First(); i >= 0; i = eligible.First() { // again where the run lost its last one meanwhile
		r := &p.runs[p.runOf[i]]
		if r.rotation == nil {
			return i
		}
		if r.choice != nil {
			return undecided
		}
		if picked := r.next(eligible, move); picked >= 0 {
			return picked
		}
	}
	return -1
}

// firstOfFew is first where one word has all candidates: the run and who is next in it
// are those of one moment.
func (p *plan) firstOfFew(eligible *bitset.Set, move bool) int {
	for {
		word := eligible.Head()
		if word == 0 {
			return -1
		}
		i := bits.TrailingZeros64(word)
		r := &p.runs[p.runOf[i]]
		if r.rotation == nil {
			return i
		}
		if r.choice != nil {
			return undecided
		}
		last := r.rotation.last.Load()
		members := word & (^uint64(0) >> (bitset.OneWord - r.high)) // none is before the run
		if behind := members &^ (1<<(r.low+r.after(last)) - 1); behind != 0 {
			members = behind
		}
		i = bits.TrailingZeros64(members)
		if !move || r.rotation.last.CompareAndSwap(last, r.keys[i-r.low]) {
			return i
		}
	}
}

// walk offers the candidates of one plan, each at most once: the eligible ones
// of the first run that has any, in its strategy's order, then those of the
// next. The rotation of a run moves once, when the walk enters it.
type walk struct {
	plan     *plan
	eligible *bitset.Set
	given    int32 // the candidate to begin with; -1: whoever the plan picks
	at       int32 // the candidate offered last; -1 before the first
	start    int32 // where the walk entered the present run
	wrapped  bool  // the rest is [low, start) of the present run
	done     bool
	still    bool // no rotation moves
	fresh    int  // but those of the runs from here on do; 0: none
	silent   bool // ... and nobody is asked in earnest
	glance   bool // somebody only asks whether anyone is left

	// Where there is a choice:
	spilled bool   // the walk began with the run `first`, and goes on with all others
	first   int32  // that run
	resume  int32  // where it goes on
	passed  uint64 // the members of the present run that were offered
	many    *[]int // the same, where a mask has too few bits
	turn    uint64 // of its selector when the walk entered it
}

func (p *plan) walk(eligible *bitset.Set) walk { return p.walkFrom(eligible, -1) }

// walkFrom returns the walk that begins with a candidate that begin has picked.
func (p *plan) walkFrom(eligible *bitset.Set, picked int) walk {
	return walk{plan: p, eligible: eligible, given: int32(picked), at: -1} //nolint:gosec // bounded by the number of providers
}

// next returns the next candidate, or nil. by may be nil for a plan without wishes.
func (w *walk) next(by *asker) *provider {
	if w.done {
		return nil
	}
	if w.at < 0 {
		at := int(w.given)
		if at < 0 {
			at = w.plan.first(w.eligible, !w.still)
		}
		if at == undecided {
			at = w.begin(by)
		}
		return w.enter(at)
	}
	if i := w.withinRun(by); i >= 0 {
		w.at = int32(i) //nolint:gosec // bounded by the number of providers
		return w.plan.candidates[i]
	}
	return w.enter(w.laterRun(by))
}

// more reports whether another candidate is eligible; it moves nothing and asks no
// selector.
func (w *walk) more() bool {
	if w.done {
		return false
	}
	ahead := *w
	ahead.still, ahead.fresh, ahead.silent, ahead.glance = true, 0, true, true
	return ahead.at < 0 || ahead.withinRun(nil) >= 0 || ahead.laterRun(nil) >= 0
}

// peeks reports whether the walk only looks at a run: it moves nothing there.
func (w *walk) peeks(run int32) bool { return w.still && (w.fresh == 0 || int(run) < w.fresh) }

func (w *walk) enter(i int) *provider {
	if i < 0 {
		w.done = true
		return nil
	}
	w.at, w.start, w.wrapped = int32(i), int32(i), false //nolint:gosec // bounded by the number of providers
	return w.plan.candidates[i]
}

func (w *walk) withinRun(by *asker) int {
	r := &w.plan.runs[w.plan.runOf[w.start]]
	if r.choice != nil {
		return w.choose(r, by)
	}
	at, start := int(w.at), int(w.start)
	if !w.wrapped {
		if i := w.eligible.Next(at+1, r.high); i >= 0 || r.rotation == nil {
			return i
		}
		w.wrapped = true
		return w.eligible.Next(r.low, start)
	}
	return w.eligible.Next(at+1, start)
}

func (w *walk) laterRun(by *asker) int {
	from := w.plan.runs[w.plan.runOf[w.start]].high
	if w.spilled {
		from = int(w.resume)
	}
	return w.search(from, by)
}

// search picks from the first run at or behind a candidate that has somebody, but for
// the one that the walk spilled to.
func (w *walk) search(from int, by *asker) int {
	p := w.plan
	for {
		i := w.eligible.Next(from, len(p.candidates))
		if i < 0 {
			return -1
		}
		r := &p.runs[p.runOf[i]]
		from = r.high
		switch {
		case w.spilled && p.runOf[i] == w.first:
		case r.choice != nil:
			if picked := w.choose(r, by); picked >= 0 {
				w.resume = int32(from) //nolint:gosec // bounded by the number of providers
				return picked
			}
		case r.rotation == nil:
			return i
		default:
			if picked := r.next(w.eligible, !w.peeks(p.runOf[i])); picked >= 0 {
				return picked
			}
		}
	}
}

// slot keeps the plan of one query. Its plan is nil while it is out of date: a
// change of membership drops it, and the next look-up builds it anew.
type queryPlan struct {
	service *service
	query   Query // normal
	choosy  bool  // the query may not want a provider that it sees
	plan    atomic.Pointer[plan]

	// rotations outlive the plans, so that who joins or leaves does not restart
	// them, and so does what was measured of each member for this query. Guarded by
	// Registry.mu.
	rotations map[groupKey]*rotation
	tracks    map[*provider]*selection.Track
	spill     *atomic.Uint64
	attached  bool // to its service; guarded by Registry.mu
}

// groupKey names a run of one service across plans.
type groupKey struct {
	handler string
	number  int
	layer   uint64
	mock    bool
}

// current returns the plan in force, building it when it is out of date.
func (s *queryPlan) current() *plan {
	if p := s.plan.Load(); p != nil {
		return p
	}
	return s.service.rebuild(s)
}

// slotLimit bounds how many queries of one service keep a plan. The oldest
// gives way; its rotation starts anew when it is asked again.
const slotLimit = 256

// planFor returns the slot of the query, which it checks.
func (s *service) planFor(asked *Query) (*queryPlan, error) {
	if asked.Handler != globalHandler {
		if known, ok := (*s.slots.Load())[hashQuery(asked, s.registry.seed)]; ok && sameQuery(asked, &known.query) {
			return known, nil
		}
	}
	q, err := asked.normal()
	if err != nil {
		return nil, err
	}
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	if known, ok := (*s.slots.Load())[hashQuery(&q, s.registry.seed)]; ok && sameQuery(&q, &known.query) {
		return known, nil
	}
	created := &queryPlan{service: s, query: q, choosy: len(q.Require) > 0 || !plain(&q), rotations: map[groupKey]*rotation{}}
	s.attach(created)
	return created, nil
}

// attach makes the service drop the slot's plan when it goes out of date.
// Caller holds Registry.mu.
func (s *service) attach(added *queryPlan) {
	slots := maps.Clone(*s.slots.Load())
	hash := hashQuery(&added.query, s.registry.seed)
	if displaced, ok := slots[hash]; ok { // another query with the same hash
		s.detach(displaced)
	}
	if len(s.slotOrder) >= slotLimit {
		oldest := s.slotOrder[0]
		delete(slots, hashQuery(&oldest.query, s.registry.seed))
		s.detach(oldest)
	}
	slots[hash] = added
	added.attached = true
	s.slotOrder = append(s.slotOrder, added)
	s.slots.Store(&slots)
}

// detach drops the slot's plan for good. Caller holds Registry.mu.
func (s *service) detach(gone *queryPlan) {
	gone.attached = false
	s.drop(gone)
	s.slotOrder = slices.DeleteFunc(s.slotOrder, func(other *queryPlan) bool { return other == gone })
}

// drop puts the slot's plan out of force. Caller holds Registry.mu.
func (s *service) drop(out *queryPlan) {
	old := out.plan.Swap(nil)
	if old == nil {
		return
	}
	for _, p := range old.candidates {
		p.places = slices.DeleteFunc(p.places, func(at place) bool { return at.plan == old })
	}
}

// outdate puts all plans of the service out of force. Caller holds Registry.mu.
func (s *service) outdate() {
	for _, live := range s.slotOrder {
		s.drop(live)
	}
	s.sorted = nil
}

// rebuild makes the slot's plan from the present members.
func (s *service) rebuild(target *queryPlan) *plan {
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	if p := target.plan.Load(); p != nil {
		return p
	}
	if !target.attached {
		if twin, ok := (*s.slots.Load())[hashQuery(&target.query, s.registry.seed)]; ok && sameQuery(&target.query, &twin.query) {
			// Another resolver came to ask the same after target had given way:
			// they share its turns. This one pays the lock for each look-up.
			if p := twin.plan.Load(); p != nil {
				return p
			}
			target = twin
		} else {
			s.attach(target)
		}
	}
	built := s.build(target)
	target.plan.Store(built)
	return built
}

// build makes a plan whose sets follow the gates of its candidates from now on.
// Caller holds Registry.mu.
func (s *service) build(target *queryPlan) *plan {
	p := &plan{tryRefused: target.query.TryRefused}
	for _, scope := range s.scopes(target.query) {
		p.candidates = append(p.candidates, scope...)
	}
	p.candidates = slices.DeleteFunc(p.candidates, func(c *provider) bool {
		return s.mismatch(c, target.query) != nil
	})
	// Stable: each scope is in the one order already; mocks go behind all the
	// real ones of both scopes.
	slices.SortStableFunc(p.candidates, func(a, b *provider) int { return compareBool(a.mock(), b.mock()) })

	p.steady, p.callable = bitset.New(len(p.candidates)), bitset.New(len(p.candidates))
	p.runOf = make([]int32, len(p.candidates))
	rotations := make(map[groupKey]*rotation)
	chosen := s.wishes(target)
	for i, c := range p.candidates {
		if i == 0 || c.runKey() != p.candidates[i-1].runKey() {
			p.runs = append(p.runs, run{low: i})
			if chosen || c.group.strategy != StrategyFallback {
				kept, ok := target.rotations[c.runKey()]
				if !ok || !kept.strategy.Same(c.group.strategy) {
					kept = &rotation{strategy: c.group.strategy} // nobody finds what another strategy has remembered
				}
				rotations[c.runKey()] = kept
				p.runs[len(p.runs)-1].rotation = kept
			}
		}
		current := &p.runs[len(p.runs)-1]
		current.high = i + 1
		if current.rotation != nil {
			current.keys = append(current.keys, c.orderKey()<<placeBits|uint64(i-current.low)&placeMask) //nolint:gosec // not negative
		}
		p.runOf[i] = int32(len(p.runs) - 1) //nolint:gosec // bounded by the number of providers
		c.places = append(c.places, place{plan: p, at: i})
		p.set(i, c.gateNow())
	}
	target.rotations = rotations
	s.giveChoices(target, p, chosen)
	p.inOrder = !slices.ContainsFunc(p.runs, func(r run) bool { return r.rotation != nil })
	return p
}

// set makes the two sets follow a gate. Caller holds Registry.mu.
func (p *plan) set(at int, now gate) {
	flip(p.steady, at, now == 0)
	flip(p.callable, at, now&gateBlocked == 0)
}

func flip(set *bitset.Set, at int, member bool) {
	if member {
		set.Add(at)
	} else {
		set.Remove(at)
	}
}

// place is where a provider stands in a plan in force.
type place struct {
	plan *plan
	at   int
}

// scopes returns what a query sees, before capabilities: the handler's own
// providers, then the global ones, each in the one order. Caller holds
// Registry.mu and must not change what it gets.
func (s *service) scopes(q Query) [][]*provider {
	if s.sorted == nil {
		s.sorted = make(map[string][]*provider)
		for p := range s.members {
			handler := p.definition.Handler
			s.sorted[handler] = append(s.sorted[handler], p)
		}
		for _, scope := range s.sorted {
			slices.SortFunc(scope, compareProviders)
		}
	}
	switch {
	case q.Handler == "":
		return [][]*provider{s.sorted[""]}
	case q.OwnOnly:
		return [][]*provider{s.sorted[q.Handler], s.matchAny()}
	default:
		return [][]*provider{s.sorted[q.Handler], s.sorted[""]}
	}
}

// compareProviders is the one order inside a scope: group, priority, registration. The
// members of a group stand together.
func compareProviders(a, b *provider) int {
	return cmp.Or(
		compareBool(a.mock(), b.mock()),
		cmp.Compare(a.group.key.number, b.group.key.number),
		cmp.Compare(a.overrideID, b.overrideID),
		cmp.Compare(a.orderKey(), b.orderKey()),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// orderKey orders the providers of one group: priority, then registration.
// Caller holds Registry.mu.
func (p *provider) orderKey() uint64 {
	const sequenceBits = 44
	return uint64(p.definition.Priority.Rank())<<sequenceBits | p.order&(1<<sequenceBits-1) //nolint:gosec // ranks are 0 to 9
}

func (p *provider) runKey() groupKey {
	return groupKey{handler: p.definition.Handler, number: p.group.key.number, layer: p.overrideID, mock: p.mock()}
}
