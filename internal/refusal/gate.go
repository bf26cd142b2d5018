package refusal

import (
	"fmt"
	"time"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/breaker"
	"github.com/capreg/registry/internal/cooldown"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/reason"
)

// Gate has the reasons that keep calls away from a provider, as bits. Zero is healthy, ready and with a closed
// breaker.
type Gate uint32

// The reasons.
const (
	Gone       Gate = 1 << iota // removed, or the registry is closing
	NotReady                    // its factory failed and waits for its next try
	Unproven                    // no probe of it has succeeded yet
	Unhealthy                   // its health is bad
	Open                        // its breaker is open
	HalfOpen                    // its breaker is half-open: calls may be trials
	TrialsFull                  // ... and all trial slots are taken
	Cooling                     // it asked to be left alone
	Hidden                      // a test has replaced it, or only mocks are picked
	NoTraffic                   // its weight is 0
	Proving                     // it has not joined yet, and is in no plan

	// Away has the reasons after which a provider comes back to a slow start.
	Away = Unproven | Unhealthy | Open | HalfOpen
	// Helpless has the reasons that keep even a last resort away.
	Helpless = Gone | NotReady | Hidden | NoTraffic
	// Blocked has the reasons that keep every call away.
	Blocked = Gone | NotReady | Unproven | Unhealthy | Open | TrialsFull | Cooling | Hidden | NoTraffic
)

// Breaker returns the state of the breaker as far as calls see it.
func (g Gate) Breaker() breaker.State {
	switch {
	case g&Open != 0:
		return breaker.Open
	case g&HalfOpen != 0:
		return breaker.HalfOpen
	default:
		return breaker.Closed
	}
}

// Opening says why an open breaker refuses calls, and until when. It is made once, when the breaker opens, since all
// that are refused return it.
type Opening struct {
	until time.Time
	why   *Reason
	err   error // why, as the only reason
}

// NewOpening returns the opening of a breaker that admits trials from then on. The zero time: not known yet.
func NewOpening(text string, until time.Time) Opening {
	words := fault.ErrBreakerOpen.Error()
	if text != "" {
		words = fmt.Sprintf("%s (%s)", words, oneline.Cut(text, 64))
	}
	why := &Reason{reason.BreakerOpen, fault.ErrBreakerOpen, words, nil}
	return Opening{until, why, fault.Join("", []error{why})}
}

// Refusal returns the fields of the [Standing] of a provider that only its open breaker keeps away.
func (o *Opening) Refusal(now time.Time) (code reason.Code, words string, retryIn time.Duration, err error) {
	return reason.BreakerOpen, o.why.words, max(o.until.Sub(now), 0), o.err
}

// Facts answers questions about one provider. [Of] asks only those whose reason is in the gate.
type Facts interface {
	// HiddenBy returns why the provider is not picked, however healthy it is.
	HiddenBy() *Reason
	// Health returns the reason for bad health, and the providers that it requires and that are the reason.
	Health() (text string, because []string, cause error)
	// Proof returns what is missing for a first good probe, and the time until the next one.
	Proof() (text string, next time.Duration, cause error)
	// Opening returns the last opening of its breaker.
	Opening() *Opening
	// Cooldown returns the cooldown that keeps it away for longest.
	Cooldown() *cooldown.Cooldown
	// Factory returns the last failure of its factory, and when that runs again.
	Factory() (text string, until time.Time, cause error)
}

// reasons are the reasons in a gate, in the order in which they are reported, each with the function that explains
// it and tells how long it lasts; zero: it does not end by itself, or not at a known time.
//
//nolint:gochecknoglobals // a table
var reasons = [...]struct {
	in      Gate
	explain func(f Facts, now time.Time) (*Reason, time.Duration)
}{
	{Gone, func(Facts, time.Time) (*Reason, time.Duration) { return errGone, 0 }},
	{Hidden, func(f Facts, _ time.Time) (*Reason, time.Duration) { return f.HiddenBy(), 0 }},
	{NoTraffic, func(Facts, time.Time) (*Reason, time.Duration) { return errNoTraffic, 0 }},
	{Unhealthy, func(f Facts, _ time.Time) (*Reason, time.Duration) {
		text, names, cause := f.Health()
		words := fmt.Sprintf("%v: %s", fault.ErrUnhealthy, Because(text, names))
		return &Reason{reason.Unhealthy, fault.ErrUnhealthy, words, cause}, 0
	}},
	{Unproven, func(f Facts, _ time.Time) (*Reason, time.Duration) {
		text, next, cause := f.Proof()
		return &Reason{reason.Starting, fault.ErrNotReady, fmt.Sprintf("%v: %s", fault.ErrNotReady, text), cause}, next
	}},
	{Open, func(f Facts, now time.Time) (*Reason, time.Duration) {
		opening := f.Opening()
		return opening.why, max(opening.until.Sub(now), 0)
	}},
	{TrialsFull, func(Facts, time.Time) (*Reason, time.Duration) { return errTrialsFull, 0 }},
	{Cooling, func(f Facts, now time.Time) (*Reason, time.Duration) {
		code, sentinel, cooling := reason.CoolingDown, fault.ErrCoolingDown, f.Cooldown()
		if cooling.State() == cooldown.Parked {
			code, sentinel = reason.Parked, fault.ErrCredentials
		}
		words := fmt.Sprintf("%v (%v)", sentinel, cooling.Class())
		return &Reason{code, sentinel, words, cooling.Cause()}, max(cooling.Until().Sub(now), 0)
	}},
	{NotReady, func(f Facts, now time.Time) (*Reason, time.Duration) {
		text, until, cause := f.Factory()
		words := fmt.Sprintf("%v: %s", fault.ErrNotReady, text)
		return &Reason{reason.NotReady, fault.ErrNotReady, words, cause}, max(until.Sub(now), 0)
	}},
}

