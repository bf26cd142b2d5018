package bus

import (
	"github.com/capreg/registry/internal/ring"
)

const (
	logBuffer    = 1024 // events that the logger may be late by
	maxErrorText = 300
)

// logState is the state of a [log].
//
//	state    event                    next     effect
//	idle     add                      writing  goroutine begins
//	idle     add, no goroutine        idle     the event stays buffered
//	writing  add                      writing  none
//	writing  nothing left             idle     goroutine ends
//	writing  logger exits goroutine   idle     the next event starts another one
type logState uint8

const (
	idle logState = iota
	writing
)

// log passes events to loggers, one at a time and in order, in a goroutine that runs while there are any.
type log struct {
	host    Host
	loggers Loggers

	// Guarded by the owner's lock.
	unwritten *ring.Ring[entry]
	state     logState
	calls     map[callKind]*repeats
}

func newLog(host Host, loggers Loggers) *log {
	return &log{host: host, loggers: loggers, unwritten: ring.New[entry](logBuffer), calls: make(map[callKind]*repeats)}
}

// add buffers a line, in place of the oldest when the logger is too slow. Caller holds the lock.
func (l *log) add(e entry) {
	l.unwritten.Push(e)
	if l.state == idle && l.host.Go("logger", l.drain) {
		l.state = writing
	}
}

// drain writes until nothing is left.
func (l *log) drain() {
	exited := true
	defer func() {
		if exited {
			l.writerExited()
		}
	}()
	for e, ok := l.next(); ok; e, ok = l.next() {
		l.loggers.write(e)
	}
	exited = false // next has made the log idle: another goroutine may be writing by now
}

// next returns the next event to write. When there is none, the log is idle in the same step.
func (l *log) next() (entry, bool) {
	l.host.Lock()
	defer l.host.Unlock()
	e, lost, ok := l.unwritten.Pop()
	e.Lost = lost
	if !ok {
		l.state = idle
	}
	return e, ok
}

func (l *log) writerExited() {
	l.host.Lock()
	defer l.host.Unlock()
	l.state = idle
}
