package sight_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/sight"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/verdict"
)

var (
	errBad  = errors.New("bad request")
	errDown = errors.New("down")
)

// failed returns a failure with these attempts, a second each.
func failed(attempts ...sight.Ended) *sight.Failure {
	for i := range attempts {
		attempts[i].Took = time.Second
	}
	return &sight.Failure{Attempts: slices.Values(attempts)}
}

// sightOf returns a sight of these records.
func sightOf(records ...*sight.Record) *sight.Sight {
	o := &sight.Sight{At: now, View: sight.NewBoard(len(records), func(i int) *sight.Record { return records[i] }).View(0, nil)}
	o.Note(&places{}, nil, nil)
	return o
}

func TestFailure_VerdictIsOfTheContextThenOfTheLastAnswerAboutTheRequest(t *testing.T) {
	t.Parallel()
	unknown := sight.Ended{Provider: "a", Class: verdict.ClassUnknown, Err: errDown}
	refused := sight.Ended{Provider: "b", Class: verdict.ClassBadRequest, Err: errBad}
	limited := sight.Ended{Provider: "c", Class: verdict.ClassRateLimited, Err: verdict.RateLimited(errDown, time.Minute)}
	for name, row := range map[string]struct {
		attempts []sight.Ended
		context  []error
		want     verdict.Verdict
	}{
		"deadline":            {context: []error{context.DeadlineExceeded}, want: verdict.Verdict{Class: verdict.ClassCallerDeadline}},
		"cancelled":           {context: []error{context.Canceled}, want: verdict.Verdict{Class: verdict.ClassCancelled}},
		"none":                {want: verdict.Verdict{}},
		"last":                {attempts: []sight.Ended{unknown, limited}, want: verdict.Verdict{Class: verdict.ClassRateLimited, After: time.Minute}},
		"answer before":       {attempts: []sight.Ended{refused, unknown}, want: verdict.Verdict{Class: verdict.ClassBadRequest}},
		"without its verdict": {attempts: []sight.Ended{{Class: verdict.ClassOverloaded, Err: errDown}}, want: verdict.Verdict{Class: verdict.ClassOverloaded}},
	} {
		f := failed(row.attempts...)
		f.Context = row.context
		got := f.Verdict()
		require.Equal(t, row.want.Class, got.Class, name)
		require.Equal(t, row.want.After, got.After, name)
	}
}

func TestFailure_CausesBeginWithTheDecisiveOne(t *testing.T) {
	t.Parallel()
	errEnded, errWhy := errors.New("ended"), errors.New("why")
	f := failed(sight.Ended{Provider: "a", Class: verdict.ClassUnknown, Err: errDown},
		sight.Ended{Provider: "b", Class: verdict.ClassBadRequest, Err: errBad}, sight.Ended{Provider: "c"})
	f.Context, f.Causes = []error{errEnded}, []error{errWhy}
	require.Equal(t, []error{errEnded, errBad, errWhy, errDown}, f.All())
	f = failed(sight.Ended{Provider: "0", Class: verdict.ClassUnknown, Err: errDown})
	f.Left = sightOf(down(0, now), sick(1, "ill"))
	all := f.All()
	require.Len(t, all, 2, "what was tried is not skipped")
	require.ErrorIs(t, all[1], errSick)
	for seen := range f.Skipped() {
		require.Equal(t, "1", seen.Provider)
	}
}

func TestFailure_TextNamesAttemptsAndWhatWasSkipped(t *testing.T) {
	t.Parallel()
	f := failed(sight.Ended{Provider: "a", Class: verdict.ClassUnknown, Err: errors.New("two\nlines")})
	f.Left, f.OnceOnly = sightOf(sick(1, "ill")), true
	require.Equal(t, `registry: call of service "llm" failed: a: unknown after 1s: two lines; 1: ill; not tried elsewhere: once only`, f.ErrorText("llm"))
}

func TestFailure_CredentialsAreTheReasonWhereAllThatCouldBeAskedRefuseThem(t *testing.T) {
	t.Parallel()
	fatal := sight.Ended{Provider: "0", Class: verdict.ClassFatal, Err: errDown}
	parked := down(1, now)
	parked.Code, parked.Err = reason.Parked, fault.ErrCredentials
	require.False(t, failed().Credentials(), "nothing was asked")
	require.True(t, failed(fatal).Credentials())
	require.False(t, failed(fatal, sight.Ended{Provider: "2", Class: verdict.ClassUnknown}).Credentials())
	f := failed(fatal)
	f.Left = sightOf(down(0, now), parked)
	require.True(t, f.Credentials(), "the one that was asked does not count")
	f.Left = sightOf(sick(3, "ill"), parked)
	require.False(t, f.Credentials())
	f = failed(fatal)
	f.Partial = true
	require.False(t, f.Credentials())
	f = failed(fatal)
	f.Context = []error{context.Canceled}
	require.False(t, f.Credentials())
}
