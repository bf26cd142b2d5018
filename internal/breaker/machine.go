package breaker

import (
	"errors"
	"time"

	"github.com/sony/gobreaker/v2"
)

// machine is one gobreaker. It serves for one closed period, in which it counts failures in
// a row, or for one recovery: an open period, which it measures, and the half-open period
// that follows, in which it counts successes. It ends where it changes to closed or open:
// the next period gets a machine of its own, since gobreaker's settings cannot change.
//
// gobreaker learns each outcome when it is known, as a request that takes no time. So it
// never waits for a trial that hangs, and never refuses one. It is not safe for concurrent
// use: Breaker.mu guards it.
type machine struct {
	inner   *gobreaker.CircuitBreaker[struct{}]
	carried int // failures in a row that were counted before this machine was made
}

// newClosedMachine returns a machine that opens when the failures in a row, together with
// those carried over from an earlier one, reach the threshold (zero: never) and mayOpen
// agrees.
func newClosedMachine(threshold, carried int, mayOpen func() bool) *machine {
	m := &machine{carried: carried}
	m.inner = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		ReadyToTrip: func(counts gobreaker.Counts) bool {
			return threshold > 0 && m.carried+int(counts.ConsecutiveFailures) >= threshold && mayOpen()
		},
	})
	return m
}

// newOpenMachine returns a machine that is open for the given time and then half-open,
// until a number of trials have succeeded or one has failed.
func newOpenMachine(openFor time.Duration, successes int) *machine {
	m := &machine{inner: gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Timeout:     openFor,
		MaxRequests: uint32(successes), //nolint:gosec // at most MaxInt32 by the policy
		ReadyToTrip: func(gobreaker.Counts) bool { return true },
	})}
	m.Failure()
	return m
}

// Success tells of a success, and returns the state after it.
func (m *machine) Success() State {
	m.carried = 0
	return m.tell(nil)
}

// Failure tells of a failure, and returns the state after it.
func (m *machine) Failure() State { return m.tell(errFailure) }

var errFailure = errors.New("failure")

func (m *machine) tell(outcome error) State {
	_, _ = m.inner.Execute(func() (struct{}, error) { return struct{}{}, outcome })
	return m.State()
}

// State returns the present state. An open machine becomes half-open when its time is over.
func (m *machine) State() State {
	switch m.inner.State() {
	case gobreaker.StateOpen:
		return Open
	case gobreaker.StateHalfOpen:
		return HalfOpen
	default:
		return Closed
	}
}

// Failures returns the failures in a row of a closed machine.
func (m *machine) Failures() int { return m.carried + int(m.inner.Counts().ConsecutiveFailures) }

// Successes returns the trials that have succeeded in a half-open machine.
func (m *machine) Successes() int { return int(m.inner.Counts().ConsecutiveSuccesses) }
