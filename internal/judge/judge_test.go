package judge_test

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/judge"
	"github.com/capreg/registry/verdict"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errDown = errors.New("down")

// says returns a classifier with one verdict for every error.
func says(class verdict.Class) verdict.Classifier {
	return func(error) verdict.Verdict { return verdict.Verdict{Class: class} }
}

func silent(error) verdict.Verdict    { return verdict.Verdict{} }
func panicking(error) verdict.Verdict { panic("classifier") }

// hostileError panics when it is searched.
type hostileError struct{}

func (hostileError) Error() string { return "hostile" }
func (hostileError) Is(error) bool { panic("Is") }
func (hostileError) As(any) bool   { panic("As") }

func TestClassifiers_TheFirstThatHasAVerdictDecides(t *testing.T) {
	for name, test := range map[string]struct {
		of   judge.Classifiers
		err  error
		want verdict.Class
	}{
		"none":                      {judge.Classifiers{}, errDown, verdict.ClassUnknown},
		"the first":                 {judge.Classifiers{says(verdict.ClassBadRequest), says(verdict.ClassFatal)}, errDown, verdict.ClassBadRequest},
		"a silent one is passed by": {judge.Classifiers{silent, nil, says(verdict.ClassFatal)}, errDown, verdict.ClassFatal},
		"a panic is passed by":      {judge.Classifiers{panicking, says(verdict.ClassFatal)}, errDown, verdict.ClassFatal},
		"what was stated goes before": {
			judge.Classifiers{says(verdict.ClassFatal)}, fmt.Errorf("wrapped: %w", verdict.Permanent(errDown)), verdict.ClassBadRequest,
		},
		"the built-in one comes last": {judge.Classifiers{silent}, syscall.ECONNREFUSED, verdict.ClassNotSent},
		"an error that panics":        {judge.Classifiers{}, hostileError{}, verdict.ClassUnknown},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, test.of.Classify(test.err).Class) })
	}
}

// attempt is an attempt on fake time, with a minute of its own and the context of its caller.
type attempt struct {
	judge.Attempt

	caller *attemptctx.Caller
	set    attemptctx.Set
	cancel context.CancelCauseFunc
}

// bubble runs a test with the attempt of a caller that has two minutes.
func bubble(t *testing.T, test func(t *testing.T, a *attempt)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		caller, cancelCause := context.WithCancelCause(ctx)
		defer cancelCause(nil)
		a := &attempt{cancel: cancelCause}
		by := attemptctx.CallerOf(caller)
		a.caller = &by
		a.Context = attemptctx.New(caller, time.Now().Add(time.Minute), &a.set, nil)
		defer a.Context.End()
		a.Context.Done() // the function looks at it
		test(t, a)
	})
}

// pass lets time pass, and what it wakes run.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func requireJudged(t *testing.T, a *attempt, err error, want verdict.Class, cause error) {
	t.Helper()
	v, why := a.Judge(a.caller, err)
	require.Equal(t, want, v.Class)
	if cause == nil {
		require.NoError(t, why)
	} else {
		require.ErrorIs(t, why, cause)
	}
}

func TestJudge_WithinItsTimeTheClassifiersDecide(t *testing.T) {
	bubble(t, func(t *testing.T, a *attempt) {
		requireJudged(t, a, errDown, verdict.ClassUnknown, nil)
		a.Classifiers[1] = says(verdict.ClassFatal)
		requireJudged(t, a, errDown, verdict.ClassFatal, nil)
	})
}

func TestJudge_ARemovedProviderIsNotBlamed(t *testing.T) {
	bubble(t, func(t *testing.T, a *attempt) {
		a.set.Cancel(fault.ErrClosed)
		requireJudged(t, a, context.Canceled, verdict.ClassRemoved, fault.ErrClosed)
		a.cancel(nil)
		requireJudged(t, a, context.Canceled, verdict.ClassRemoved, fault.ErrClosed)
	})
}

func TestJudge_ACallThatMovesOnIsCutUnlessItHasAnAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, a *attempt) {
		a.set.MoveOn(fault.ErrUnhealthy)
		requireJudged(t, a, context.Canceled, verdict.ClassCut, fault.ErrUnhealthy)
		requireJudged(t, a, errDown, verdict.ClassCut, fault.ErrUnhealthy)
		requireJudged(t, a, verdict.Permanent(errDown), verdict.ClassBadRequest, fault.ErrUnhealthy)
	})
}

