package schedule

import "time"

// LateAlarm acts like the goroutine of an alarm that is late
// between its deadline and its first instruction.
func (s *Scheduler) LateAlarm() { s.runDue() }

// AlarmIn returns the time until the alarm goes off.
func (s *Scheduler) AlarmIn() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set - s.Now()
}
