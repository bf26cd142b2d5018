package refusal_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/selection"
)

func TestReason_HasWordsAndMatchesItsSentinelAndCause(t *testing.T) {
	cause := errors.New("no such tenant\nhere")
	long := strings.Repeat("x", 100)
	for _, test := range []struct {
		reason   *refusal.Reason
		code     reason.Code
		words    string
		sentinel error
	}{
		{refusal.Full(), "at_capacity", "at capacity", fault.ErrAtCapacity},
		{refusal.OnlyTrials(), "breaker_open", "breaker half-open: only calls are trials", fault.ErrBreakerOpen},
		{refusal.Throttled(), "throttled", "rate of the caller used up", fault.ErrAtCapacity},
		{refusal.BudgetSpent(), "retry_budget_spent", "budget for further attempts spent", fault.ErrAtCapacity},
		{refusal.MocksOnly(), "mocks_only", "not a mock, and only mocks are picked", fault.ErrUnavailable},
		{refusal.Replaced(), "overridden", "overridden by a replacement", fault.ErrUnavailable},
		{refusal.Overridden("TestA"), "overridden", `overridden by "TestA"`, fault.ErrUnavailable},
		{refusal.Overridden(long), "overridden", `overridden by "` + long[:64] + `…"`, fault.ErrUnavailable},
		{refusal.Denied(cause), "denied", "denied: no such tenant here", fault.ErrDenied},
		{refusal.Denied(cause), "denied", "denied: no such tenant here", cause},
		{refusal.Lacking("vision"), "capability_missing", `capability missing: "vision"`, fault.ErrNoCapability},
		{refusal.Unmet("too_old", "version 1"), "too_old", "version 1", selection.ErrUnmet},
		{refusal.CapabilityOut("db", "no route", cause), "capability_out", `capability "db" is unhealthy: no route`, fault.ErrUnhealthy},
		{refusal.CapabilityOut("db", "no route", cause), "capability_out", `capability "db" is unhealthy: no route`, cause},
		{refusal.Denied(errors.New(strings.Repeat("x", 400))), "denied", "denied: " + strings.Repeat("x", 300) + "…", fault.ErrDenied},
		{refusal.Lacking(long), "capability_missing", `capability missing: "` + long[:64] + `…"`, fault.ErrNoCapability},
		{
			refusal.CapabilityOut(long, "no route", nil), "capability_out",
			`capability "` + long[:64] + `…" is unhealthy: no route`, fault.ErrUnhealthy,
		},
	} {
		var standing refusal.Standing
		standing.Refuse(test.reason, time.Second)
		require.Equal(t, refusal.Standing{Code: test.code, Words: test.words, RetryIn: time.Second, Err: test.reason}, standing)
		require.EqualError(t, standing.Err, test.words)
		require.ErrorIs(t, standing.Err, test.sentinel)
		require.NotErrorIs(t, standing.Err, fault.ErrCoolingDown)
		require.NotContains(t, test.reason.Unwrap(), error(nil))
	}
}

func TestStanding_RefuseReplacesAllReasonsBefore(t *testing.T) {
	standing := refusal.Standing{Eligible: true, Code: "trial", Words: "a trial", RetryIn: time.Hour}
	standing.Refuse(refusal.Full(), 0)
	require.Equal(t, refusal.Standing{Code: "at_capacity", Words: "at capacity", Err: refusal.Full()}, standing)
}

func TestStanding_RefuseTooSlowIsTheOnlyReasonOfAnEligibleProvider(t *testing.T) {
	standing := refusal.Standing{Eligible: true, Code: reason.Eligible}
	standing.RefuseTooSlow(1500*time.Millisecond+20*time.Nanosecond, time.Second, time.Minute)
	require.Equal(t, reason.TooSlow, standing.Code)
	require.Equal(t, "latency 1.5s, more than 1s", standing.Words)
	require.Equal(t, time.Minute, standing.RetryIn)
	require.False(t, standing.Eligible)
	require.ErrorIs(t, standing.Err, selection.ErrUnmet)
}

