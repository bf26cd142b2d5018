package breaker

import (
	"cmp"
	"fmt"
	"math"
	"time"

	"github.com/capreg/registry/internal/check"
)

// Checked returns the policy with its defaults filled in, or the first field that is out of bounds.
func (p Policy) Checked() (Policy, *check.Violation) {
	v := cmp.Or(checkRates(&p), checkGrowth(&p))
	if v == nil {
		v = cmp.Or(fillCounts(&p), fillTimes(&p), checkTrials(&p))
	}
	return p, v
}

// checkRates checks the rates, and that what belongs to a rate comes with one.
func checkRates(p *Policy) *check.Violation {
	part := check.Range[float64]{Max: 1}
	if v := cmp.Or(part.Check("FailureRate", p.FailureRate), part.Check("SlowRate", p.SlowRate),
		part.Check("RecoveryJitter", p.RecoveryJitter)); v != nil {
		return v
	}
	switch {
	case p.SlowAfter < 0 || p.SlowRate > 0 && p.SlowAfter == 0:
		return check.Refuse("SlowAfter", p.SlowAfter, "more than 0 together with SlowRate")
	case p.SlowAfter > 0 && p.SlowRate == 0:
		return check.Refuse("SlowAfter", p.SlowAfter, "0 without a SlowRate")
	case p.Window < 0 || p.Window > 0 && !p.hasRate():
		return check.Refuse("Window", p.Window, windows.String())
	case p.MinimumCalls > 0 && !p.hasRate():
		return check.Refuse("MinimumCalls", p.MinimumCalls, "0 without a FailureRate or SlowRate")
	}
	return nil
}

// windows are the windows that a policy with a rate may have.
var windows = check.Range[time.Duration]{ //nolint:gochecknoglobals // immutable
	Default: 30 * time.Second, Suffix: ", and a FailureRate or SlowRate",
}

// checkGrowth checks the growth of the recovery time.
func checkGrowth(p *Policy) *check.Violation {
	if v := (check.Range[float64]{Zero: "default 1", Min: 1, Max: 1000}).Check("RecoveryGrowth", p.RecoveryGrowth); v != nil {
		return v
	}
	if p.MaxRecoveryTimeout < 0 || p.MaxRecoveryTimeout > 0 && p.RecoveryGrowth <= 1 {
		return check.Refuse("MaxRecoveryTimeout", p.MaxRecoveryTimeout, "0 or more, and a RecoveryGrowth above 1")
	}
	return nil
}

// fillCounts checks the thresholds and fills in their defaults, which differ with a rate.
func fillCounts(p *Policy) *check.Violation {
	failures := check.Range[int]{Default: 5, Max: math.MaxInt32}
	minimum := check.Range[int]{Zero: "default 0", Max: math.MaxInt32}
	if p.hasRate() {
		failures, minimum = minimum, check.Range[int]{Default: 20, Max: math.MaxInt32}
	}
	return cmp.Or(
		failures.Fill("FailureThreshold", &p.FailureThreshold),
		minimum.Fill("MinimumCalls", &p.MinimumCalls),
		check.Range[int]{Default: 3, Max: math.MaxInt32}.Fill("SuccessThreshold", &p.SuccessThreshold),
		check.Range[int]{Default: 1, Max: math.MaxInt32}.Fill("TrialSlots", &p.TrialSlots),
	)
}

// fillTimes checks the window and the recovery times, and fills in their defaults.
func fillTimes(p *Policy) *check.Violation {
	if p.hasRate() {
		_ = windows.Fill("Window", &p.Window) // which checkRates has checked
	}
	recovery := check.Range[time.Duration]{Default: 60 * time.Second, Zero: "default 60s"}
	if v := recovery.Fill("RecoveryTimeout", &p.RecoveryTimeout); v != nil || p.RecoveryGrowth <= 1 {
		return v
	}
	if p.MaxRecoveryTimeout == 0 {
		p.MaxRecoveryTimeout = time.Duration(min(float64(p.RecoveryTimeout)*10, float64(math.MaxInt64/2)))
	}
	if p.MaxRecoveryTimeout < p.RecoveryTimeout {
		return check.Refuse("MaxRecoveryTimeout", p.MaxRecoveryTimeout,
			fmt.Sprintf("at least RecoveryTimeout (%v)", p.RecoveryTimeout))
	}
	return nil
}

// checkTrials checks that no trial begins that could not count.
func checkTrials(p *Policy) *check.Violation {
	if p.TrialSlots > p.SuccessThreshold {
		return check.Refuse("TrialSlots", p.TrialSlots, fmt.Sprintf("at most SuccessThreshold (%d)", p.SuccessThreshold))
	}
	return nil
}
