// Package registryprom shows the measurements of a registry to Prometheus.
//
// A [Collector] reads them when it is scraped: what has left the registry is not in the next scrape, and nothing runs
// between two of them. Calls do not pay for it. Labels have the words of the packages verdict, reason, event, health,
// status and startup, so that a dashboard, a log and an error say the same.
//
//	http.Handle("GET /metrics", registryprom.New(reg, registryprom.Options{}).Handler(prometheus.DefaultGatherer))
//
// A program that has a [prometheus.Registry] of its own can register the collector there, or name it in the place of
// prometheus.DefaultGatherer, which is faster with many providers.
//
// Durations are histograms with the doublings of 5 ms as buckets, those of attempts with every other one, and native
// histograms for servers that ask for these. Counters of what can happen begin at 0, so that a rate sees the first of it.
//
// The folder rules has recording rules and alerts, the folder dashboards a dashboard for Grafana.
package registryprom
