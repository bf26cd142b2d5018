//go:build !race

package selectors_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/selectors"
)

func TestPick_AllocatesNothing(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts all goroutines
	for _, s := range selectors.All() {
		for _, n := range []int{1, 8, 64, 1000} {
			g := measured(n, true)
			look, selector := g.look(), s.Selector()
			epoch := time.Now()
			look.Now, look.Epoch = 0, &epoch
			require.Zero(t, testing.AllocsPerRun(100, func() { selector.Pick(g.set.With(look)) }), "%v of %d", s, n)
		}
	}
}
