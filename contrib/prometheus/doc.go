// Package registryprom shows the measurements of a registry to Prometheus.
//
// A [Collector] reads them when it is scraped: what has left the registry is not in the next scrape, and nothing runs
// between two of them. Calls do not pay for it. Labels have the words of the packages verdict, reason, event, health,
// status and startup, so that a dashboard, a log and an error say the same.
//
//	prometheus.MustRegister(registryprom.New(reg, registryprom.Options{}))
//	http.Handle("GET /metrics", promhttp.Handler())
//
// Durations are histograms with the doublings of 5 ms as buckets, and native histograms for servers that ask for
// these. Counters of known labels begin at 0, so that a rate sees the first of them.
//
// The folder rules has recording rules and alerts, the folder dashboards a dashboard for Grafana.
package registryprom
