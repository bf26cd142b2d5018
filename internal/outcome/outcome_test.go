package outcome_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/breaker"
	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/internal/outcome"
	"github.com/capreg/registry/internal/pace"
	"github.com/capreg/registry/internal/record"
	"github.com/capreg/registry/internal/striped"
	"github.com/capreg/registry/verdict"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const second = time.Second

func of(class verdict.Class) outcome.Outcome {
	return outcome.Of(verdict.Verdict{Class: class}, second, false, nil)
}

func TestOf_FollowsTheTableOfVerdicts(t *testing.T) {
	t.Parallel()
	cause := errors.New("too many")
	require.Equal(t, outcome.Outcome{
		Class: verdict.ClassRateLimited, Result: breaker.Neutral, Tally: verdict.TallyLimited,
		Cooldown: verdict.CooldownAsked, Latency: second, After: time.Minute, Scope: verdict.ScopeDomain, Cause: cause,
	}, outcome.Of(verdict.Verdict{Class: verdict.ClassRateLimited, After: time.Minute, Scope: verdict.ScopeDomain}, second, false, cause))

	require.Equal(t, verdict.ClassSuccess, func() verdict.Class { o := of(verdict.ClassSuccess); return o.Class }())
	late := outcome.Of(verdict.Verdict{Class: verdict.ClassServerError}, second, true, nil)
	require.Equal(t, verdict.ClassServerError, late.Class, "it is no answer")
	slow := outcome.Of(verdict.Verdict{Class: verdict.ClassSuccess}, second, true, nil)
	require.Equal(t, verdict.ClassSlow, slow.Class)
	require.True(t, slow.Slow)
	require.Equal(t, breaker.Success, slow.Result)
	failed := of(verdict.ClassServerError)
	require.Equal(t, breaker.Failure, failed.Result)
	require.Equal(t, verdict.TallyFailure, failed.Tally)
	require.Equal(t, verdict.ClassRateLimited.Rule().Scope, func() verdict.Scope { o := of(verdict.ClassRateLimited); return o.Scope }())
}

func TestOutcome_UnansweredBlamesByWhatIsKnown(t *testing.T) {
	t.Parallel()
	fast := pace.Known{Longest: second}
	for name, row := range map[string]struct {
		class  verdict.Class
		wait   outcome.Wait
		result breaker.Outcome
		waited time.Duration
	}{
		"timeout of its own":            {verdict.ClassAttemptTimeout, outcome.Wait{Took: 1}, breaker.Failure, 1},
		"deadline, short":               {verdict.ClassCallerDeadline, outcome.Wait{Took: second, Known: fast, Cut: true}, breaker.Neutral, 0},
		"deadline, given timeout spent": {verdict.ClassCallerDeadline, outcome.Wait{Took: 1, Spent: true}, breaker.Failure, 1},
		"deadline, far beyond":          {verdict.ClassCallerDeadline, outcome.Wait{Took: 4 * second, Known: fast}, breaker.Failure, 4 * second},
		"deadline, alone":               {verdict.ClassCallerDeadline, outcome.Wait{Took: 2 * second, Known: fast}, breaker.Neutral, 2 * second},
		"deadline, another one":         {verdict.ClassCallerDeadline, outcome.Wait{Took: 2 * second, Known: fast, Cut: true}, breaker.Unanswered, 2 * second},
		"cut, short":                    {verdict.ClassCut, outcome.Wait{Took: second, Known: fast, Cut: true}, breaker.Neutral, 0},
		"cut, long":                     {verdict.ClassCut, outcome.Wait{Took: 4 * second, Known: fast, Spent: true}, breaker.Unanswered, 4 * second},
		"cut, shorter than its peers":   {verdict.ClassCut, outcome.Wait{Took: second, Peers: fast}, breaker.Neutral, 0},
	} {
		o := of(row.class)
		require.True(t, o.Interrupted(), name)
		o.Unanswered(row.wait)
		require.Equal(t, row.result, o.Result, name)
		require.Equal(t, row.waited, o.Waited, name)
		require.Equal(t, row.result == breaker.Failure, o.Tally == verdict.TallyFailure, name)
	}
}

func TestOutcome_ClassesDecideWhatIsNoted(t *testing.T) {
	t.Parallel()
	for class, row := range map[verdict.Class]struct {
		performance                 choice.Outcome
		interrupted, tells, success bool
		cools                       bool
	}{
		verdict.ClassSuccess:        {performance: choice.Answered, tells: true, success: true},
		verdict.ClassSlow:           {performance: choice.Answered, tells: true, success: true},
		verdict.ClassServerError:    {performance: choice.Failed, tells: true},
		verdict.ClassCallerDeadline: {performance: choice.Unanswered, interrupted: true, tells: true},
		verdict.ClassCut:            {performance: choice.Refused, interrupted: true, tells: true},
		verdict.ClassCancelled:      {performance: choice.Unanswered},
		verdict.ClassHedgeLoser:     {performance: choice.Neutral},
		verdict.ClassIgnored:        {performance: choice.Neutral},
		verdict.ClassRateLimited:    {performance: choice.Refused, tells: true, cools: true},
	} {
		o := of(class)
		require.Equal(t, row.performance, o.Performance(), class)
		require.Equal(t, row.interrupted, o.Interrupted(), class)
		require.Equal(t, row.tells, o.TellsOfProvider(), class)
		require.Equal(t, row.success, outcome.IsSuccess(class), class)
		require.Equal(t, row.cools, o.Cools(), class)
	}
	asked := outcome.Of(verdict.Verdict{Class: verdict.ClassServerError, After: second}, second, false, nil)
	require.True(t, asked.Cools())
}

