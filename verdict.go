package registry

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"github.com/capreg/registry/verdict"
)

// classifyError asks the classifiers of the provider, the service and the
// registry, and the built-in one.
func (p *provider) classifyError(err error) verdict.Verdict {
	var ofService verdict.Classifier
	if set := p.service.classify.Load(); set != nil {
		ofService = *set
	}
	for _, classify := range []verdict.Classifier{p.classify, ofService, p.registry.options.Classify} {
		if classify == nil {
			continue
		}
		var v verdict.Verdict
		if guard(func() error { v = classify(err); return nil }) == nil && v != (verdict.Verdict{}) {
			return v
		}
	}
	var v verdict.Verdict
	if guard(func() error { v = verdict.Of(err); return nil }) != nil {
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
	if a.own != nil {
		if cause := a.own.removed(); cause != nil {
			a.ended = cause
			return verdict.Verdict{Class: verdict.ClassRemoved}
		}
		if a.own.timedOut(err) {
			a.ended = ErrAttemptTimeout
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

// isTimeout reports whether err speaks of a time that is over.
func isTimeout(err error) (timeout bool) {
	_ = guard(func() error { // its methods are a user's
		var network net.Error
		timeout = errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
			errors.As(err, &network) && network.Timeout()
		return nil
	})
	return timeout
}
