// Package schedule runs many timers on one goroutine that exists only while
// something is due.
package schedule

import (
	"math"
	"sync"
	"time"
)

// Scheduler calls functions at their deadlines, one after another. However many
// timers wait, they share one timer of the runtime and no goroutine; one
// goroutine appears when the earliest is due and ends when nothing more is. It
// is safe for concurrent use. Use New to make one.
type Scheduler struct {
	epoch time.Time

	// idle is closed once the scheduler is closed and no run is in progress.
	idle chan struct{}

	// mu guards all fields below and those of every Timer of this scheduler.
	// While it is held no run may be called and nothing may block; arming the
	// alarm does neither.
	mu      sync.Mutex
	closed  bool
	running bool // some goroutine is between begin and end
	waiting queue
	created uint64
	seen    time.Duration // the last reading of the clock, in time since epoch

	// alarm starts runDue on a goroutine of its own. Unless running, it is set
	// for the first deadline of waiting or for one before it: a Stop leaves it as
	// it is, since most timers are stopped, and setting it wakes a thread of the
	// runtime. Its goroutine may be late, after a Stop, an After or another such
	// goroutine; that is harmless, as it checks by itself which timers are due.
	alarm *time.Timer
	set   time.Duration // when the alarm goes off, in time since epoch; noAlarm: never
}

// Runner is the code of a timer. A method of the struct that has the timer costs no closure.
type Runner interface{ Run() }

// Func is a function as a Runner.
type Func func()

// Run calls the function.
func (f Func) Run() { f() }

// Timer is one pending call of a function. It is safe for concurrent use once it was started. The zero value waits for
// nothing.
type Timer struct {
	scheduler *Scheduler

	// The scheduler's mutex guards all of these.
	run      Runner
	deadline time.Duration // since the scheduler's epoch
	created  uint64        // orders equal deadlines
	index    int           // in the queue, or notWaiting
}

// noAlarm is later than every deadline.
const noAlarm time.Duration = math.MaxInt64

// New returns a scheduler with nothing to do. It is safe for concurrent use.
func New() *Scheduler {
	return &Scheduler{epoch: time.Now(), idle: make(chan struct{}), set: noAlarm}
}

// After arranges for run to be called once, when d has elapsed and not before; a negative d
// counts as zero. It is safe for concurrent use, and may be called from inside a run.
//
// Calls are made in the order of deadlines, and of creation where these are equal, never two at
// a time and never under a lock. A run must not block, for it delays all others, and must not
// panic: nothing recovers it, so that the process dies. On a closed scheduler the timer never
// fires.
func (s *Scheduler) After(d time.Duration, run func()) *Timer {
	deadline := s.Now() + max(d, 0)
	if deadline < 0 {
		deadline = math.MaxInt64
	}

	return s.At(deadline, run)
}

// Now returns the time by the scheduler's clock.
func (s *Scheduler) Now() time.Duration { return time.Since(s.epoch) }

// Epoch returns the beginning of the scheduler's clock.
func (s *Scheduler) Epoch() time.Time { return s.epoch }

// At is After for a time by the scheduler's clock.
func (s *Scheduler) At(deadline time.Duration, run func()) *Timer {
	timer := &Timer{}
	s.Start(timer, deadline, Func(run))

	return timer
}

// Start is At for a timer that is part of another struct. It must be new, or one of this scheduler: one that still
// waits is stopped first.
func (s *Scheduler) Start(timer *Timer, deadline time.Duration, run Runner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if timer.scheduler == nil {
		timer.scheduler, timer.index = s, notWaiting
	}
	if s.closed {
		return
	}
	if timer.index != notWaiting {
		s.waiting.remove(timer)
	}
	timer.deadline, timer.created, timer.run = deadline, s.created, run
	s.created++
	s.waiting.push(timer)
	s.arm()
}

// Stop keeps the timer from firing and reports whether it did: false means that
// run has been or is being called, that the timer was stopped before, or that
// its scheduler is closed. It does not wait for a run in progress. It is safe
// for concurrent use, and may be called from inside a run.
func (t *Timer) Stop() bool {
	s := t.scheduler
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.index == notWaiting {
		return false
	}
	s.waiting.remove(t)
	t.run = nil

	return true
}

// Close drops all timers: no run begins any more. It waits for a run in
// progress, and so would wait forever if called from inside a run. It is safe
// for concurrent use and to repeat; each call waits.
func (s *Scheduler) Close() {
	s.shut()
	<-s.idle
}

func (s *Scheduler) shut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	for _, timer := range s.waiting {
		timer.index, timer.run = notWaiting, nil
	}
	s.waiting = nil
	if s.alarm != nil {
		s.alarm.Stop()
	}
	if !s.running {
		close(s.idle)
	}
}

// runDue runs the timers that are due; the alarm starts it. The end is deferred so that a run
// which ends its goroutine, as a failing assertion of a test does, blocks neither the other
// timers nor Close.
func (s *Scheduler) runDue() {
	if !s.begin() {
		return
	}
	defer s.end()
	for due := s.nextDue(); due != nil; due = s.nextDue() {
		due.Run()
	}
}

// begin makes the calling goroutine the only one that runs timers, and reports
// whether it may be.
func (s *Scheduler) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set = noAlarm
	if s.closed || s.running {
		return false
	}
	s.running = true

	return true
}

func (s *Scheduler) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = false
	if s.closed {
		close(s.idle)

		return
	}
	s.arm()
}

// nextDue takes the first timer off the queue if it is due, and returns its
// run; from here on Stop is too late and Close waits. It returns nil if nothing
// is due.
func (s *Scheduler) nextDue() Runner {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return nil
	}
	timer := s.waiting[0]
	if timer.deadline > s.seen {
		// The clock never goes back, so it is read once for all that is due
		// together.
		if s.seen = s.Now(); timer.deadline > s.seen {
			return nil
		}
	}
	s.waiting.remove(timer)
	run := timer.run
	timer.run = nil

	return run
}

// arm sets the alarm for the first deadline, unless it goes off before that. It
// leaves that to end while timers are being run. It is called with mu held.
func (s *Scheduler) arm() {
	if s.running || len(s.waiting) == 0 || s.set <= s.waiting[0].deadline {
		return
	}
	s.set = s.waiting[0].deadline
	wait := s.set - s.Now()
	if s.alarm == nil {
		s.alarm = time.AfterFunc(wait, s.runDue)
	} else {
		s.alarm.Reset(wait)
	}
}
