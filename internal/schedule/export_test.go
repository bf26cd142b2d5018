package schedule

// LateAlarm acts like the goroutine of an alarm that is late
// between its deadline and its first instruction.
func (s *Scheduler) LateAlarm() { s.runDue() }
