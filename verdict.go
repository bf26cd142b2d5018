package registry

import (
	"context"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/outcome"
	"github.com/capreg/registry/verdict"
)

// classifyError returns the verdict that was stated of the error, or else the one of the first classifier that has
// one: those of the provider, the service and the registry, and the built-in one.
func (i *identity) classifyError(err error) verdict.Verdict {
	var v verdict.Verdict
	stated := false
	if fault.Run(func() error { v, stated = verdict.Stated(err); return nil }) == nil && stated {
		return v
	}
	var ofService verdict.Classifier
	if set := i.service.classify.Load(); set != nil {
		ofService = *set
	}
	for _, classify := range []verdict.Classifier{i.classify, ofService, i.registry.options.Classify} {
		if classify == nil {
			continue
		}
		var v verdict.Verdict
		if fault.Run(func() error { v = classify(err); return nil }) == nil && v != (verdict.Verdict{}) {
			return v
		}
	}
	if fault.Run(func() error { v = verdict.Of(err); return nil }) != nil {
		return verdict.Verdict{} // an error whose own methods panic
	}
	return v
}

// judge returns what an outcome means, and why the registry ended the attempt, if it did. The contexts come first,
// the attempt's own before the caller's, which it would else be mistaken for when it is itself the context of an
// attempt: a caller that went away blames no provider. Only an answer of the provider, such as a rate limit, counts
// even when it came with the end of its time.
func (a *attempt) judge(by *attemptctx.Caller, err error) (v verdict.Verdict, cause error) {
	if err == nil {
		return verdict.Verdict{Class: verdict.ClassSuccess}, nil
	}
	if v, neutral := statedNeutral(err); neutral {
		return v, nil
	}
	if a.ctx != nil {
		if cause := a.ctx.Cancelled(); cause != nil {
			return verdict.Verdict{Class: outcome.ClassOfEnd(cause)}, cause
		}
		if a.ctx.TimedOut(err) {
			return a.judgeTimedOut(err), ErrAttemptTimeout
		}
	}
	if ended := by.Err(); ended != nil {
		if v, answered := a.provider.answerIn(err, ended); answered {
			return v, nil
		}
		return verdict.Verdict{Class: outcome.ClassOfCallersEnd(ended)}, nil
	}
	return a.provider.classifyError(err), nil
}

// judgeTimedOut is judge for an attempt that its own limit has ended.
func (a *attempt) judgeTimedOut(err error) verdict.Verdict {
	v, answered := a.provider.answerIn(err, context.DeadlineExceeded)
	switch {
	case answered, v.Class == verdict.ClassNotSent: // such as a dial that took all the time
		return v
	case a.other != nil:
		return verdict.Verdict{Class: verdict.ClassCut}
	}
	return verdict.Verdict{Class: verdict.ClassAttemptTimeout}
}

// answerIn returns the verdict of the error of an attempt whose context has ended with the error ended, and
// reports whether it is an answer of the provider: one that blames it for nothing, which a cut connection does, and
// that is not what every error of an ended context means to the classifiers.
func (i *identity) answerIn(err, ended error) (v verdict.Verdict, answered bool) {
	v = i.classifyError(err)
	switch v.Class { //nolint:exhaustive // the others are by their rule
	case verdict.ClassCancelled, verdict.ClassCallerDeadline, verdict.ClassCut, verdict.ClassRemoved, verdict.ClassSuccess:
		return v, false
	}
	if blame := v.Class.Rule().Blame; blame != verdict.BlameSuccess && blame != verdict.BlameNeutral {
		return v, false
	}
	return v, i.classifyError(ended) != v
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
