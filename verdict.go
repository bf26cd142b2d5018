package registry

import (
	"context"
	"errors"
	"time"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/verdict"
)

// classifyError takes what was stated of the error, or asks the classifiers of the
// provider, the service and the registry, and the built-in one.
func (p *provider) classifyError(err error) verdict.Verdict {
	var v verdict.Verdict
	stated := false
	if fault.Run(func() error { v, stated = verdict.Stated(err); return nil }) == nil && stated {
		return v
	}
	var ofService verdict.Classifier
	if set := p.service.classify.Load(); set != nil {
		ofService = *set
	}
	for _, classify := range []verdict.Classifier{p.classify, ofService, p.registry.options.Classify} {
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

// judge says what an outcome means. The contexts come first, the attempt's own
// before the caller's, which it would else be mistaken for when it is itself
// the context of an attempt: a caller that went away blames nobody.
func (a *attempt) judge(err error) verdict.Verdict {
	if err == nil {
		return verdict.Verdict{Class: verdict.ClassSuccess}
	}
	if v, neutral := statedNeutral(err); neutral {
		return v
	}
	if a.own != nil {
		if cause := a.own.Cancelled(); cause != nil {
			a.ended = cause
			return verdict.Verdict{Class: verdict.ClassRemoved}
		}
		if a.own.TimedOut(err) {
			a.ended = ErrAttemptTimeout
			if v := a.provider.classifyError(err); v.Class == verdict.ClassNotSent {
				return v // such as a dial that took all the time
			}
			return verdict.Verdict{Class: verdict.ClassAttemptTimeout}
		}
	}
	if ended := a.callerEnded(); ended != nil {
		if errors.Is(ended, context.DeadlineExceeded) {
			return verdict.Verdict{Class: verdict.ClassCallerDeadline}
		}
		return verdict.Verdict{Class: verdict.ClassCancelled}
	}
	return a.provider.classifyError(err)
}

// statedNeutral returns what was stated of an outcome that says nothing about the
// provider, whatever has ended: that is known best by who ended it.
func statedNeutral(err error) (v verdict.Verdict, neutral bool) {
	_ = fault.Run(func() error { // its methods are a user's
		stated, ok := verdict.Stated(err)
		v, neutral = stated, ok && (stated.Class == verdict.ClassHedgeLoser || stated.Class == verdict.ClassIgnored)
		return nil
	})
	return v, neutral
}

// callerEnded returns the error of the caller's context, also when its deadline
// has passed and its timer has yet to fire.
func (a *attempt) callerEnded() error {
	if err := a.caller.Err(); err != nil {
		return err
	}
	if a.hasDeadline && !time.Now().Before(a.deadline) {
		return context.DeadlineExceeded
	}
	return nil
}
