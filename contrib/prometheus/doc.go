// Package registryprom shows the measurements of a registry to Prometheus.
//
// A [Collector] reads them when it is scraped, and keeps nothing itself: what has left the registry is not in the next
// scrape, and nothing runs between two of them. Labels have the words of the packages verdict, reason, event and
// health, so that a dashboard, a log and an error say the same.
//
//	prometheus.MustRegister(registryprom.New(reg, registryprom.Options{}))
//
// Durations are histograms with the doublings of 5 ms as buckets, and native histograms for servers that ask for
// these. Counters of known label sets begin at 0. The folder rules has recording rules and alerts.
package registryprom
