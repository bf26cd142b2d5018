package refusal_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/refusal"
)

func TestNotProven_SaysWhatKeepsANewcomerFromJoining(t *testing.T) {
	out := refusal.CapabilityOut("db", "no route", errSick)
	for name, test := range map[string]struct {
		gate    refusal.Gate
		out     *refusal.Reason
		late    bool
		words   string
		matches []error
	}{
		"not ended":         {refusal.Proving, nil, false, "its factory or a probe has not ended", nil},
		"not ended, late":   {refusal.Proving, nil, true, "its factory or a probe has not ended; its time is over", nil},
		"factory":           {refusal.Proving | refusal.NotReady, nil, false, "not ready: boom", []error{errMade}},
		"probe":             {refusal.Unproven, nil, false, "not ready: starting: warming up", []error{errProof}},
		"health":            {refusal.Unhealthy, out, true, "unhealthy: probe failed; its time is over", []error{fault.ErrUnhealthy, errSick}},
		"capability":        {refusal.Proving, out, false, `capability "db" is unhealthy: no route`, []error{fault.ErrUnhealthy, errSick}},
		"what others cause": {refusal.Open | refusal.Cooling | refusal.Hidden | refusal.NoTraffic, nil, false, "its factory or a probe has not ended", nil},
	} {
		t.Run(name, func(t *testing.T) {
			why := refusal.NotProven(test.gate, &known{}, test.out, test.late, now)
			require.EqualError(t, why, test.words)
			require.ErrorIs(t, why, fault.ErrNotReady)
			for _, match := range test.matches {
				require.ErrorIs(t, why, match)
			}
			var standing refusal.Standing
			standing.Refuse(why, 0)
			require.EqualValues(t, "not_ready", standing.Code)
		})
	}
	require.EqualError(t, out, `capability "db" is unhealthy: no route`, "the reason of others stays as it is")
}
