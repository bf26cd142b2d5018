package limit_test

import (
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/limit"
)

func TestPolicy_CheckedFillsInDefaults(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ given, want limit.Policy }{
		{limit.Policy{}, limit.Policy{}},
		{limit.Policy{Bulkhead: true}, limit.Policy{Bulkhead: true, MaxConcurrent: 10, MaxQueue: 50, MaxWait: 30 * time.Second}},
		{limit.Policy{MaxQueue: 1}, limit.Policy{Bulkhead: true, MaxConcurrent: 10, MaxQueue: 1, MaxWait: 30 * time.Second}},
		{limit.Policy{MaxWait: 1}, limit.Policy{Bulkhead: true, MaxConcurrent: 10, MaxQueue: 50, MaxWait: 1}},
		{limit.Policy{NoQueue: true}, limit.Policy{Bulkhead: true, MaxConcurrent: 10, NoQueue: true}},
		{limit.Policy{MaxConcurrent: 1, NoQueue: true}, limit.Policy{Bulkhead: true, MaxConcurrent: 1, NoQueue: true}},
		{
			limit.Policy{MaxConcurrent: 1},
			limit.Policy{Bulkhead: true, MaxConcurrent: 1, MaxQueue: 50, MaxWait: 30 * time.Second},
		},
		{limit.Policy{Rate: 0.5}, limit.Policy{Rate: 0.5, Burst: 1}},
		{limit.Policy{Rate: 1.5}, limit.Policy{Rate: 1.5, Burst: 2}},
		{limit.Policy{Rate: 1.5, Burst: 1}, limit.Policy{Rate: 1.5, Burst: 1}},
	} {
		got, v := row.given.Checked()
		require.Nil(t, v)
		require.Equal(t, row.want, got)
		again, v := got.Checked()
		require.Nil(t, v)
		require.Equal(t, got, again)
	}
}

func TestPolicy_CheckedRefusesWhatIsOutOfBounds(t *testing.T) {
	t.Parallel()
	beyond := math.MaxInt32
	beyond++ // where an int has 32 bits it is negative, and refused as well
	type policy = limit.Policy
	for _, row := range []struct {
		given policy
		want  check.Violation
	}{
		{policy{MaxConcurrent: -1}, check.Violation{Field: "MaxConcurrent", Value: "-1", Bound: "0 (default 10) to 2147483647"}},
		{policy{MaxQueue: beyond}, check.Violation{Field: "MaxQueue", Value: strconv.Itoa(beyond), Bound: "0 (default 50) to 2147483647"}},
		{policy{Burst: -1}, check.Violation{Field: "Burst", Value: "-1", Bound: "0 (default 0) to 2147483647"}},
		{policy{MaxWait: -1}, check.Violation{Field: "MaxWait", Value: "-1ns", Bound: "0 (default 30s) or more"}},
		{policy{NoQueue: true, MaxQueue: 1}, check.Violation{Field: "NoQueue", Value: "true", Bound: "false together with MaxQueue or MaxWait"}},
		{policy{NoQueue: true, MaxWait: 1}, check.Violation{Field: "NoQueue", Value: "true", Bound: "false together with MaxQueue or MaxWait"}},
		{policy{Rate: math.NaN()}, check.Violation{Field: "Rate", Value: "NaN", Bound: "0 (any rate) to 2147483647 a second"}},
		{policy{Burst: 1}, check.Violation{Field: "Burst", Value: "1", Bound: "0 without a Rate"}},
	} {
		_, v := row.given.Checked()
		require.Equal(t, &row.want, v)
	}
}

func TestRetryPolicy_CheckedFillsInDefaults(t *testing.T) {
	t.Parallel()
	usual := limit.RetryPolicy{FirstDelay: 200 * time.Millisecond, MaxDelay: 5 * time.Second, Budget: 10, Refund: 0.1, Floor: 0.5}
	slow := usual
	slow.Retries, slow.FirstDelay, slow.MaxDelay = 100, time.Minute, time.Minute
	set := limit.RetryPolicy{Retries: 1, FirstDelay: 1, MaxDelay: limit.LongestDelay, Budget: 1, Refund: 1, Floor: 1}
	for _, row := range []struct{ given, want limit.RetryPolicy }{
		{limit.RetryPolicy{}, usual},
		{limit.RetryPolicy{Retries: 100, FirstDelay: time.Minute}, slow},
		{set, set},
	} {
		got, v := row.given.Checked()
		require.Nil(t, v)
		require.Equal(t, row.want, got)
	}
}

func TestRetryPolicy_CheckedRefusesWhatIsOutOfBounds(t *testing.T) {
	t.Parallel()
	type policy = limit.RetryPolicy
	for _, row := range []struct {
		given policy
		want  check.Violation
	}{
		{policy{Retries: 101}, check.Violation{Field: "Retries", Value: "101", Bound: "0 to 100"}},
		{policy{FirstDelay: -1}, check.Violation{Field: "FirstDelay", Value: "-1ns", Bound: "0 (default 200ms) to 87600h0m0s"}},
		{policy{MaxDelay: limit.LongestDelay + 1}, check.Violation{Field: "MaxDelay", Value: "87600h0m0.000000001s", Bound: "0 (default 5s) to 87600h0m0s"}},
		{policy{Budget: -1}, check.Violation{Field: "Budget", Value: "-1", Bound: "0 (default 10) to 2147483647"}},
		{policy{Refund: 0.0001}, check.Violation{Field: "Refund", Value: "0.0001", Bound: "0 (default 0.1), or 0.001 to 1"}},
		{policy{Floor: math.Inf(1)}, check.Violation{Field: "Floor", Value: "+Inf", Bound: "0 (default 0.5) to 2147483647 a second"}},
		{policy{MaxDelay: 1}, check.Violation{Field: "MaxDelay", Value: "1ns", Bound: "at least FirstDelay (200ms)"}},
	} {
		_, v := row.given.Checked()
		require.Equal(t, &row.want, v)
	}
}
