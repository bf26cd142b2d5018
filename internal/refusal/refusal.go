// Package refusal says why a provider gets no call: in a stable code, in words, as an error that matches a sentinel,
// and with the time after which it ends by itself.
//
// It owns all codes and words, the order in which reasons are reported, and the way in which several become one: the
// first gives the code, all give words and errors, and the last one to end gives the time. What keeps calls away it
// reads from a [Gate] and asks of [Facts]. It never locks, keeps nothing, and reads no clock: its functions may be
// called under a lock, since the Error method of a cause runs only when a text is asked for.
package refusal

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/selection"
)

// Reason is one reason why a provider gets no call. As an error it matches its sentinel and unwraps to its cause.
type Reason struct { //nolint:errname // it is what the error is about
	code     reason.Code
	sentinel error
	words    string
	cause    error
}

// Code returns the reason in one stable word.
func (r *Reason) Code() reason.Code { return r.code }

// Error returns the reason in words.
func (r *Reason) Error() string { return r.words }

// Unwrap returns the sentinel and the cause.
func (r *Reason) Unwrap() []error {
	errs := []error{r.sentinel}
	if errors.Is(r.sentinel, fault.ErrCredentials) { // a parked provider cools down, for long
		errs = append(errs, fault.ErrCoolingDown)
	}
	if r.cause != nil {
		errs = append(errs, r.cause)
	}
	return errs
}

// The reasons that are the same for every provider.
//

var (
	errGone       = &Reason{reason.Closed, fault.ErrClosed, fault.ErrClosed.Error(), nil}
	errNoTraffic  = &Reason{reason.NoTraffic, fault.ErrUnavailable, "no traffic: its weight is 0", nil}
	errTrialsFull = &Reason{reason.TrialsFull, fault.ErrBreakerOpen, "breaker half-open, all trial slots taken", nil}
	errFull       = &Reason{reason.AtCapacity, fault.ErrAtCapacity, fault.ErrAtCapacity.Error(), nil}
	errOnlyTrials = &Reason{reason.BreakerOpen, fault.ErrBreakerOpen, "breaker half-open: only calls are trials", nil}
	errThrottled  = &Reason{reason.Throttled, fault.ErrAtCapacity, "rate of the caller used up", nil}
	errSpent      = &Reason{reason.BudgetSpent, fault.ErrAtCapacity, "budget for further attempts spent", nil}
	errMocksOnly  = &Reason{reason.MocksOnly, fault.ErrUnavailable, "not a mock, and only mocks are picked", nil}
	errReplaced   = &Reason{reason.Overridden, fault.ErrUnavailable, "overridden by a replacement", nil}
)

// Full is the reason of a provider without a free place.
func Full() *Reason { return errFull }

// OnlyTrials is the reason of a half-open breaker for a look-up, which is no trial.
func OnlyTrials() *Reason { return errOnlyTrials }

// Throttled is the reason of a caller that has used up its rate.
func Throttled() *Reason { return errThrottled }

// ThrottledFor is the reason of a caller whose rate admits an attempt after retryIn; nil for none, at zero.
func ThrottledFor(retryIn time.Duration) (*Reason, time.Duration) {
	if retryIn <= 0 {
		return nil, 0
	}
	return errThrottled, retryIn
}

// BudgetSpent is the reason of a provider without tokens for further attempts.
func BudgetSpent() *Reason { return errSpent }

// MocksOnly is the reason of a real provider where only mocks are picked.
func MocksOnly() *Reason { return errMocksOnly }

// Replaced is the reason of a provider that has a replacement.
func Replaced() *Reason { return errReplaced }

// Overridden is the reason of a provider that an override of the owner hides.
func Overridden(owner string) *Reason {
	return &Reason{reason.Overridden, fault.ErrUnavailable, fmt.Sprintf("overridden by %q", oneline.Cut(owner, 64)), nil}
}

// Denied is the reason of an authoriser. It reads the text of its error, which is a user's: not to be called under a
// lock.
func Denied(err error) *Reason {
	words := fault.ErrDenied.Error() + ": " + oneline.Cut(fault.Text(err), 300)
	return &Reason{reason.Denied, fault.ErrDenied, words, err}
}

