package limit

import (
	"cmp"
	"fmt"
	"math"
	"time"

	"github.com/capreg/registry/internal/check"
)

// Policy configures [Limits]; [Policy.Checked] fills in its defaults. The registry documents its fields under the
// name LimitPolicy.
type Policy struct {
	Bulkhead      bool
	MaxConcurrent int
	MaxQueue      int
	NoQueue       bool
	MaxWait       time.Duration
	Rate          float64
	Burst         int
}

// Checked returns the policy with its defaults filled in, or the first field that is out of bounds.
func (p Policy) Checked() (Policy, *check.Violation) {
	concurrent := check.Range[int]{Default: 10, Max: math.MaxInt32}
	queue := check.Range[int]{Default: 50, Max: math.MaxInt32}
	wait := check.Range[time.Duration]{Default: 30 * time.Second}
	if v := cmp.Or(
		concurrent.Check("MaxConcurrent", p.MaxConcurrent),
		queue.Check("MaxQueue", p.MaxQueue),
		check.Range[int]{Zero: "default 0", Max: math.MaxInt32}.Check("Burst", p.Burst),
		wait.Check("MaxWait", p.MaxWait),
	); v != nil {
		return p, v
	}
	if p.NoQueue && (p.MaxQueue > 0 || p.MaxWait > 0) {
		return p, check.Refuse("NoQueue", true, "false together with MaxQueue or MaxWait")
	}
	if v := (check.Range[float64]{Zero: "any rate", Max: math.MaxInt32, Suffix: " a second"}).Check("Rate", p.Rate); v != nil {
		return p, v
	}
	if p.Burst > 0 && p.Rate == 0 {
		return p, check.Refuse("Burst", p.Burst, "0 without a Rate")
	}
	if p.Bulkhead || p.MaxConcurrent > 0 || p.MaxQueue > 0 || p.NoQueue || p.MaxWait > 0 {
		p.Bulkhead = true
		p.MaxConcurrent = cmp.Or(p.MaxConcurrent, concurrent.Default)
		if !p.NoQueue {
			p.MaxQueue, p.MaxWait = cmp.Or(p.MaxQueue, queue.Default), cmp.Or(p.MaxWait, wait.Default)
		}
	}
	if p.Rate > 0 {
		p.Burst = cmp.Or(p.Burst, int(math.Ceil(p.Rate)))
	}
	return p, nil
}

// RetryPolicy configures the delays of retries and a [Budget]; [RetryPolicy.Checked] fills in its defaults. The
// registry documents its fields under the same name.
type RetryPolicy struct {
	Retries    int
	FirstDelay time.Duration
	MaxDelay   time.Duration
	Budget     int     // tokens of a full budget
	Refund     float64 // part of a token, 0.001 to 1, that a success gives back
	Floor      float64 // rate of attempts, per second, that are allowed whatever the budget
}

// LongestDelay bounds the delays between retries.
const LongestDelay = 10 * 365 * 24 * time.Hour

// Checked returns the policy with its defaults filled in, or the first field that is out of bounds. Only Retries may
// be zero then.
func (p RetryPolicy) Checked() (RetryPolicy, *check.Violation) {
	longest := check.Range[time.Duration]{Default: 5 * time.Second, Max: LongestDelay}
	if v := cmp.Or(
		check.Range[int]{Max: 100}.Check("Retries", p.Retries),
		check.Range[time.Duration]{Default: 200 * time.Millisecond, Max: LongestDelay}.Fill("FirstDelay", &p.FirstDelay),
		longest.Check("MaxDelay", p.MaxDelay),
		check.Range[int]{Default: 10, Max: math.MaxInt32}.Fill("Budget", &p.Budget),
		check.Range[float64]{Default: 0.1, Min: 0.001, Max: 1}.Fill("Refund", &p.Refund),
		check.Range[float64]{Default: 0.5, Max: math.MaxInt32, Suffix: " a second"}.Fill("Floor", &p.Floor),
	); v != nil {
		return p, v
	}
	p.MaxDelay = cmp.Or(p.MaxDelay, max(longest.Default, p.FirstDelay))
	if p.MaxDelay < p.FirstDelay {
		return p, check.Refuse("MaxDelay", p.MaxDelay, fmt.Sprintf("at least FirstDelay (%v)", p.FirstDelay))
	}
	return p, nil
}
