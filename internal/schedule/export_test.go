package schedule

// LateAlarm is what the goroutine of an alarm does that was overtaken by others
// between its deadline and its first instruction.
func (s *Scheduler) LateAlarm() { s.runDue() }
