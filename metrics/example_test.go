package metrics_test

import (
	"context"
	"fmt"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/metrics"
)

// A collector of one's own prints how many attempts ended how.
func ExampleSnapshot() {
	ctx := context.Background()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	models := registry.NewService[string]("llm")
	if _, err := models.Register(ctx, reg, registry.Provider[string]{Name: "cloud", Instance: "a client"}); err != nil {
		panic(err)
	}
	ask := func(context.Context, string) error { return nil }
	if err := models.Bind(reg, registry.Query{}).Do(ctx, ask); err != nil {
		panic(err)
	}
	for _, p := range reg.Metrics().Providers {
		for _, o := range p.Attempts {
			fmt.Printf("%s/%s: %d × %v\n", p.Service, p.Name, o.Duration.Count, o.Class)
		}
	}
	// Output: llm/cloud: 1 × success
}

// Nine calls of ten were answered within a second, if the ninth of ten was.
func ExampleHistogram_Quantile() {
	durations := metrics.Histogram{Count: 10, Buckets: []metrics.Bucket{
		{Above: 0.3125, AtMost: 0.5, Count: 9}, {Above: 64, AtMost: 81.92, Count: 1},
	}}
	fmt.Println(durations.Quantile(0.9) < time.Second, durations.Quantile(0.99) < time.Second)
	// Output: true false
}
