package sight

import (
	"iter"
	"slices"
	"time"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/query"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/reason"
)

// Seen is a provider that a look-up saw, and how it stood.
type Seen struct {
	Who
	refusal.Standing
}

// Sight holds the providers as a look-up saw them at one moment: records, which all look-ups share until one of them
// changes. It keeps no provider alive. The list of them, with a copy of each, is made when it is asked for, outside
// of every lock. The zero value saw nothing.
type Sight struct {
	At     time.Time
	Strict bool      // trials are no use
	View   *View     // of the candidates
	Others *Unwanted // that the query sees but does not accept; nil: none

	Cause   error         // why there are none at all
	Codes   []reason.Code // of all, each once; not to be changed
	RetryIn time.Duration // until a retry is worthwhile; zero when that is now, or never by itself

	noted []noted // candidates that stand otherwise than their records say, in order
}

// noted is a candidate whose record does not know what keeps calls away.
type noted struct {
	at   int
	seen Seen
}

// Unwanted has the providers that a query sees but does not accept.
type Unwanted struct {
	Query query.Query
	View  *View // of all that it sees
	Count int
	Codes []reason.Code
}

// NewUnwanted looks through all that the query sees.
func NewUnwanted(q *query.Query, all *View) *Unwanted {
	u := &Unwanted{Query: *q, View: all}
	for i := range all.Len() {
		if why := all.At(i).Mismatch(q); why != nil {
			u.Count++
			u.Codes = withCode(u.Codes, why.Code())
		}
	}
	return u
}

// At returns the same of a later view, while the same providers are accepted, for the same reasons.
func (u *Unwanted) At(all *View) *Unwanted {
	later := *u
	later.View = all
	return &later
}

// Candidates tells what the records of candidates do not know. Its methods are called without a lock.
type Candidates interface {
	// Full reports whether an attempt on candidate i would find no free place now.
	Full(i int) bool
	// ThrottledFor returns the time until the rate of the caller admits an attempt; zero: now.
	ThrottledFor(i int, caller string) time.Duration
	// Bounded reports whether the query has a bound of the latency.
	Bounded() bool
	// TooSlow compares the latency with the bound, and returns the time until it will have faded to it.
	TooSlow(i int) (latency, bound, retryIn time.Duration, slow bool)
}

// Note looks at what the records do not know: places, skips and rates, of eligible candidates alone, and latencies.
// Skips are the providers that a call has skipped, with their reasons. With a caller, those that its rate keeps away
// count as throttled.
func (o *Sight) Note(of Candidates, skips []Seen, caller *string) {
	o.Codes = slices.Clip(o.View.Codes())
	if soonest := o.View.Soonest(); !soonest.IsZero() {
		o.RetryIn = max(soonest.Sub(o.At), 0)
	}
	switch {
	case of.Bounded():
		o.noteAll(of, skips, caller)
	case !o.Strict || o.View.AnyHealthy():
		o.noteEligible(of, skips, caller)
	case o.View.AnyEligible(): // by trials
		o.Codes = withCode(o.Codes, refusal.OnlyTrials().Code())
	}
	if o.Others != nil {
		for _, code := range o.Others.Codes {
			o.Codes = withCode(o.Codes, code)
		}
	}
}

func (o *Sight) noteEligible(of Candidates, skips []Seen, caller *string) {
	eligible := false
	for i, r := range o.View.Eligible() {
		if len(skips) == 0 && !o.Strict && !of.Full(i) && (caller == nil || of.ThrottledFor(i, *caller) == 0) {
			o.Codes, eligible = withCode(o.Codes, r.Code), true // by far the most frequent: without a copy
			continue
		}
		c := o.seen(r)
		if o.adjust(&c, i, of, skips, caller) {
			o.noted = append(o.noted, noted{i, c})
		}
		o.Codes = withCode(o.Codes, c.Code)
		eligible = eligible || c.Eligible
		if c.RetryIn > 0 && (o.RetryIn == 0 || c.RetryIn < o.RetryIn) {
			o.RetryIn = c.RetryIn
		}
	}
	if eligible {
		o.RetryIn = 0
	}
}

// noteAll is noteEligible for a query with a bound of the latency, which every candidate is compared with.
func (o *Sight) noteAll(of Candidates, skips []Seen, caller *string) {
	all := make([]Seen, o.View.Len())
	for i := range all {
		c := &all[i]
		*c = o.seen(o.View.At(i))
		changed := o.adjust(c, i, of, skips, caller)
		if latency, bound, retryIn, slow := of.TooSlow(i); slow {
			c.RefuseTooSlow(latency, bound, retryIn)
			changed = true
		}
		if changed {
			o.noted = append(o.noted, noted{i, *c})
		}
		o.Codes = withCode(o.Codes, c.Code)
	}
	o.RetryIn = refusal.Soonest(all, func(c *Seen) (bool, time.Duration) { return c.Eligible, c.RetryIn })
}

// adjust makes c follow what its record does not know, and reports whether that changed it.
func (o *Sight) adjust(c *Seen, i int, of Candidates, skips []Seen, caller *string) (changed bool) {
	if !o.Strict && c.Eligible && of.Full(i) {
		c.Refuse(refusal.Full(), 0)
		changed = true
	}
	for _, skip := range slices.Backward(skips) { // the last reason counts
		if c.Eligible && skip.Provider == c.Provider {
			*c, changed = skip, true
		}
	}
	if caller != nil && !o.Strict && (c.Eligible || c.Code == reason.AtCapacity) {
		if retryIn := of.ThrottledFor(i, *caller); retryIn > 0 {
			c.Refuse(refusal.Throttled(), retryIn)
			changed = true
		}
	}
	return changed
}

