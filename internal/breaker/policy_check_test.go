package breaker_test

import (
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/breaker"
	"github.com/capreg/registry/internal/check"
)

func TestPolicy_CheckedFillsInDefaults(t *testing.T) {
	t.Parallel()
	plain := breaker.Policy{FailureThreshold: 5, RecoveryTimeout: time.Minute, SuccessThreshold: 3, TrialSlots: 1}
	byRate := plain
	byRate.FailureThreshold, byRate.FailureRate, byRate.Window, byRate.MinimumCalls = 0, 0.5, 30*time.Second, 20
	growing := plain
	growing.RecoveryGrowth, growing.MaxRecoveryTimeout = 2, 10*time.Minute
	longest := growing
	longest.RecoveryTimeout, longest.MaxRecoveryTimeout = math.MaxInt64/4, math.MaxInt64/2+1
	full := breaker.Policy{
		FailureThreshold: 1, FailureRate: 1, SlowRate: 1, SlowAfter: 1, Window: 1, MinimumCalls: 1, RecoveryTimeout: 1,
		RecoveryGrowth: 1000, MaxRecoveryTimeout: 1, RecoveryJitter: 1, SuccessThreshold: 2, TrialSlots: 2,
	}
	for name, row := range map[string]struct{ given, want breaker.Policy }{
		"zero":        {breaker.Policy{}, plain},
		"rate":        {breaker.Policy{FailureRate: 0.5}, byRate},
		"growth":      {breaker.Policy{RecoveryGrowth: 2}, growing},
		"long growth": {breaker.Policy{RecoveryGrowth: 2, RecoveryTimeout: math.MaxInt64 / 4}, longest},
		"all set":     {full, full},
	} {
		got, v := row.given.Checked()
		require.Nil(t, v, name)
		require.Equal(t, row.want, got, name)
		again, v := got.Checked()
		require.Nil(t, v, name)
		require.Equal(t, got, again, name)
	}
}

func TestPolicy_CheckedRefusesWhatIsOutOfBounds(t *testing.T) {
	t.Parallel()
	type policy = breaker.Policy
	const count, part = " to 2147483647", "0 to 1"
	beyond := math.MaxInt32
	beyond++ // where an int has 32 bits it is negative, and refused as well
	for _, row := range []struct {
		given policy
		want  check.Violation
	}{
		{policy{FailureRate: -1}, check.Violation{Field: "FailureRate", Value: "-1", Bound: part}},
		{policy{FailureRate: math.NaN()}, check.Violation{Field: "FailureRate", Value: "NaN", Bound: part}},
		{policy{SlowRate: 2}, check.Violation{Field: "SlowRate", Value: "2", Bound: part}},
		{policy{RecoveryJitter: 1.5}, check.Violation{Field: "RecoveryJitter", Value: "1.5", Bound: part}},
		{policy{SlowRate: 1}, check.Violation{Field: "SlowAfter", Value: "0s", Bound: "more than 0 together with SlowRate"}},
		{policy{SlowAfter: -1}, check.Violation{Field: "SlowAfter", Value: "-1ns", Bound: "more than 0 together with SlowRate"}},
		{policy{SlowAfter: 1}, check.Violation{Field: "SlowAfter", Value: "1ns", Bound: "0 without a SlowRate"}},
		{policy{Window: 1}, check.Violation{Field: "Window", Value: "1ns", Bound: "0 (default 30s) or more, and a FailureRate or SlowRate"}},
		{policy{MinimumCalls: 1}, check.Violation{Field: "MinimumCalls", Value: "1", Bound: "0 without a FailureRate or SlowRate"}},
		{policy{RecoveryGrowth: 0.5}, check.Violation{Field: "RecoveryGrowth", Value: "0.5", Bound: "0 (default 1), or 1 to 1000"}},
		{policy{MaxRecoveryTimeout: 1}, check.Violation{Field: "MaxRecoveryTimeout", Value: "1ns", Bound: "0 or more, and a RecoveryGrowth above 1"}},
		{policy{FailureThreshold: -1}, check.Violation{Field: "FailureThreshold", Value: "-1", Bound: "0 (default 5)" + count}},
		{policy{FailureThreshold: -1, FailureRate: 1}, check.Violation{Field: "FailureThreshold", Value: "-1", Bound: "0 (default 0)" + count}},
		{policy{MinimumCalls: -1}, check.Violation{Field: "MinimumCalls", Value: "-1", Bound: "0 (default 0)" + count}},
		{policy{MinimumCalls: -1, FailureRate: 1}, check.Violation{Field: "MinimumCalls", Value: "-1", Bound: "0 (default 20)" + count}},
		{policy{SuccessThreshold: beyond}, check.Violation{Field: "SuccessThreshold", Value: strconv.Itoa(beyond), Bound: "0 (default 3)" + count}},
		{policy{TrialSlots: -1}, check.Violation{Field: "TrialSlots", Value: "-1", Bound: "0 (default 1)" + count}},
		{policy{TrialSlots: 4}, check.Violation{Field: "TrialSlots", Value: "4", Bound: "at most SuccessThreshold (3)"}},
		{policy{RecoveryTimeout: -1}, check.Violation{Field: "RecoveryTimeout", Value: "-1ns", Bound: "0 (default 60s) or more"}},
		{policy{RecoveryGrowth: 2, MaxRecoveryTimeout: 1}, check.Violation{Field: "MaxRecoveryTimeout", Value: "1ns", Bound: "at least RecoveryTimeout (1m0s)"}},
		{policy{RecoveryTimeout: -1, TrialSlots: -1}, check.Violation{Field: "TrialSlots", Value: "-1", Bound: "0 (default 1)" + count}}, // the first
	} {
		_, v := row.given.Checked()
		require.Equal(t, &row.want, v)
	}
}