// Lacking is the reason of a provider without a required capability.
func Lacking(capability string) *Reason {
	words := fmt.Sprintf("%v: %q", fault.ErrNoCapability, oneline.Cut(capability, 64))
	return &Reason{reason.CapabilityMissing, fault.ErrNoCapability, words, nil}
}

// NotNamed is the reason of a provider that is none of those that the query names.
func NotNamed() *Reason { return Unmet(reason.Excluded, "not among those that the query names") }

// Unmet is the reason of a provider that does not meet the requirements of the query, in the code and words of
// [selection.Requirements].
func Unmet(code reason.Code, words string) *Reason {
	return &Reason{code, selection.ErrUnmet, words, nil}
}

// CapabilityOut is the reason of a provider whose probe of a required capability fails.
func CapabilityOut(capability, why string, cause error) *Reason {
	words := fmt.Sprintf("capability %q is %v: %s", oneline.Cut(capability, 64), fault.ErrUnhealthy, why)
	return &Reason{reason.CapabilityOut, fault.ErrUnhealthy, words, cause}
}

// Standing holds the answer to whether a provider is eligible for a query, and if not, all reasons as one.
type Standing struct {
	Eligible bool
	Code     reason.Code
	Words    string        // of all reasons; "" when it is eligible without a trial
	RetryIn  time.Duration // until all reasons have ended by themselves; zero: one does not, or not at a known time
	Err      error         // matches the sentinel of each reason
}

// Refuse makes the reason the only one. It ends by itself after retryIn.
func (s *Standing) Refuse(r *Reason, retryIn time.Duration) {
	*s = Standing{Code: r.code, Words: r.words, RetryIn: retryIn, Err: r}
}

// RefuseTooSlow adds that the latency exceeds the bound of the query, to reasons that are there already.
func (s *Standing) RefuseTooSlow(latency, bound, retryIn time.Duration) {
	words := fmt.Sprintf("latency %v, more than %v", latency.Round(time.Microsecond), bound)
	why := &Reason{reason.TooSlow, selection.ErrUnmet, words, nil}
	if s.Eligible {
		s.Refuse(why, retryIn)
		return
	}
	s.Words, s.Err = s.Words+", "+words, fault.Join("", []error{s.Err, why})
	if s.RetryIn > 0 { // both reasons have to end
		s.RetryIn = max(s.RetryIn, retryIn)
	}
}

// Soonest returns the time until a retry is worthwhile; zero when that is now, or never by itself.
func Soonest[C any](candidates []C, read func(*C) (eligible bool, retryIn time.Duration)) (earliest time.Duration) {
	for i := range candidates {
		eligible, retryIn := read(&candidates[i])
		if eligible {
			return 0
		}
		if retryIn > 0 && (earliest == 0 || retryIn < earliest) {
			earliest = retryIn
		}
	}
	return earliest
}

// Cause returns what the error of a look-up or call wraps of a candidate's: a parked one matches
// [fault.ErrCredentials] only where allParked says that it is so with every candidate.
func Cause(code reason.Code, err error, allParked bool) error {
	if err == nil || code != reason.Parked || allParked {
		return err
	}
	return fault.Without(err, fault.ErrCredentials)
}

// MostNamed bounds how many names a text has, and longestName each of them, in bytes.
const (
	MostNamed   = 16
	longestName = 64
)

// Because returns text with the names of the providers that are the reason, if there are any.
func Because(text string, names []string) string {
	if len(names) == 0 {
		return text
	}
	shown := slices.Clone(names[:min(len(names), MostNamed)])
	for i, name := range shown {
		shown[i] = oneline.Cut(name, longestName)
	}
	if more := len(names) - len(shown); more > 0 {
		shown = append(shown, fmt.Sprintf("and %d more", more))
	}
	return strings.TrimPrefix(text+"; because "+strings.Join(shown, ", "), "; ")
}

// NamesOf lists names for the text of an error, in order.
func NamesOf(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = strconv.Quote(oneline.Cut(name, longestName))
	}
	slices.Sort(quoted)
	return strings.Join(oneline.First(quoted, MostNamed, ""), ", ")
}
