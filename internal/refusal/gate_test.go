package refusal_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/breaker"
	"github.com/capreg/registry/internal/cooldown"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/verdict"
)

var (
	now      = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	errSick  = errors.New("sick")
	errProof = errors.New("not proven")
	errMade  = errors.New("not made")
	errLimit = errors.New("429")
)

// known are the facts of a provider in a test; asked names those that were asked for.
type known struct {
	because  []string
	next     time.Duration
	opening  refusal.Opening
	cooldown cooldown.Cooldown
	asked    []string
}

func (k *known) HiddenBy() *refusal.Reason { return refusal.Overridden("TestA") }

func (k *known) Health() (string, []string, error) {
	k.asked = append(k.asked, "health")
	return "probe failed", k.because, errSick
}

func (k *known) Proof() (string, time.Duration, error) {
	return "starting: warming up", k.next, errProof
}

func (k *known) Opening() *refusal.Opening {
	k.asked = append(k.asked, "opening")
	return &k.opening
}

func (k *known) Cooldown() *cooldown.Cooldown { return &k.cooldown }
func (k *known) Factory() (string, time.Time, error) {
	return "boom", now.Add(4 * time.Second), errMade
}

// cooling returns facts with a cooldown of the class, as a provider asks for it.
func cooling(class verdict.Class, after time.Duration) *known {
	var k known
	k.cooldown.Apply(cooldown.Request{Class: class, Kind: class.Rule().Cooldown, After: after, Cause: errLimit}, now)
	return &k
}

func TestOf_AnOpenGateIsEligible(t *testing.T) {
	require.Equal(t, refusal.Standing{Eligible: true, Code: "eligible"}, refusal.Of(0, &known{}, now))
	require.Equal(t, refusal.Standing{Eligible: true, Code: "trial", Words: "breaker half-open: the call would be a trial"},
		refusal.Of(refusal.HalfOpen, &known{}, now))
}

func TestOf_EachReasonHasItsCodeWordsErrorsAndEnd(t *testing.T) {
	limited := cooling(verdict.ClassRateLimited, time.Minute)
	opened := &known{opening: refusal.NewOpening("5 failures in a row", now.Add(time.Minute))}
	for name, test := range map[string]struct {
		gate    refusal.Gate
		facts   *known
		code    reason.Code
		words   string
		retryIn time.Duration
		matches []error
	}{
		"gone":      {refusal.Gone, &known{}, "closed", "shutting down", 0, []error{fault.ErrClosed}},
		"hidden":    {refusal.Hidden, &known{}, "overridden", `overridden by "TestA"`, 0, []error{fault.ErrUnavailable}},
		"no weight": {refusal.NoTraffic, &known{}, "no_traffic", "no traffic: its weight is 0", 0, []error{fault.ErrUnavailable}},
		"unhealthy": {refusal.Unhealthy, &known{}, "unhealthy", "unhealthy: probe failed", 0, []error{fault.ErrUnhealthy, errSick}},
		"unhealthy because of others": {
			refusal.Unhealthy, &known{because: []string{"db", "cache"}}, "unhealthy",
			"unhealthy: probe failed; because db, cache", 0,
			[]error{fault.ErrUnhealthy, errSick},
		},
		"unproven": {
			refusal.Unproven, &known{next: time.Second}, "starting", "not ready: starting: warming up", time.Second,
			[]error{fault.ErrNotReady, errProof},
		},
		"open": {
			refusal.Open, opened, "breaker_open", "breaker open (5 failures in a row)", time.Minute, []error{fault.ErrBreakerOpen},
		},
		"trials": {
			refusal.HalfOpen | refusal.TrialsFull, &known{}, "trial_slots_full", "breaker half-open, all trial slots taken", 0,
			[]error{fault.ErrBreakerOpen},
		},
		"cooling": {
			refusal.Cooling, limited, "cooling_down", "cooling down (rate limited)",
			limited.cooldown.Until().Sub(now),
			[]error{fault.ErrCoolingDown, errLimit},
		},
		"factory": {refusal.NotReady, &known{}, "not_ready", "not ready: boom", 4 * time.Second, []error{fault.ErrNotReady, errMade}},
	} {
		t.Run(name, func(t *testing.T) {
			standing := refusal.Of(test.gate, test.facts, now)
			require.False(t, standing.Eligible)
			require.Equal(t, test.code, standing.Code)
			require.Equal(t, test.words, standing.Words)
			require.Equal(t, test.retryIn, standing.RetryIn)
			require.EqualError(t, standing.Err, test.words)
			for _, match := range test.matches {
				require.ErrorIs(t, standing.Err, match)
			}
		})
	}
}

func TestOf_AParkedProviderRefusesCredentialsAndCoolsDown(t *testing.T) {
	k := cooling(verdict.ClassFatal, 0)
	require.Equal(t, cooldown.Parked, k.cooldown.State())
	standing := refusal.Of(refusal.Cooling, k, now)
	require.Equal(t, reason.Parked, standing.Code)
	require.Positive(t, standing.RetryIn)
	require.ErrorIs(t, standing.Err, fault.ErrCredentials)
	require.ErrorIs(t, standing.Err, fault.ErrCoolingDown)
}

