// Package judge decides what the outcome of an attempt means: the verdict that was stated of its error, or that of a
// classifier, or of the context that has ended it.
//
// It owns the order in which these are asked. Classifiers and the methods of errors are users' code and run through
// [fault.Run]: one that panics has no say. So nothing here may be called while a lock is held. It keeps nothing and
// never looks at a provider.
package judge

import (
	"context"
	"errors"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/verdict"
)

// Classifiers are asked in this order, before the built-in one. Nil ones are left out.
type Classifiers [3]verdict.Classifier

// Classify returns the verdict that was stated of the error, or else the one of the first classifier that has one.
func (c *Classifiers) Classify(err error) verdict.Verdict {
	var (
		v      verdict.Verdict
		stated bool
	)
	if fault.Run(func() error { v, stated = verdict.Stated(err); return nil }) == nil && stated {
		return v
	}
	for _, classify := range c {
		if classify == nil {
			continue
		}
		var v verdict.Verdict
		if fault.Run(func() error { v = classify(err); return nil }) == nil && v != (verdict.Verdict{}) {
			return v
		}
	}
	if fault.Run(func() error { v = ofProvider(err); return nil }) != nil {
		return verdict.Verdict{} // an error whose own methods panic
	}
	return v
}

// ofProvider returns the built-in verdict. The error of a call within the attempt is a plain failure: what its verdict
// says is about other providers.
func ofProvider(err error) verdict.Verdict {
	var speaks interface {
		error
		Verdict() verdict.Verdict
	}
	if errors.As(err, &speaks) {
		if inner, ok := speaks.(interface{ Is(target error) bool }); ok && inner.Is(fault.ErrOfCall) {
			return verdict.Verdict{}
		}
	}
	return verdict.Of(err)
}

// Attempt describes an attempt to its judge.
type Attempt struct {
	Classifiers Classifiers
	Context     *attemptctx.Context // its own; nil: it got the caller's
	Cut         bool                // its time was cut for another provider
}

// Judge returns what an error means in an attempt of the caller, and why the registry ended the attempt, if it did. The contexts come first, the
// attempt's own before the caller's, which it would else be mistaken for when it is itself the context of an attempt:
// a caller that went away blames no provider. Only an answer of the provider, such as a rate limit, counts even when
// it came with the end of its time.
func (a *Attempt) Judge(by *attemptctx.Caller, err error) (v verdict.Verdict, cause error) {
	if v, neutral := statedNeutral(err); neutral {
		return v, nil
	}
	if a.Context != nil {
		if cause := a.Context.Cancelled(); cause != nil {
			return a.judgeCancelled(err, cause), cause
		}
		if a.Context.TimedOut(err) {
			return a.judgeTimedOut(err), fault.ErrAttemptTimeout
		}
	}
	if ended := by.Err(); ended != nil {
		if v, answered := a.answerIn(err, ended); answered {
			return v, nil
		}
		if errors.Is(ended, context.DeadlineExceeded) {
			return verdict.Verdict{Class: verdict.ClassCallerDeadline}, nil
		}
		return verdict.Verdict{Class: verdict.ClassCancelled}, nil
	}
	return a.Classifiers.Classify(err), nil
}

// judgeCancelled is Judge for an attempt that the registry has ended: its provider has left, or stays unhealthy, so
// that another one is asked.
func (a *Attempt) judgeCancelled(err, cause error) verdict.Verdict {
	if !errors.Is(cause, fault.ErrUnhealthy) {
		return verdict.Verdict{Class: verdict.ClassRemoved}
	}
	if v, answered := a.answerIn(err, context.Canceled); answered {
		return v
	}
	return verdict.Verdict{Class: verdict.ClassCut}
}

// judgeTimedOut is Judge for an attempt that its own limit has ended.
func (a *Attempt) judgeTimedOut(err error) verdict.Verdict {
	v, answered := a.answerIn(err, context.DeadlineExceeded)
	switch {
	case answered, v.Class == verdict.ClassNotSent: // such as a dial that took all the time
		return v
	case a.Cut:
		return verdict.Verdict{Class: verdict.ClassCut}
	}
	return verdict.Verdict{Class: verdict.ClassAttemptTimeout}
}

// answerIn returns the verdict of the error of an attempt whose context has ended with the error ended, and
// reports whether it is an answer of the provider: one that blames it for nothing, which a cut connection does, and
// that is not what every error of an ended context means to the classifiers.
func (a *Attempt) answerIn(err, ended error) (v verdict.Verdict, answered bool) {
	v = a.Classifiers.Classify(err)
	switch v.Class { //nolint:exhaustive // the others are by their rule
	case verdict.ClassCancelled, verdict.ClassCallerDeadline, verdict.ClassCut, verdict.ClassRemoved, verdict.ClassSuccess:
		return v, false
	}
	if blame := v.Class.Rule().Blame; blame != verdict.BlameSuccess && blame != verdict.BlameNeutral {
		return v, false
	}
	return v, a.Classifiers.Classify(ended) != v
}

// statedNeutral returns the verdict that was stated of an outcome which says nothing about the provider. It goes
// before all contexts that have ended: the code that stated it knows best.
func statedNeutral(err error) (v verdict.Verdict, neutral bool) {
	_ = fault.Run(func() error { // its methods are a user's
		stated, ok := verdict.Stated(err)
		v, neutral = stated, ok && (stated.Class == verdict.ClassHedgeLoser || stated.Class == verdict.ClassIgnored)
		return nil
	})
	return v, neutral
}

// GaveUp reports whether the error of a holder says that it has cancelled its work, or a call in it. Another error with a
// verdict of its own does not.
func GaveUp(err error) (gave bool) {
	_ = fault.Run(func() error { // its methods are a user's
		var speaks interface {
			error
			Verdict() verdict.Verdict
		}
		if errors.As(err, &speaks) {
			gave = speaks.Verdict().Class == verdict.ClassCancelled
		} else {
			gave = errors.Is(err, context.Canceled)
		}
		return nil
	})
	return gave
}
