package stream

import "github.com/capreg/registry/verdict"

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
		case a.options.KeepAlive != nil && a.options.KeepAlive(item):
			if first && len(a.early) < a.options.MostItems {
				a.early = append(a.early, item)
			}
			continue
		}
		a.whole.Store(a.options.Last != nil && a.options.Last(item))
		return item, nil, true
	}
}