func withCode(codes []reason.Code, code reason.Code) []reason.Code {
	if slices.Contains(codes, code) {
		return codes
	}
	return append(codes, code)
}

// seen returns the provider of a record, as it stood at the moment.
func (o *Sight) seen(r *Record) Seen {
	c := Seen{r.Who, r.Standing}
	if !r.Until.IsZero() {
		c.RetryIn = max(r.Until.Sub(o.At), 0)
	}
	if last := r.Last.Load(); last != nil && !last.Time.After(o.At) {
		c.LastError = last
	}
	if o.Strict && c.Code == reason.Trial {
		c.Refuse(refusal.OnlyTrials(), 0)
	}
	return c
}

// Len returns the number of candidates, with those that the query does not accept.
func (o *Sight) Len() int {
	switch {
	case o.View == nil:
		return 0
	case o.Others == nil:
		return o.View.Len()
	}
	return o.View.Len() + o.Others.Count
}

// LenWithout returns how many of them have none of the names.
func (o *Sight) LenWithout(named func(provider string) bool) int {
	count := o.Len()
	if count == 0 {
		return 0
	}
	for i := range o.View.Len() {
		if named(o.View.At(i).Provider) {
			count--
		}
	}
	if o.Others != nil {
		for i := range o.Others.View.Len() {
			if r := o.Others.View.At(i); named(r.Provider) && r.Mismatch(&o.Others.Query) != nil {
				count--
			}
		}
	}
	return count
}

// All yields the candidates in the order of the plan, then those that the query sees but does not accept.
// Each is valid until the next one.
func (o *Sight) All() iter.Seq[*Seen] {
	return func(yield func(*Seen) bool) {
		if o.View != nil && o.each(yield) && o.Others != nil {
			o.eachUnwanted(yield)
		}
	}
}

// each yields the candidates, and reports whether more are wanted.
func (o *Sight) each(yield func(*Seen) bool) bool {
	rest := o.noted
	var c Seen
	for i := range o.View.Len() {
		if len(rest) > 0 && rest[0].at == i {
			c, rest = rest[0].seen, rest[1:]
		} else {
			c = o.seen(o.View.At(i))
		}
		if !yield(&c) {
			return false
		}
	}
	return true
}

func (o *Sight) eachUnwanted(yield func(*Seen) bool) {
	for i := range o.Others.View.Len() {
		r := o.Others.View.At(i)
		if why := r.Mismatch(&o.Others.Query); why != nil {
			c := o.seen(r)
			c.Refuse(why, 0)
			if !yield(&c) {
				return
			}
		}
	}
}

// Only reports whether all of them but the named have one of the codes.
func (o *Sight) Only(named func(provider string) bool, codes ...reason.Code) bool {
	if !slices.ContainsFunc(o.Codes, func(code reason.Code) bool { return !slices.Contains(codes, code) }) {
		return true
	}
	for c := range o.All() {
		if !named(c.Provider) && !slices.Contains(codes, c.Code) {
			return false
		}
	}
	return true
}

// MissCodes returns the codes by which the misses of look-ups that saw this are counted.
func (o *Sight) MissCodes() []reason.Code {
	switch o.Cause {
	case nil:
		return o.Codes
	case fault.ErrClosed: //nolint:errorlint // the sentinel itself
		return []reason.Code{reason.Closed}
	case fault.ErrUnknownService:
		return []reason.Code{reason.UnknownService}
	}
	return []reason.Code{reason.NoneInSight}
}

// AllParked reports whether every candidate refuses this client's credentials.
func (o *Sight) AllParked() bool { return len(o.Codes) == 1 && o.Codes[0] == reason.Parked }

// Means reports whether the code of any candidate says that its error matches the sentinel.
func (o *Sight) Means(sentinel error) bool {
	return slices.ContainsFunc(o.Codes, func(code reason.Code) bool { return means(code, sentinel) })
}

// meanings are the sentinels that the errors of candidates with these codes match. They may match others, too.
//
//nolint:gochecknoglobals // a table
var meanings = [...]struct {
	code     reason.Code
	sentinel error
}{
	{reason.BreakerOpen, fault.ErrBreakerOpen},
	{reason.TrialsFull, fault.ErrBreakerOpen},
	{reason.CoolingDown, fault.ErrCoolingDown},
	{reason.Parked, fault.ErrCoolingDown},
	{reason.Unhealthy, fault.ErrUnhealthy},
	{reason.CapabilityOut, fault.ErrUnhealthy},
	{reason.Starting, fault.ErrNotReady},
	{reason.NotReady, fault.ErrNotReady},
	{reason.AtCapacity, fault.ErrAtCapacity},
	{reason.Throttled, fault.ErrAtCapacity},
	{reason.BudgetSpent, fault.ErrAtCapacity},
	{reason.CapabilityMissing, fault.ErrNoCapability},
	{reason.Denied, fault.ErrDenied},
}

// means reports whether the code says that the error of its candidate matches the sentinel.
func means(code reason.Code, sentinel error) bool {
	for _, meaning := range meanings {
		if meaning.code == code && meaning.sentinel == sentinel { //nolint:errorlint // the sentinel itself
			return true
		}
	}
	return false
}
