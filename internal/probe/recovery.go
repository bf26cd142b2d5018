package probe

import (
	"context"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/verdict"
)

const (
	firstRecoveryDelay = time.Second
	lastRecoveryDelay  = time.Minute
)

// The states of the recovery of a provider:
//
//	state    event                                    next
//	-------  ---------------------------------------  --------------------------------------------------
//	idle     Recover                                  running; delayed while a dependency is the cause
//	delayed  timer, Recover                           as from idle
//	delayed  ResetRecovery, policy replaced           idle
//	running  the hook succeeds                        idle, and the provider is probed
//	running  the hook fails                           delayed; idle after RecoverLimit runs
//	running  returns after the policy was replaced    as Recover from idle
//
// A running hook is not interrupted by a reset: one runs at a time, whatever the policy.
type recoveryState uint8

const (
	recoveryIdle recoveryState = iota
	recoveryDelayed
	recoveryRunning
)

// recovery runs the recovery hook of a provider. The lock of the host guards it.
type recovery struct {
	state  recoveryState
	runs   int                         // since the provider became unhealthy
	delays *backoff.ExponentialBackOff // nil before the first failure
	timer  *schedule.Timer             // set while delayed
}

func (r *recovery) stopTimer() {
	if r.state == recoveryDelayed {
		r.timer.Stop()
		r.timer, r.state = nil, recoveryIdle
	}
}

// changePolicy ends a delay of the policy before. The count of runs goes on where the watch does.
func (r *recovery) changePolicy(goesOn bool) {
	r.stopTimer()
	r.delays = nil
	if !goesOn {
		r.runs = 0
	}
}

// ResetRecovery sets the count of runs to zero, for the next time that the provider is unhealthy.
func (w *Watch) ResetRecovery() {
	if w.Active() {
		w.recovery.changePolicy(false)
	}
}

// Recover runs the recovery hook where the subject needs it, unless it runs already or has reached its limit. While
// the need is postponed, it tries later.
func (w *Watch) Recover() {
	if !w.Active() || w.subject.Left() {
		return
	}
	m, r := w.monitor, &w.recovery
	if m.policy.Recover == nil || r.state == recoveryRunning || r.runs >= m.policy.RecoverLimit {
		return
	}
	switch need := w.subject.RecoveryNeed(); {
	case need == RecoveryNotNeeded:
	case need == RecoveryPostponed, m.machine.answersAgain():
		w.delayRecovery(m.policy.FastInterval)
	default:
		r.stopTimer()
		r.runs++
		if w.queue.host.Go(fmt.Sprintf("recovery of provider %q", w.id.Name), func() { w.runRecovery(m) }) {
			r.state = recoveryRunning
		}
	}
}

func (w *Watch) delayRecovery(delay time.Duration) {
	host := w.queue.host
	w.recovery.stopTimer()
	w.recovery.state = recoveryDelayed
	w.recovery.timer = host.After(delay, func() {
		host.Lock()
		defer host.Unlock()
		w.Recover()
	})
}

// runRecovery runs the hook of the monitor's policy, in a goroutine of its own.
func (w *Watch) runRecovery(m *monitor) {
	ctx, cancel := context.WithTimeout(m.life, m.policy.RecoverTimeout)
	failure := error(&verdict.PanicError{})
	text := failure.Error() // what remains when the methods of the error exit the goroutine
	defer func() {
		cancel()
		w.recoveryReturned(m, failure, text)
	}()
	fault.RunThen(func() error { return m.policy.Recover(ctx) }, func(err error) {
		failure = err
		text = oneline.Cut(fault.Text(err), longestText)
	})
}

func (w *Watch) recoveryReturned(m *monitor, err error, text string) {
	host, r := w.queue.host, &w.recovery
	host.Lock()
	defer host.Unlock()
	r.state = recoveryIdle
	if !m.current() {
		w.Recover() // by the present policy
		return
	}
	if err == nil {
		w.subject.Publish(event.Event{Kind: event.Recovered})
		if c := m.ownCheck(); c != nil {
			w.queue.enqueue(c, urgent)
		}
		return
	}
	last := r.runs >= m.policy.RecoverLimit
	if last {
		text += fmt.Sprintf(" (the last of %d tries)", m.policy.RecoverLimit)
	}
	w.subject.Publish(event.Event{Kind: event.RecoveryFailed, Reason: text, Err: err})
	if !last {
		w.delayRecovery(r.nextDelay())
	}
}

func (r *recovery) nextDelay() time.Duration {
	if r.delays == nil {
		r.delays = backoff.NewExponentialBackOff(backoff.WithInitialInterval(firstRecoveryDelay),
			backoff.WithMultiplier(2), backoff.WithMaxInterval(lastRecoveryDelay), backoff.WithMaxElapsedTime(0))
	}
	return r.delays.NextBackOff()
}
