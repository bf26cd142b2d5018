package probe

import (
	"maps"
	"slices"
	"time"
)

const (
	// latenessWindow is the age up to which results are compared, to tell late providers from a late machine.
	latenessWindow = 30 * time.Second
	// unrelatedLate is the least number of providers that share nothing and are late, for the machine to be suspected.
	// They must be half of those with a result in the window.
	unrelatedLate = 5
	// answersOfLate says how few answers in time speak for this machine: as many as one for so many that are late.
	answersOfLate = 4
	// longestSuspicion bounds the time for which the machine is suspected at a stretch.
	longestSuspicion = 5 * time.Minute
	// lateTimer is the lateness of a timer that makes the machine suspect by itself.
	lateTimer = time.Second
)

// origin names what a provider shares with others, or the provider. Providers leave, so it does not refer to one.
type origin struct {
	domain     string
	generation uint64 // zero where there is a domain
}

func originOf(id Identity) origin {
	if id.Domain != "" {
		return origin{domain: id.Domain}
	}
	return origin{generation: id.Generation}
}

// evidence is one result of a provider that was answering before.
type evidence struct {
	of   origin
	at   time.Duration
	late bool
}

// The states of this machine, by late results of providers that were answering before:
//
//	state      late result                                          next
//	---------  ---------------------------------------------------  ----------
//	trusted    of many unrelated providers while too few others     suspected
//	           answer, or after a late timer
//	suspected  the same                                             suspected
//	suspected  another                                              trusted
//
// Late results do not count while the machine is suspected, for longestSuspicion at most. After latenessWindow without
// a late result the next suspicion is a new one.
type machineState uint8

const (
	trusted machineState = iota
	suspected
)

// lateness tells from results that are late together whether this machine is the cause. It is a value: the lock of
// the host guards it.
type lateness struct {
	state       machineState
	recent      [64]evidence // the zero time: none
	next        int
	since       time.Duration // of the suspicion
	confirmed   time.Duration // when there was reason for it last
	lateTimerAt time.Duration // when a timer was late last; zero: never
}

// noteAnswer records an answer.
func (l *lateness) noteAnswer(of origin, now time.Duration) { l.note(evidence{of, now, false}) }

// noteTimer records a timer that fired, and was planned for the given time.
func (l *lateness) noteTimer(planned, now time.Duration) {
	if now-planned > lateTimer {
		l.lateTimerAt = now
	}
}

// noteLate records a late result, and reports whether the machine is to blame. began is true when the suspicion is
// new. The effect of a late timer lasts as long as a probe that was running may take.
func (l *lateness) noteLate(of origin, now, timeout time.Duration) (blamed, began bool) {
	l.note(evidence{of, now, true})
	timerWasLate := l.lateTimerAt > 0 && now-l.lateTimerAt <= timeout+latenessWindow
	if !timerWasLate && !l.manyLate(now, timeout) {
		l.state = trusted
		return false, false
	}
	if l.state == trusted || now-l.confirmed > latenessWindow {
		l.state, l.since, began = suspected, now, true
	}
	l.confirmed = now
	return now-l.since <= longestSuspicion, began
}

func (l *lateness) note(e evidence) {
	l.recent[l.next] = e
	l.next = (l.next + 1) % len(l.recent)
}

// manyLate reports whether enough unrelated providers are late together, and too few others answer in time since the
// latest of them began to wait: a machine that gets those answers is not the cause.
func (l *lateness) manyLate(now, timeout time.Duration) bool {
	lateAt := make(map[origin]time.Duration) // the last late result of each; zero: none
	for _, e := range l.recent {
		if e.at > 0 && now-e.at <= latenessWindow {
			lateAt[e.of] = max(lateAt[e.of], e.lateAt())
		}
	}
	late := slices.DeleteFunc(slices.Sorted(maps.Values(lateAt)), func(at time.Duration) bool { return at == 0 })
	if len(late) < unrelatedLate || 2*len(late) < len(lateAt) {
		return false
	}
	began := late[len(late)-unrelatedLate] - timeout // what is late for longer may be so for a reason of its own
	answered := make(map[origin]bool)
	for _, e := range l.recent {
		if !e.late && e.at >= began && e.at > 0 && lateAt[e.of] == 0 {
			answered[e.of] = true
		}
	}
	return len(answered)*answersOfLate < len(late)
}

func (e evidence) lateAt() time.Duration {
	if e.late {
		return e.at
	}
	return 0
}
