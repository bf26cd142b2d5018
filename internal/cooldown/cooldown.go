// Package cooldown computes how long a provider, or a failure domain, is left alone after an outcome.
//
// A [Cooldown] is a plain value: the caller passes the time and guards the value. A [Timed] adds the timer at its
// end; what that does is the caller's. The package never looks at an error beyond keeping it.
package cooldown

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// Max bounds every cooldown, whatever a server asks for.
const Max = 24 * time.Hour

// growth gives the length of the cooldowns that no server has stated: first, doubled each time, up to last.
type growth struct{ first, last time.Duration }

//nolint:gochecknoglobals // immutable
var growths = map[verdict.Cooldown]growth{
	verdict.CooldownShort: {first: 5 * time.Second, last: 30 * time.Second},
	verdict.CooldownAsked: {first: 2 * time.Second, last: time.Minute},
	verdict.CooldownModel: {first: time.Minute, last: 10 * time.Minute},
	verdict.CooldownLong:  {first: 5 * time.Minute, last: time.Hour},
}

// refusalsToPark is the number of calls in a row whose credentials are refused before the provider's are taken to be
// dead. Fewer may be the callers' own.
const refusalsToPark = 3

// State tells whether a cooldown is in progress, and what ends it.
type State uint8

const (
	// Idle is the state without a cooldown, and the zero value.
	Idle State = iota
	// Cooling ends with its deadline.
	Cooling
	// Parked ends with its deadline too, but only an operator can mend the cause.
	Parked
)

// Cooldown is the cooldown of one provider or domain. The zero value is idle and has not grown.
//
//	state    transition                      next     effect
//	idle     Apply, not fatal                cooling  deadline, class and cause; growth + 1
//	idle     Apply, fatal                    parked   deadline, class and cause; growth + 1
//	cooling  Apply, not fatal, later         cooling  deadline, class and cause
//	cooling  Apply, not fatal, not later     cooling  none
//	cooling  Apply, fatal                    parked   class and cause; the later deadline
//	parked   Apply, later                    parked   deadline
//	parked   Apply, not later                parked   none
//	any      End                             idle     growth stays
//	any      ResetGrowth                     same     growth 0
//	any      Apply, third kind               same     counts the call; at the third one as Apply, fatal
//	any      ForgetRefusals                  same     no calls counted
type Cooldown struct {
	state   State
	since   time.Time
	until   time.Time
	class   verdict.Class
	by      status.ProviderID
	cause   error
	guessed bool
	growth  int
	refused refusals
}

// refusals has the calls in a row whose credentials were refused.
type refusals struct {
	calls [refusalsToPark]uint64
	count int
}

// add counts a call, unless it is counted already, and reports whether that makes enough of them.
func (r *refusals) add(call uint64) (enough bool) {
	if r.count < refusalsToPark && !slices.Contains(r.calls[:r.count], call) {
		r.calls[r.count] = call
		r.count++
	}
	return r.count == refusalsToPark
}

// Request is the cooldown that one outcome asks for.
type Request struct {
	// Class is the class of the outcome; [verdict.ClassFatal] parks.
	Class verdict.Class
	// Kind selects the growth. Of [verdict.CooldownNone] only After counts, as it is and without growth.
	Kind verdict.Cooldown
	// After is the time that the server asked for; zero if it named none.
	After time.Duration
	// Cause is the error to report while the cooldown lasts, and By the provider that it is of.
	Cause error
	By    status.ProviderID
	// Call tells the calls of [verdict.CooldownThird] apart: one that is refused by several providers counts once.
	Call uint64
}

// Apply begins the cooldown that the outcome asks for, or extends the one in progress: the latest deadline
// wins. It reports whether anything changed.
func (c *Cooldown) Apply(r Request, now time.Time) (changed bool) {
	if r.Kind == verdict.CooldownThird {
		r.Kind = verdict.CooldownNone
		if c.refused.add(r.Call) {
			r.Class, r.Kind = verdict.ClassFatal, verdict.CooldownLong
		}
	}
	length := c.length(r)
	if length <= 0 {
		return false
	}
	if c.state == Idle {
		c.since = now
		c.begin(r, now.Add(length))
		return true
	}
	parks := r.Class == verdict.ClassFatal && c.state != Parked
	later := now.Add(length).After(c.until)
	if later {
		c.extend(now.Add(length), r.After <= 0)
	}
	if c.state == Cooling && (later || parks) {
		c.attribute(r)
	}
	return later || parks
}

