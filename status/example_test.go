package status_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// Two models behind one key: one uses a place, and a rate limit keeps both away.
func ExampleDomain() {
	ctx := context.Background()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = reg.Close(ctx) }()
	models := registry.NewService[string]("models")
	large, err1 := models.Register(ctx, reg, registry.Provider[string]{
		Name: "large", Instance: "large", Domain: "key", Limits: registry.LimitPolicy{MaxConcurrent: 4},
	})
	small, err2 := models.Register(ctx, reg, registry.Provider[string]{Name: "small", Instance: "small", Domain: "key"})
	if err := errors.Join(err1, err2); err != nil {
		panic(err)
	}
	lease, err := models.Bind(reg, registry.Query{}).Acquire(ctx)
	if err != nil {
		panic(err)
	}
	fmt.Println("places:", small.Info().InUse.Places, "of", small.Info().Limits.MaxConcurrent)
	lease.Done(verdict.RateLimited(errors.New("slow down"), time.Minute))

	describe := func(shared status.Domain) {
		fmt.Println(shared.Members, "members, cooling down:", shared.Cooldown.Class, "by", shared.Cooldown.By, "asked:", shared.Cooldown.Asked)
	}
	describe(large.Info().Shared)
	// Output:
	// places: 1 of 4
	// 2 members, cooling down: rate limited by models/large asked: true
}
