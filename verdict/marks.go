package verdict

import (
	"maps"
	"slices"
	"time"
)

// marked is an error with an explicit verdict.
type marked struct {
	error

	verdict Verdict
}

func (m *marked) Unwrap() error { return m.error }

func (m *marked) Verdict() Verdict { return m.verdict }

// As wraps err with the verdict v, which every classification of the result returns. The result
// wraps err and has its text. A nil err stays nil.
func As(err error, v Verdict) error {
	if err == nil {
		return nil
	}
	return &marked{error: err, verdict: v}
}

// Stated returns the verdict that [As] or one of its shorthands gave to err. It reports false
// when there is none, or when an error around the mark has a verdict of its own.
func Stated(err error) (v Verdict, stated bool) {
	if err == nil {
		return Verdict{}, false
	}
	var t tree
	t.grow(err)
	speaks, ok := find[interface{ Verdict() Verdict }](&t)
	if !ok {
		return Verdict{}, false
	}
	mark, stated := speaks.(*marked)
	if !stated {
		return Verdict{}, false
	}
	return mark.verdict, true
}

// NotSent marks err as the error of a request that certainly never reached the provider. Even a
// once-only call may then go to the next one. A nil err stays nil.
func NotSent(err error) error { return As(err, Verdict{Class: ClassNotSent}) }

// Permanent marks err as the fault of the caller's request: the call ends with this error and
// the provider is not blamed. A nil err stays nil.
func Permanent(err error) error { return As(err, Verdict{Class: ClassBadRequest}) }

// Cannot marks err as the error of a provider that cannot serve the request and has not tried,
// such as for an unknown format. The next one is asked, by a once-only call as well, and the
// provider is not blamed. A nil err stays nil.
func Cannot(err error) error { return As(err, Verdict{Class: ClassNotForMe}) }

// RateLimited marks err as a request of the provider to be left alone for the given time; zero
// or less leaves the time to the registry. The provider's failure domain is left alone with it;
// [As] can limit that by its scope. A nil err stays nil.
func RateLimited(err error, after time.Duration) error {
	return As(err, Verdict{Class: ClassRateLimited, After: max(after, 0)})
}

// Fatal marks err as a failure that only an operator can fix (credentials, quota, billing): the
// provider is parked for the given time, together with its failure domain. Zero or less leaves
// the time to the registry: minutes, growing. A nil err stays nil.
func Fatal(err error, parkFor time.Duration) error {
	return As(err, Verdict{Class: ClassFatal, After: max(parkFor, 0)})
}

// Ignore marks err as saying nothing about the provider; it ends the call, and the breaker
// records neither success nor failure. A nil err stays nil.
func Ignore(err error) error { return As(err, Verdict{Class: ClassIgnored}) }

// Map returns a [Classifier] that gives each of a program's own errors a class:
//
//	Classify: verdict.Map(map[error]verdict.Class{
//		users.ErrNotFound: verdict.ClassResource,
//		users.ErrThrottled: verdict.ClassRateLimited,
//	})
//
// An error matches as by [errors.Is]. Where several match, the outermost decides, and among
// equal ones the first in the order of [Classes]. An error that is not listed is passed on, as is one that
// is listed as [ClassUnknown]. The map is copied.
func Map(classes map[error]Class) Classifier {
	sorted := make([]error, 0, len(classes))
	known := maps.Clone(classes)
	for target := range known {
		if target != nil {
			sorted = append(sorted, target)
		}
	}
	slices.SortFunc(sorted, func(a, b error) int { return int(known[a]) - int(known[b]) })
	return func(err error) Verdict {
		if err == nil {
			return Verdict{}
		}
		var t tree
		t.grow(err)
		for _, node := range t.all() {
			for _, target := range sorted {
				if isError(node, target) {
					return Verdict{Class: known[target]}
				}
			}
		}
		return Verdict{}
	}
}