func TestAllowed_OutcomesBoundWhatFollows(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		classes                []verdict.Class
		onceOnly, tryRefused   bool
		final, isOnce, larger  bool
		notLarger, knownLarger bool // of a window of 10
	}{
		"nothing yet":                 {},
		"failure":                     {classes: []verdict.Class{verdict.ClassServerError}},
		"bad request":                 {classes: []verdict.Class{verdict.ClassBadRequest}, final: true},
		"it stays final":              {classes: []verdict.Class{verdict.ClassBadRequest, verdict.ClassServerError}, final: true},
		"once only":                   {classes: []verdict.Class{verdict.ClassServerError}, onceOnly: true, final: true, isOnce: true},
		"once only, not processed":    {classes: []verdict.Class{verdict.ClassNotSent}, onceOnly: true},
		"once only, final":            {classes: []verdict.Class{verdict.ClassBadRequest}, onceOnly: true, final: true},
		"refused":                     {classes: []verdict.Class{verdict.ClassRefused}, final: true},
		"refused, and others may try": {classes: []verdict.Class{verdict.ClassRefused}, tryRefused: true},
		"too long":                    {classes: []verdict.Class{verdict.ClassTooLong}, larger: true, notLarger: true, knownLarger: true},
		"too long, then a failure": {
			classes: []verdict.Class{verdict.ClassTooLong, verdict.ClassServerError}, larger: true, notLarger: true, knownLarger: true,
		},
	} {
		var n outcome.Allowed
		for _, class := range row.classes {
			n.Follow(class, row.onceOnly, row.tryRefused, 10)
		}
		require.Equal(t, row.final, n.Final(), name)
		require.Equal(t, row.isOnce, n.OnceOnly(), name)
		require.Equal(t, row.larger, n.NeedsLarger(), name)
		require.Equal(t, row.notLarger, n.NotLarger(10), name)
		require.Equal(t, row.knownLarger, n.TooSmall(10), name)
		require.False(t, n.TooSmall(0), name)
		require.Equal(t, row.larger, n.NotLarger(0), name)
		require.False(t, n.NotLarger(11), name)
	}
}

func TestOutcome_EndAfterTheAnswerHasBegun(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		class   verdict.Class
		spent   bool
		excused bool
	}{
		{verdict.ClassAttemptTimeout, true, true},
		{verdict.ClassAttemptTimeout, false, false}, // of the provider's own client
		{verdict.ClassForgotten, false, true},
		{verdict.ClassCallerDeadline, false, true},
		{verdict.ClassCancelled, false, true},
		{verdict.ClassCut, true, true},
		{verdict.ClassStalled, true, false},
		{verdict.ClassTransport, true, false},
		{verdict.ClassServerError, true, false},
		{verdict.ClassPanic, true, false},
	} {
		o := of(c.class)
		o.Begun(c.spent)
		require.Equal(t, c.excused, o.Result == breaker.Neutral, c.class)
		require.Equal(t, c.excused, o.Tally == verdict.TallyIgnored, c.class)
		require.Equal(t, c.excused, !o.TellsOfProvider(), c.class)
		require.Equal(t, c.excused, o.Performance() == choice.Neutral, c.class)
		require.Equal(t, c.class, o.Class)
	}
	done := of(verdict.ClassSuccess)
	done.Begun(true)
	require.Equal(t, of(verdict.ClassSuccess), done)
}

func TestOutcome_IsCountedOnceByItsTally(t *testing.T) {
	t.Parallel()
	var cells striped.Cells[record.Outcomes]
	counts := cells.Local()
	for _, class := range []verdict.Class{verdict.ClassSuccess, verdict.ClassServerError, verdict.ClassRateLimited, verdict.ClassCancelled} {
		counts.Attempts.Add(1)
		o := of(class)
		o.CountIn(counts)
	}
	require.Equal(t, record.Totals{
		Attempts: 4, Successes: 1, Failures: 1, Limited: 1, Ignored: 1, MeanLatency: second,
	}, record.Sum(&cells))
}

func TestOutcome_LastErrorTellsOfTheProviderAlone(t *testing.T) {
	t.Parallel()
	now := time.Now()
	left := of(verdict.ClassCancelled)
	require.Nil(t, left.LastError(now))
	silent := of(verdict.ClassAttemptTimeout)
	require.Equal(t, &verdict.LastError{Class: verdict.ClassAttemptTimeout, Time: now}, silent.LastError(now))
	long := outcome.Of(verdict.Verdict{Class: verdict.ClassServerError}, second, false, errors.New("a\nb"+strings.Repeat("x", 400)))
	text := long.LastError(now).Text
	require.LessOrEqual(t, len(text), 300)
	require.Contains(t, text, "a bxxx")
}

func TestOfCall_IsWhatEndedItOrTheClassOfItsLastAttempt(t *testing.T) {
	t.Parallel()
	require.Equal(t, verdict.ClassTransport, outcome.OfCall(nil, verdict.ClassTransport))
	require.Equal(t, verdict.ClassCancelled, outcome.OfCall(context.Canceled, verdict.ClassTransport))
	require.Equal(t, verdict.ClassCallerDeadline, outcome.OfCall(context.DeadlineExceeded, verdict.ClassTransport))
}
