package schedule

// LateAlarm does what the goroutine of a stale alarm does, one that was overtaken by others
// between its deadline and its first instruction.
func (s *Scheduler) LateAlarm() { s.runDue() }