func TestOf_SeveralReasonsAreOneRefusal(t *testing.T) {
	k := &known{opening: refusal.NewOpening("slow", now.Add(time.Minute)), next: time.Second}
	standing := refusal.Of(refusal.NotReady|refusal.Open|refusal.Unproven, k, now)
	require.Equal(t, reason.Starting, standing.Code, "the first in order gives the code")
	require.Equal(t, "not ready: starting: warming up, breaker open (slow), not ready: boom", standing.Words)
	require.Equal(t, time.Minute, standing.RetryIn, "all of them have to end")
	require.ErrorIs(t, standing.Err, fault.ErrBreakerOpen)
	require.ErrorIs(t, standing.Err, errProof)
	require.ErrorIs(t, standing.Err, errMade)

	standing = refusal.Of(refusal.Open|refusal.Unhealthy, k, now)
	require.Zero(t, standing.RetryIn, "bad health does not end at a known time")
}

func TestOf_AsksOnlyForTheReasonsInTheGate(t *testing.T) {
	k := &known{opening: refusal.NewOpening("slow", now)}
	refusal.Of(refusal.Open, k, now)
	require.Equal(t, []string{"opening"}, k.asked)
}

func TestOf_AnOpenBreakerIsRefusedWithoutAnAllocation(t *testing.T) {
	k := &known{opening: refusal.NewOpening("slow", now), asked: make([]string, 0, 1000)}
	require.Zero(t, testing.AllocsPerRun(100, func() { refusal.Of(refusal.Open, k, now) }))
}

func TestOf_AReasonWhoseTimeIsOverHasNoNegativeEnd(t *testing.T) {
	k := &known{opening: refusal.NewOpening("slow", now.Add(-time.Second))}
	require.Zero(t, refusal.Of(refusal.Open, k, now).RetryIn)
	require.Equal(t, 4*time.Second, refusal.Of(refusal.NotReady, k, now).RetryIn)
	require.Zero(t, refusal.Of(refusal.NotReady, k, now.Add(time.Hour)).RetryIn)
	require.Zero(t, refusal.Of(refusal.Open|refusal.NotReady, k, now).RetryIn, "not at a known time")
	limited := cooling(verdict.ClassRateLimited, time.Minute)
	limited.next = time.Second
	require.Positive(t, refusal.Of(refusal.Cooling|refusal.Unproven, limited, now).RetryIn)
	require.Zero(t, refusal.Of(refusal.Cooling|refusal.Unproven, limited, now.Add(time.Hour)).RetryIn)
}

func TestNewOpening_NamesAReasonOfAnyLength(t *testing.T) {
	words := func(reason string) string {
		return refusal.Of(refusal.Open, &known{opening: refusal.NewOpening(reason, time.Time{})}, now).Words
	}
	require.Equal(t, "breaker open", words(""), "before the breaker itself is open")
	require.Equal(t, "breaker open (forced)", words("forced"))
	require.Equal(t, "breaker open ("+strings.Repeat("x", 64)+"…)", words(strings.Repeat("x", 100)))
}

func TestGate_BreakerIsTheStateThatCallsSee(t *testing.T) {
	require.Equal(t, breaker.Closed, (refusal.Unhealthy | refusal.Cooling).Breaker())
	require.Equal(t, breaker.Open, refusal.Open.Breaker())
	require.Equal(t, breaker.HalfOpen, (refusal.HalfOpen | refusal.TrialsFull).Breaker())
}

func TestGate_SetsOfReasons(t *testing.T) {
	require.Zero(t, refusal.Blocked&refusal.HalfOpen, "calls may be trials")
	require.Equal(t, refusal.Helpless, refusal.Helpless&refusal.Blocked)
	require.Zero(t, refusal.Helpless&(refusal.Open|refusal.Cooling|refusal.Unhealthy|refusal.Unproven), "a last resort may be tried")
}

func TestCodeOf_IsTheCodeOfTheWords(t *testing.T) {
	for _, class := range []verdict.Class{verdict.ClassRateLimited, verdict.ClassFatal} {
		k := cooling(class, time.Minute)
		k.opening = refusal.NewOpening("slow", now)
		for gate := range refusal.Proving << 1 {
			if gate&refusal.Proving != 0 && gate != refusal.Proving {
				continue
			}
			require.Equal(t, refusal.Of(gate, k, now).Code, refusal.CodeOf(gate, k), "%b", gate)
		}
	}
}

func TestDoors_AskEachProviderOnce(t *testing.T) {
	var asked []string
	doors := refusal.NewDoors(func(p string) (*refusal.Reason, time.Duration) {
		asked = append(asked, p)
		return refusal.ThrottledFor(time.Duration(len(p)) * time.Second)
	})
	for range 2 {
		require.True(t, doors.Open(""))
		require.False(t, doors.Open("ab"))
		why, retryIn := doors.Refusal("ab")
		require.Equal(t, refusal.Throttled(), why)
		require.Equal(t, 2*time.Second, retryIn)
	}
	require.Equal(t, []string{"", "ab"}, asked)
}

func TestOfHealth_OnlyBadAndUnknownStatesKeepCallsAway(t *testing.T) {
	t.Parallel()
	for state, want := range map[health.State]refusal.Gate{
		health.Healthy: 0, health.Degraded: 0, health.Draining: 0,
		health.Unhealthy: refusal.Unhealthy, health.Unknown: refusal.Unproven, health.Starting: refusal.Unproven,
	} {
		require.Equal(t, want, refusal.OfHealth(state), state)
	}
}