// codes are the codes of the reasons in a gate, in the same order; those of two depend on more than the gate.
//
//nolint:gochecknoglobals // a table
var codes = [...]struct {
	in   Gate
	code reason.Code
}{
	{Gone, reason.Closed},
	{Hidden, reason.Overridden},
	{NoTraffic, reason.NoTraffic},
	{Unhealthy, reason.Unhealthy},
	{Unproven, reason.Starting},
	{Open, reason.BreakerOpen},
	{TrialsFull, reason.TrialsFull},
	{Cooling, reason.CoolingDown},
	{NotReady, reason.NotReady},
	{HalfOpen, reason.Trial},
}

// OfHealth returns the reason for which a state of health keeps calls away; zero for none.
func OfHealth(state health.State) Gate {
	switch state { //nolint:exhaustive // the others keep none away
	case health.Unhealthy:
		return Unhealthy
	case health.Unknown, health.Starting:
		return Unproven
	}
	return 0
}

// CodeOf returns the code that [Of] gives, without the words.
func CodeOf(g Gate, f Facts) reason.Code {
	for _, row := range codes {
		switch {
		case g&row.in == 0:
		case row.in == Hidden:
			return f.HiddenBy().code
		case row.in == Cooling && f.Cooldown().State() == cooldown.Parked:
			return reason.Parked
		default:
			return row.code
		}
	}
	return reason.Eligible
}

// Of puts a gate into words. Nothing else does.
func Of(g Gate, f Facts, now time.Time) Standing {
	switch blocked := g & Blocked; {
	case blocked == Open: // by far the most frequent refusal: its words are ready
		s := Standing{}
		s.Code, s.Words, s.RetryIn, s.Err = f.Opening().Refusal(now)
		return s
	case blocked != 0:
		return merge(blocked, f, now)
	case g&HalfOpen != 0:
		return Standing{Eligible: true, Code: reason.Trial, Words: "breaker half-open: the call would be a trial"}
	default:
		return Standing{Eligible: true, Code: reason.Eligible}
	}
}

// merge makes one refusal of all reasons that keep calls away.
func merge(blocked Gate, f Facts, now time.Time) (s Standing) {
	var all []error
	endless := false // a reason does not end by itself
	for _, row := range reasons {
		if blocked&row.in == 0 {
			continue
		}
		reason, retryIn := row.explain(f, now)
		if len(all) == 0 {
			s.Code, s.Words = reason.code, reason.words
		} else {
			s.Words += ", " + reason.words
		}
		all = append(all, reason)
		s.RetryIn = max(s.RetryIn, retryIn) // all of them have to end
		endless = endless || retryIn == 0
	}
	s.Err = fault.Join("", all)
	if endless {
		s.RetryIn = 0
	}
	return s
}

// NotProven returns the reason for which a provider that was to join does not: what the gate says, else that one of its
// capabilities is out, nil for none. late says that its time is over.
func NotProven(g Gate, f Facts, out *Reason, late bool, now time.Time) *Reason {
	why := &Reason{reason.NotReady, fault.ErrNotReady, "its factory or a probe has not ended", nil}
	if blocked := g & (NotReady | Unhealthy | Unproven); blocked != 0 {
		s := Of(blocked, f, now)
		why.words, why.cause = s.Words, s.Err
	} else if out != nil {
		why.words, why.cause = out.words, out
	}
	if late {
		why.words += "; its time is over"
	}
	return why
}
