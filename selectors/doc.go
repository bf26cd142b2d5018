// Package selectors provides strategies beside the two that every registry has: for
// Provider.Strategy of the registry, and for configuration through Options.Strategies and
// [All].
//
// # Which one
//
//   - [WeightedRoundRobin]: known shares, exact over any stretch of picks.
//   - [Random]: the same shares, by chance; cores share nothing but a counter.
//   - [LeastLoaded]: requests differ in length, providers do not.
//   - [LatencyAware]: providers differ, and change. A good default for remote ones.
//   - [Scored]: several factors matter at once, and picks must be explainable.
//   - [Sticky]: a session, a user or a prompt stays with one provider as long as that is
//     eligible.
//
// All of them pick among the eligible candidates of one group in the goroutine of the look-up,
// take no lock and allocate nothing for groups of up to 64 members. They heed weights
// (Provider.Weight, reduced by the slow start of [selection.Policy]), and are safe for
// concurrent use. They use only what a [selection.View] offers to every selector.
//
// Resolver.Explain predicts the next pick, random ones included, as long as there is no other
// pick in between.
package selectors

import "github.com/capreg/registry/selection"

// All returns every strategy of the package with its default settings, for Options.Strategies,
// so that configuration can name them.
func All() []selection.Strategy {
	return []selection.Strategy{WeightedRoundRobin(), Random(), LeastLoaded(), LatencyAware(), Scored(), Sticky()}
}