func (c *Cooldown) begin(r Request, until time.Time) {
	if r.Kind != verdict.CooldownNone {
		c.growth++
	}
	c.extend(until, r.After <= 0)
	c.attribute(r)
}

func (c *Cooldown) extend(until time.Time, guessed bool) {
	c.until, c.guessed = until, guessed
}

// attribute takes over the class and the cause, and with them the state. The ones of a parked cooldown stay: a
// rate limit that prolongs it does not mend its cause.
func (c *Cooldown) attribute(r Request) {
	c.class, c.cause, c.by, c.state = r.Class, r.Cause, r.By, Cooling
	if r.Class == verdict.ClassFatal {
		c.state = Parked
	}
}

// length returns how long the outcome asks for. An asked time gets up to a tenth on top, never less, so that a
// server's clients do not return together; of a growing time up to a fifth is random.
func (c *Cooldown) length(r Request) time.Duration {
	grows, ok := growths[r.Kind]
	switch {
	case !ok:
		return min(r.After, Max)
	case r.After > 0:
		asked := min(r.After, Max)
		return min(asked+rand.N(asked/10+1), Max) //nolint:gosec // jitter
	}
	grown := grows.at(c.step())
	return grown - rand.N(grown/5+1) //nolint:gosec // jitter
}

// step returns how often the length is doubled. Outcomes during a cooldown repeat its step and do not grow it.
func (c *Cooldown) step() int {
	if c.state == Idle {
		return c.growth
	}
	return max(c.growth-1, 0)
}

func (g growth) at(step int) time.Duration {
	if step < 16 && g.first<<step < g.last {
		return g.first << step
	}
	return g.last
}

// End makes the cooldown idle. Its growth and the calls counted stay: only a success ends them.
func (c *Cooldown) End() {
	*c = Cooldown{growth: c.growth, refused: c.refused}
}

// ForgetRefusals forgets the calls whose credentials were refused.
func (c *Cooldown) ForgetRefusals() { c.refused = refusals{} }

// ResetGrowth makes the next cooldown as short as the first. One in progress stays as it is.
func (c *Cooldown) ResetGrowth() { c.growth = 0 }

// State returns the present state.
func (c *Cooldown) State() State { return c.state }

// Active reports whether the cooldown is in progress: cooling or parked.
func (c *Cooldown) Active() bool { return c.state != Idle }

// Over reports whether the deadline of an active cooldown has passed.
func (c *Cooldown) Over(now time.Time) bool { return c.Active() && !now.Before(c.until) }

// Until returns the deadline; zero when idle.
func (c *Cooldown) Until() time.Time { return c.until }

// Class returns the class of the outcome that the cooldown is attributed to.
func (c *Cooldown) Class() verdict.Class { return c.class }

// Cause returns the error of that outcome; nil when idle.
func (c *Cooldown) Cause() error { return c.cause }

// Guessed reports whether no server has asked for the deadline.
func (c *Cooldown) Guessed() bool { return c.guessed }

// Status returns the cooldown as it is shown, or the zero value when it is idle.
func (c *Cooldown) Status(scope verdict.Scope) status.Cooldown {
	if !c.Active() {
		return status.Cooldown{}
	}
	return status.Cooldown{
		Since: c.since, Until: c.until, Class: c.class, By: c.by, Scope: scope, Parked: c.state == Parked, Asked: !c.guessed,
	}
}

// Growth returns how many cooldowns have begun since the last success.
func (c *Cooldown) Growth() int { return c.growth }

// Pending reports whether a success has something to end: growth, or calls counted.
func (c *Cooldown) Pending() bool { return c.growth > 0 || c.refused.count > 0 }

// Latest returns the cooldown with the later deadline: of a provider's own and its domain's the one that
// decides. Of equal ones it is the domain's.
func Latest(own, domain *Cooldown) *Cooldown {
	if own.until.After(domain.until) {
		return own
	}
	return domain
}
