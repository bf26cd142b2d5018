// This file shows two providers that are described in full: what they can do and need,
// how much at once, how long it takes, what it costs, and where to read about them.
// Registration.Definition returns the description, and as JSON it can be published.

package main

import (
	"context"
	"errors"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/examples/agent/internal/tool"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/probes"
)

// dataAnalyst calculates, in this process: what it costs is the processor.
func dataAnalyst() registry.Provider[tool.Tool] {
	return registry.Provider[tool.Tool]{
		Name: "data-analyst", Version: "2.1.0", Description: "describes the figures of a text",
		Capabilities: []string{"data_analysis", "statistics"}, Requires: []string{"web_scraping"},
		Tags: []string{"deterministic", "in-process"}, Priority: registry.PriorityHigh, Cost: 0.001,
		Team: "insight", Documentation: "https://pkg.go.dev/math", ExpectedResponse: 50 * time.Millisecond,

		Instance:       tool.Analyst{},
		Limits:         registry.LimitPolicy{MaxConcurrent: 4, MaxQueue: 16, MaxWait: 2 * time.Second},
		AttemptTimeout: 5 * time.Second,
		Breaker:        registry.BreakerPolicy{FailureThreshold: 5, RecoveryTimeout: 60 * time.Second, SuccessThreshold: 3},
		Health: health.Policy{
			Interval: 30 * time.Second, Expected: 50 * time.Millisecond,
			Probe: func(ctx context.Context) error {
				_, err := tool.Analyst{}.Use(ctx, "1 and 2")
				return err
			},
		},
	}
}

// webScraper reads pages of others: a few at once, not too many a second, again where
// the network failed, and away from a caller in time.
func webScraper(page string) (registry.Provider[tool.Tool], error) {
	p := registry.Provider[tool.Tool]{
		Name: "web-scraper", Version: "1.4.0", Description: "reads the text of a page",
		Capabilities: []string{"web_scraping", "http"}, Tags: []string{"network"}, Cost: 0.002, Endpoint: page,
		Team: "harvest", Documentation: "https://pkg.go.dev/net/http", ExpectedResponse: 500 * time.Millisecond,

		Factory:        func(context.Context) (tool.Tool, error) { return tool.NewScraper(), nil },
		Limits:         registry.LimitPolicy{MaxConcurrent: 8, MaxQueue: 32, MaxWait: 5 * time.Second, Rate: 20, Burst: 40},
		Retry:          registry.RetryPolicy{Retries: 2, FirstDelay: 100 * time.Millisecond, MaxDelay: time.Second},
		AttemptTimeout: 10 * time.Second,
		Breaker:        registry.BreakerPolicy{FailureThreshold: 3, RecoveryTimeout: 30 * time.Second, SuccessThreshold: 2},
	}
	if page == "" {
		return p, nil
	}
	p.Endpoints = map[string]string{"health": page}
	probe, err := probes.HTTP(page, probes.HTTPOptions{})
	p.Health = health.Policy{Probe: probe, Interval: 30 * time.Second, Timeout: 2 * time.Second, Expected: 500 * time.Millisecond}
	return p, err
}

// registerTools registers both for all handlers.
func (a *agent) registerTools(ctx context.Context) error {
	scraper, err := webScraper(a.backends.page)
	if err != nil {
		return err
	}
	_, err = Tool.Register(ctx, a.registry, scraper)
	_, analyst := Tool.Register(ctx, a.registry, dataAnalyst())
	return errors.Join(err, analyst)
}
