package registry

import (
	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/judge"
	"github.com/capreg/registry/verdict"
)

// classifiers returns those of the provider, of its service and of the registry.
func (i *identity) classifiers() judge.Classifiers {
	all := judge.Classifiers{i.classify, nil, i.registry.options.Classify}
	if ofService := i.service.classify.Load(); ofService != nil {
		all[1] = *ofService
	}
	return all
}

// judge returns what an outcome means, and why the registry ended the attempt, if it did.
func (a *attempt) judge(by *attemptctx.Caller, err error) (v verdict.Verdict, cause error) {
	if err == nil {
		return verdict.Verdict{Class: verdict.ClassSuccess}, nil
	}
	judged := judge.Attempt{Classifiers: a.provider.classifiers(), Context: a.ctx, Cut: a.other != nil}
	return judged.Judge(by, err)
}
