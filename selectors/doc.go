// Package selectors holds the strategies that are ready to use beside the two that
// every registry brings: for Provider.Strategy of the registry, and for configuration
// through Options.Strategies and [All].
//
// # Which one
//
//   - [WeightedRoundRobin]: shares that you know, exact over any stretch of picks.
//   - [Random]: the same shares, by chance; nothing is shared between cores but a count.
//   - [LeastLoaded]: requests differ in length, providers do not.
//   - [LatencyAware]: providers differ, and change. A good default for remote ones.
//   - [Scored]: several things matter at once, and somebody will ask why.
//   - [Sticky]: a session, a user or a prompt stays with one provider as long as that
//     can be asked.
//
// All of them pick among the eligible candidates of one group in the goroutine of the
// look-up, take no lock and allocate nothing for groups of up to 64 members. They heed
// weights (Provider.Weight, reduced by the slow start of
// [selection.Policy]), and are safe for concurrent use. None is better than a
// selector of your own: they know what a [selection.View] shows.
//
// A pick is foretold by Resolver.Explain, random ones included, as long as
// nobody else picks in between.
package selectors

import "github.com/capreg/registry/selection"

// All returns every strategy of the package with its default settings: for
// Options.Strategies, so that configuration can name them.
func All() []selection.Strategy {
	return []selection.Strategy{WeightedRoundRobin(), Random(), LeastLoaded(), LatencyAware(), Scored(), Sticky()}
}
