package stream

import (
	"errors"
	"time"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/verdict"
)

// preamble returns what tells items before the first one with content from that one; nil where nothing does.
func (o Options[I]) preamble() func(I) bool {
	if o.KeepAlive != nil {
		return o.KeepAlive
	}
	silent, ok := any(saysNothing).(func(I) bool)
	if !ok {
		silent, ok = any(chunkSaysNothing).(func(I) bool)
	}
	if !ok || o.Last == nil {
		return silent
	}
	return func(item I) bool { return !o.Last(item) && silent(item) }
}

// ofSlowReader returns the error of a stream that its provider has cut. Servers hang up on those that leave their
// answer unread, so it is marked to say nothing of the provider where the reader took more time than an item may
// take, and more than the provider.
func (a *attempt[T, I]) ofSlowReader(err error, unread time.Duration) error {
	if unread < a.options.StallTimeout || unread <= a.busy || !isCut(err) {
		return err
	}
	return verdict.Ignore(err)
}

// isCut reports whether the error is that of a connection which has ended, as far as that can be known.
func isCut(err error) (cut bool) {
	_ = fault.Run(func() error { // its methods are a user's
		class := verdict.Of(err).Class
		cut = class == verdict.ClassTransport || class == verdict.ClassMalformed && errors.Is(fault.Bound(err), ErrTruncated)
		return nil
	})
	return cut
}

// pullContent reads items until one has content, and keeps those before the first such item. more is false at a
// complete end.
func (a *attempt[T, I]) pullContent(first bool) (item I, err error, more bool) {
	for {
		item, err, ok := a.items()
		switch {
		case err != nil:
			return item, err, false
		case !ok && a.options.Last != nil:
			return item, verdict.As(ErrTruncated, verdict.Verdict{Class: verdict.ClassMalformed}), false
		case !ok:
			a.ended = true
			a.whole.Store(true)
			return item, nil, false
		case first && a.preamble != nil && a.preamble(item):
			if len(a.early) < a.options.MaxItems {
				a.early = append(a.early, item)
			}
			continue
		case !first && a.options.KeepAlive != nil && a.options.KeepAlive(item):
			continue
		}
		a.whole.Store(a.options.Last != nil && a.options.Last(item))
		return item, nil, true
	}
}