func TestJudge_TheEndOfItsOwnTimeIsATimeoutOrACut(t *testing.T) {
	bubble(t, func(t *testing.T, a *attempt) {
		pass(time.Minute)
		requireJudged(t, a, context.DeadlineExceeded, verdict.ClassAttemptTimeout, fault.ErrAttemptTimeout)
		requireJudged(t, a, errDown, verdict.ClassAttemptTimeout, fault.ErrAttemptTimeout)
		requireJudged(t, a, syscall.ECONNREFUSED, verdict.ClassNotSent, fault.ErrAttemptTimeout)
		a.Cut = true
		requireJudged(t, a, context.DeadlineExceeded, verdict.ClassCut, fault.ErrAttemptTimeout)
	})
}

func TestJudge_AnErrorThatBlamesIsNoAnswerAfterTheEndOfItsTime(t *testing.T) {
	bubble(t, func(t *testing.T, a *attempt) {
		a.Classifiers[0] = func(err error) verdict.Verdict {
			if errors.Is(err, errDown) {
				return verdict.Verdict{Class: verdict.ClassServerError}
			}
			return verdict.Verdict{}
		}
		requireJudged(t, a, errDown, verdict.ClassServerError, nil)
		pass(time.Minute)
		requireJudged(t, a, errDown, verdict.ClassAttemptTimeout, fault.ErrAttemptTimeout)
		pass(time.Minute)
		a.Context = nil // it got the caller's
		requireJudged(t, a, errDown, verdict.ClassCallerDeadline, nil)
	})
}

func TestJudge_AnAnswerCountsAlsoAfterTheEndOfItsTime(t *testing.T) {
	bubble(t, func(t *testing.T, a *attempt) {
		pass(time.Minute)
		requireJudged(t, a, verdict.Permanent(errDown), verdict.ClassBadRequest, fault.ErrAttemptTimeout)
		pass(2 * time.Minute)
		a.Context = nil // it got the caller's
		requireJudged(t, a, verdict.Permanent(errDown), verdict.ClassBadRequest, nil)
	})
}

// A classifier that has one answer for everything tells nothing about an error that came with the end of a context.
func TestJudge_AVerdictThatEveryEndedContextHasIsNoAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, a *attempt) {
		a.Classifiers[0] = says(verdict.ClassBadRequest)
		pass(time.Minute)
		requireJudged(t, a, errDown, verdict.ClassAttemptTimeout, fault.ErrAttemptTimeout)
	})
}

func TestJudge_TheEndOfTheCallersTimeBlamesNoProvider(t *testing.T) {
	bubble(t, func(t *testing.T, a *attempt) {
		a.Context = nil // it got the caller's
		pass(2 * time.Minute)
		requireJudged(t, a, context.DeadlineExceeded, verdict.ClassCallerDeadline, nil)
		requireJudged(t, a, errDown, verdict.ClassCallerDeadline, nil)
	})
	bubble(t, func(t *testing.T, a *attempt) {
		a.cancel(nil)
		requireJudged(t, a, context.Canceled, verdict.ClassCancelled, nil)
		requireJudged(t, a, errDown, verdict.ClassCancelled, nil)
		requireJudged(t, a, verdict.Permanent(errDown), verdict.ClassBadRequest, nil)
	})
}

func TestJudge_ANeutralStatementGoesBeforeAllContexts(t *testing.T) {
	for _, class := range []verdict.Class{verdict.ClassHedgeLoser, verdict.ClassIgnored} {
		bubble(t, func(t *testing.T, a *attempt) {
			stated := verdict.As(errDown, verdict.Verdict{Class: class})
			pass(time.Minute)
			requireJudged(t, a, stated, class, nil)
			a.set.Cancel(fault.ErrClosed)
			requireJudged(t, a, stated, class, nil)
			requireJudged(t, a, hostileError{}, verdict.ClassAttemptTimeout, fault.ErrAttemptTimeout)
		})
	}
}