func TestStanding_RefuseTooSlowIsAddedToTheReasonsBefore(t *testing.T) {
	for _, test := range []struct{ before, after time.Duration }{
		{0, 0}, // a reason that does not end by itself
		{1, time.Minute},
		{time.Hour, time.Hour},
	} {
		var standing refusal.Standing
		standing.Refuse(refusal.Full(), test.before)
		standing.RefuseTooSlow(2*time.Second, time.Second, time.Minute)
		require.Equal(t, reason.AtCapacity, standing.Code, "the first reason gives the code")
		require.Equal(t, "at capacity, latency 2s, more than 1s", standing.Words)
		require.Equal(t, test.after, standing.RetryIn)
		require.ErrorIs(t, standing.Err, fault.ErrAtCapacity)
		require.ErrorIs(t, standing.Err, selection.ErrUnmet)
	}
}

func TestSoonest_IsTheEarliestKnownEndUnlessOneIsEligible(t *testing.T) {
	type candidate struct {
		eligible bool
		retryIn  time.Duration
	}
	read := func(c *candidate) (bool, time.Duration) { return c.eligible, c.retryIn }
	soonest := func(all ...candidate) time.Duration { return refusal.Soonest(all, read) }
	require.Zero(t, soonest())
	require.Zero(t, soonest(candidate{}), "its end is unknown")
	require.Equal(t, time.Duration(1), soonest(candidate{}, candidate{retryIn: 1}, candidate{retryIn: 2}))
	require.Equal(t, 2*time.Second, soonest(candidate{}, candidate{retryIn: 3 * time.Second}, candidate{retryIn: 2 * time.Second}))
	require.Zero(t, soonest(candidate{retryIn: time.Second}, candidate{eligible: true}), "a retry is worthwhile now")
}

func TestCause_MatchesCredentialsOnlyWhereAllCandidatesAreParked(t *testing.T) {
	err := errors.Join(fault.ErrCredentials, fault.ErrCoolingDown)
	require.NoError(t, refusal.Cause(reason.Eligible, nil, false))
	require.Equal(t, err, refusal.Cause(reason.Parked, err, true))
	require.Equal(t, err, refusal.Cause(reason.CoolingDown, err, false))
	hidden := refusal.Cause(reason.Parked, err, false)
	require.NotErrorIs(t, hidden, fault.ErrCredentials)
	require.ErrorIs(t, hidden, fault.ErrCoolingDown)
}

func TestBecause_NamesSixteenAndCountsTheRest(t *testing.T) {
	t.Parallel()
	require.Equal(t, "down", refusal.Because("down", nil))
	require.Equal(t, "down; because a, b", refusal.Because("down", []string{"a", "b"}))
	require.Equal(t, "because a", refusal.Because("", []string{"a"}))
	long := strings.Repeat("x", 100)
	names := slices.Repeat([]string{long}, 18)
	all := slices.Repeat([]string{long[:64] + "…"}, 16)
	require.Equal(t, "down; because "+strings.Join(all, ", "), refusal.Because("down", names[:16]))
	require.Equal(t, "down; because "+strings.Join(all, ", ")+", and 2 more", refusal.Because("down", names))
	require.Equal(t, long, names[0], "the names are as they were")
}

func TestNamesOf_ListsThemInOrder(t *testing.T) {
	t.Parallel()
	require.Equal(t, "none", refusal.NamesOf(nil))
	require.Equal(t, `"a", "b\n"`, refusal.NamesOf([]string{"b\n", "a"}))
	long := strings.Repeat("x", 100)
	require.Equal(t, `"`+long[:64]+`…"`, refusal.NamesOf([]string{long}))
	text := refusal.NamesOf(slices.Repeat([]string{"a"}, 18))
	require.Equal(t, 16, strings.Count(text, `"a"`))
	require.True(t, strings.HasSuffix(text, ", 2 more"), text)
}

func TestThrottledFor_IsNoReasonAtZero(t *testing.T) {
	t.Parallel()
	why, retryIn := refusal.ThrottledFor(0)
	require.Nil(t, why)
	require.Zero(t, retryIn)
	why, retryIn = refusal.ThrottledFor(1)
	require.Equal(t, refusal.Throttled(), why)
	require.EqualValues(t, 1, retryIn)
}
