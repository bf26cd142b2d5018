package limit

import "time"

// Reserved is at most one attempt that a call has reserved, to be made at a later time. The zero value is none. It is
// for one goroutine.
type Reserved struct {
	limits *Limits
	spent  Spent
	due    time.Time
}

// Reserve reserves the next attempt under the limits, in place of the one before, unless that takes within or
// longer. It returns the time until the attempt may be made.
func (r *Reserved) Reserve(l *Limits, caller string, within time.Duration) (wait time.Duration, ok bool) {
	if r.limits == l {
		return time.Until(r.due), true
	}
	spent, wait, ok := l.Reserve(caller, within)
	if ok {
		r.GiveBack()
		*r = Reserved{l, spent, time.Now().Add(wait)}
	}
	return wait, ok
}

// Due returns when the attempt may be made; zero: none is reserved.
func (r *Reserved) Due() time.Time { return r.due }

// Holds reports whether an attempt under these limits is reserved.
func (r *Reserved) Holds(l *Limits) bool { return r.limits == l }

// Take is [Limits.Take] that uses the reserved attempt if it is due.
func (r *Reserved) Take(l *Limits, caller string) (used Spent, retryIn time.Duration) {
	if r.limits != l || time.Now().Before(r.due) {
		return l.Take(caller)
	}
	used = r.spent
	*r = Reserved{}
	return used, 0
}

// GiveBack gives the attempt back, if there is one.
func (r *Reserved) GiveBack() {
	r.spent.GiveBack()
	*r = Reserved{}
}
