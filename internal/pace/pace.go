// Package pace remembers how long the answers of a provider take, and divides the time that a caller has left
// between an attempt on one provider and the next attempt, which may have to follow on another one.
//
// A [Pace] owns two durations: that of the longest answer of late, and that of the longest attempt that has ended
// without one since the last answer. It starts no timer, takes no lock, and knows neither callers nor breakers.
package pace

import (
	"sync/atomic"
	"time"
)

const (
	// window is the time after which the longest answer begins to fade, provided that there were others since.
	window = time.Minute
	// leastTelling is the time below which the lack of an answer says nothing of a provider that has never
	// answered.
	leastTelling = 100 * time.Millisecond
	// far is the number of times the longest answer from which on an attempt runs far longer than answers take.
	far = 4
	// SmallestShare is the part of the time left below which no [Share] is.
	SmallestShare = 8
)

// Pace holds the durations of the attempts on one provider. The zero value knows nothing. It is safe for concurrent
// use.
type Pace struct {
	longest atomic.Int64 // answer since turned
	before  atomic.Int64 // longest answer before turned, halved with each window
	turned  atomic.Int64 // on the clock of the caller of Known
	waited  atomic.Int64 // longest telling attempt without an answer since the last one
}

// Answered notes the duration of an answer, and reports whether none took longer of late. Else it is one load.
func (p *Pace) Answered(took time.Duration) (longest bool) {
	return int64(took) >= p.longest.Load() && p.raise(int64(max(took, 1)))
}

// raise notes the duration of what may be the longest answer. It returns true.
func (p *Pace) raise(took int64) bool {
	for {
		longest := p.longest.Load()
		if took <= longest || p.longest.CompareAndSwap(longest, took) {
			return true
		}
	}
}

// Unanswered notes the duration of an attempt that has ended without an answer, and is telling.
func (p *Pace) Unanswered(took time.Duration) {
	for {
		waited := p.waited.Load()
		if int64(took) <= waited || p.waited.CompareAndSwap(waited, int64(took)) {
			return
		}
	}
}

// EndWait forgets the attempts without an answer: there was one.
func (p *Pace) EndWait() {
	if p.waited.Load() != 0 {
		p.waited.Store(0)
	}
}

// Continue begins with what was known before, unless an attempt has told something. The longest answer fades from now on
// as any other: once there were answers since.
func (p *Pace) Continue(k Known, now time.Duration) {
	if p.longest.Load() != 0 || p.waited.Load() != 0 {
		return
	}
	if k.Longest > 0 && p.before.CompareAndSwap(0, int64(k.Longest)) {
		p.turned.Store(int64(now))
	}
	if k.Waited > 0 {
		p.Unanswered(k.Waited)
	}
}

// Known is the state of a [Pace] at one moment.
type Known struct {
	Longest time.Duration // answer of late; zero: there was none
	Waited  time.Duration // longest telling attempt without an answer since the last one; zero: there was none
}

// Known returns the present state. Times on the clock of now must not be negative.
func (p *Pace) Known(now time.Duration) Known {
	longest, before := p.longest.Load(), p.before.Load()
	if turned := p.turned.Load(); longest > 0 && int64(now)-turned >= int64(window) && p.turned.CompareAndSwap(turned, int64(now)) {
		before = max(longest, before/2)
		p.before.Store(before)
		p.longest.Store(0)
	}
	return Known{Longest: time.Duration(max(longest, before)), Waited: time.Duration(p.waited.Load())}
}

// Telling reports whether an attempt of that duration without an answer says something of the provider: it ran
// longer than any answer takes. Once one has, shorter ones tell as well, until there is an answer. A provider that
// has never answered may take as long as its peers do, and a tenth of a second.
func (k Known) Telling(took time.Duration, peers Known) bool {
	if k.Longest == 0 {
		return took >= leastTelling && (k.Waited > 0 || took > peers.Longest)
	}
	return took >= min(leastTelling, far*k.Longest) && (k.Waited > 0 || took > k.Longest)
}

// FarBeyond reports whether the duration is far longer than answers take.
func (k Known) FarBeyond(took time.Duration) bool {
	return k.Longest > 0 && took >= max(leastTelling, far*k.Longest)
}

// Share returns the part of the time left that an attempt on a provider may take while another provider could be
// asked after it.
//
//	the provider                             | may take
//	has answered of late                     | its longest answer and a quarter, or more: all but what the other needs
//	has never answered                       | three quarters, or more: all but what the other needs
//	has run without an answer since, and
//	  for longer than the other one has      | all but what the other needs, where no answer is known three quarters
//	  for no longer than the other one has   | as above; all of it where it has never answered
//
// The other one needs its longest answer and a quarter, at least an eighth of the time left; a quarter where it has
// never answered; nothing where its answers take longer than the time left. With proof a provider that has answered
// of late has the time of the first row whatever has been since: it is on trial.
func Share(left time.Duration, own, other Known, proof bool) time.Duration {
	doubtful := own.Waited > other.Waited+other.Waited/8
	if doubtful && (!proof || own.Longest == 0) {
		return left - other.need(left, left/4*3, left/4*3, left/SmallestShare*(SmallestShare-1))
	}
	return max(own.claim(left), left-other.need(left, left/4, 0, left/4*3))
}

// need returns the time that has to be left for the provider: unknown if it has never answered, late if its answers
// take longer than the time left, else its longest answer and a quarter, at most the given time.
func (k Known) need(left, unknown, late, most time.Duration) time.Duration {
	switch {
	case k.Longest == 0:
		return unknown
	case k.Longest >= left:
		return late
	}
	return min(max(withMargin(k.Longest), left/SmallestShare), most)
}

// claim returns the time that the provider itself has to have.
func (k Known) claim(left time.Duration) time.Duration {
	switch {
	case k.Longest == 0 && k.Waited > 0:
		return left
	case k.Longest == 0:
		return left / 4 * 3
	case k.Longest >= left:
		return 0 // it would hardly answer in time, which the other one may
	}
	return min(withMargin(k.Longest), left)
}

// WithMargin returns the longest answer of late and a quarter.
func (k Known) WithMargin() time.Duration { return withMargin(k.Longest) }

// withMargin returns a duration and a quarter.
func withMargin(d time.Duration) time.Duration { return d + d/4 }
