package probe

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
)

const (
	longestText     = 300 // of errors, in bytes
	longestResource = 256 // of the names of resources, in bytes
	mostResources   = 32
	mostReasons     = 16 // that a text names
)

var (
	errProbeTimeout = errors.New("probe timeout")
	errProbeStuck   = errors.New("probe does not return")
)

// Outcome says what the result of a probe means.
type Outcome uint8

// The outcomes.
const (
	// Answered is a good answer.
	Answered Outcome = iota
	// Degraded is an answer made with [health.Limp].
	Degraded
	// Failed is an error, a panic, an exit or a timeout.
	Failed
	// Suspected is a failure that is likely due to this machine: it is recorded and does not count.
	Suspected
)

func (o Outcome) failed() bool { return o == Failed || o == Suspected }

// Result is the result of one probe.
type Result struct {
	Outcome Outcome
	// Out says that the failure was made with [health.Out]: it counts as Fall failures.
	Out bool
	// Late says that there was no answer within the timeout.
	Late bool
	// Err is the error of the probe, and Text its text in one line.
	Err  error
	Text string
	// At is the time of the result.
	At time.Time
	// Took is the duration of the probe, at most its timeout.
	Took time.Duration
	// Usage has the shares of resources that the probe reported with [health.Use].
	Usage map[string]float64
}

// resultOf reads the error that a probe returned. The methods of the error are a user's: it must be called without
// the lock of the host, and exits the goroutine when they do.
func resultOf(err error, took, timeout time.Duration, usage map[string]float64) Result {
	r := Result{Err: err, At: time.Now(), Took: took, Usage: usage}
	if took >= timeout {
		r.Late, r.Took = true, timeout
		r.Err = fault.Join("", append([]error{fmt.Errorf("%w after %v", errProbeTimeout, timeout)}, fault.List(err)...))
	}
	if r.Err == nil {
		return r
	}
	r.Outcome = Failed
	switch {
	case is(err, health.IsOut): // also when it comes late
		r.Out = true
	case !r.Late && is(err, health.IsLimp):
		r.Outcome = Degraded
	}
	r.Text = oneline.Cut(fault.Text(r.Err), longestText)
	return r
}

// is asks whether an error is of a kind; its methods are a user's, and may panic.
func is(err error, kind func(error) bool) (yes bool) {
	_ = fault.Run(func() error { yes = kind(err); return nil })
	return yes
}

// stuckResult is the result of a probe that has not returned although its context has ended.
func stuckResult(timeout time.Duration) Result {
	return Result{Outcome: Failed, Late: true, Err: errProbeStuck, Text: errProbeStuck.Error(), At: time.Now(), Took: timeout}
}

// usage collects what a probe reports with [health.Use].
type usage struct {
	// mu guards the fields below: a probe may have goroutines of its own. Nothing else is locked while it is held.
	mu     sync.Mutex
	shares map[string]float64
	sealed bool
}

func (u *usage) add(resource string, share float64) {
	resource = oneline.Short(resource, longestResource)
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, known := u.shares[resource]; u.sealed || !known && len(u.shares) >= mostResources {
		return
	}
	if u.shares == nil {
		u.shares = make(map[string]float64)
	}
	u.shares[resource] = share
}

// seal ends the collection and returns it: what is reported later is dropped.
func (u *usage) seal() map[string]float64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.sealed = true
	return u.shares
}
