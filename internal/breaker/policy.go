package breaker

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/capreg/registry/internal/window"
)

// Policy configures a breaker. Its owner documents the fields; [Policy.Checked] checks them and
// fills in the defaults. After that a rate comes with a Window and MinimumCalls, and
// RecoveryTimeout, SuccessThreshold and TrialSlots are more than zero.
type Policy struct {
	FailureThreshold int     // failures in a row that open; zero: no such rule
	FailureRate      float64 // part of the outcomes in the Window; zero: no such rule
	SlowRate         float64 // part of the outcomes in the Window; zero: no such rule
	SlowAfter        time.Duration
	Window           time.Duration
	MinimumCalls     int // outcomes in the Window below which no rate is reached

	RecoveryTimeout    time.Duration
	RecoveryGrowth     float64 // for each failed recovery; 1 or less: none
	MaxRecoveryTimeout time.Duration
	RecoveryJitter     float64 // part of the recovery time that is random
	SuccessThreshold   int     // trials that have to succeed
	TrialSlots         int     // trials at once
}

func (p Policy) hasRate() bool { return p.FailureRate > 0 || p.SlowRate > 0 }

// hangThreshold returns the number of unanswered calls in a row from which on they are failures.
func (p Policy) hangThreshold() int {
	if p.FailureThreshold > 0 {
		return p.FailureThreshold
	}
	return 5
}

// rateReached says which rate the counts reach; "" for none.
func (p Policy) rateReached(c window.Counts) string {
	switch {
	case c.Total == 0 || c.Total < p.MinimumCalls:
	case p.FailureRate > 0 && float64(c.Bad) >= p.FailureRate*float64(c.Total):
		return fmt.Sprintf("%d of %d outcomes failures within %v", c.Bad, c.Total, p.Window)
	case p.SlowRate > 0 && float64(c.Slow) >= p.SlowRate*float64(c.Total):
		return fmt.Sprintf("%d of %d outcomes slow within %v", c.Slow, c.Total, p.Window)
	}
	return ""
}

// openFor returns the recovery time after that many failed recoveries.
func (p Policy) openFor(failedRecoveries int) time.Duration {
	length := float64(p.RecoveryTimeout)
	if p.RecoveryGrowth > 1 {
		length = min(length*math.Pow(p.RecoveryGrowth, float64(failedRecoveries)), float64(p.MaxRecoveryTimeout))
	}
	if p.RecoveryJitter > 0 {
		length -= length * p.RecoveryJitter * rand.Float64() //nolint:gosec // jitter
	}
	return max(time.Duration(min(length, float64(math.MaxInt64/2))), 1)
}
