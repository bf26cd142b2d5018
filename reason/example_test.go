package reason_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/reason"
)

// A program decides on the codes, and shows the words.
func ExampleCode() {
	ctx := context.Background()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = reg.Close(ctx) }()
	models := registry.NewService[string]("models")
	cloud, err1 := models.Register(ctx, reg, registry.Provider[string]{Name: "cloud", Instance: "a client"})
	local, err2 := models.Register(ctx, reg, registry.Provider[string]{Name: "local", Instance: "another"})
	if err := errors.Join(err1, err2); err != nil {
		panic(err)
	}
	if err := errors.Join(cloud.ForceOpen(time.Hour, "maintenance"), local.MarkUnhealthy(errors.New("no route"))); err != nil {
		panic(err)
	}
	for _, candidate := range models.Bind(reg, registry.Query{}).Explain().Candidates {
		switch candidate.Code {
		case reason.BreakerOpen, reason.CoolingDown:
			fmt.Println(candidate.Provider, "comes back by itself:", candidate.Reason)
		case reason.Unhealthy, reason.Parked:
			fmt.Println(candidate.Provider, "needs a look:", candidate.Reason)
		default:
			fmt.Println(candidate.Provider, candidate.Code)
		}
	}
	// Output:
	// cloud comes back by itself: breaker open (maintenance)
	// local needs a look: unhealthy: no route
}

// Why tells failovers from hedges and retries.
func ExampleWhy() {
	ctx := context.Background()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = reg.Close(ctx) }()
	models := registry.NewService[string]("models")
	for _, name := range []string{"cloud", "local"} {
		if _, err := models.Register(ctx, reg, registry.Provider[string]{Name: name, Instance: name}); err != nil {
			panic(err)
		}
	}
	var report registry.CallReport
	_, err = registry.Call(ctx, models.Bind(reg, registry.Query{}), func(_ context.Context, name string) (string, error) {
		if name == "cloud" {
			return "", errors.New("connection reset")
		}
		return "hello", nil
	}, registry.ReportTo(&report))
	for _, attempt := range report.Attempts {
		fmt.Println(attempt.Provider, attempt.Why, attempt.Why == reason.Failover)
	}
	fmt.Println(err)
	// Output:
	// cloud first false
	// local failover true
	// <nil>
}
