package judge_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/judge"
	"github.com/capreg/registry/verdict"
)

// callError is the error of a call within an attempt.
type callError struct{ class verdict.Class }

func (callError) Error() string              { return "a call has failed" }
func (callError) Is(target error) bool       { return target == fault.ErrOfCall }
func (e callError) Verdict() verdict.Verdict { return verdict.Verdict{Class: e.class} }

func TestGaveUp_OnlyWhatWasCancelledByItsHolder(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		gave bool
	}{
		"none":                     {nil, false},
		"cancelled":                {fmt.Errorf("reading: %w", context.Canceled), true},
		"deadline":                 {context.DeadlineExceeded, false},
		"another":                  {errDown, false},
		"a call that was":          {callError{verdict.ClassCancelled}, true},
		"a call that was not":      {errors.Join(callError{verdict.ClassServerError}, context.Canceled), false},
		"a stated verdict decides": {verdict.RateLimited(context.Canceled, 0), false},
		"an error that panics":     {hostileError{}, false},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.gave, judge.GaveUp(test.err)) })
	}
}

// What the error of a call says is about the providers of that call.
func TestClassifiers_TheErrorOfACallWithinIsAPlainFailure(t *testing.T) {
	none := judge.Classifiers{}
	require.Equal(t, verdict.ClassUnknown, none.Classify(callError{verdict.ClassRateLimited}).Class)
	wrapped := fmt.Errorf("tool: %w", callError{verdict.ClassBadRequest})
	require.Equal(t, verdict.ClassUnknown, none.Classify(wrapped).Class)
	fatal := judge.Classifiers{says(verdict.ClassFatal)}
	require.Equal(t, verdict.ClassFatal, fatal.Classify(wrapped).Class)
}
