package bitset_test

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/bitset"
)

func TestMaskAndCount_AgreeWithHas(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, 63, 64, 65, 127, 128, 129, 200, 5000} {
		set := bitset.New(size)
		there := make(map[int]bool)
		for i := range size {
			if random.IntN(2) == 0 {
				set.Add(i)
				there[i] = true
			}
		}
		look := func(from, to int) (mask uint64, count int) {
			for i := max(from, 0); i < min(to, size); i++ {
				if there[i] {
					count++
					if i-from < 64 {
						mask |= 1 << uint(i-from)
					}
				}
			}
			return mask, count
		}
		for from := -2; from < min(size, 260)+2; from++ {
			for _, n := range []int{-1, 0, 1, 2, 31, 63, 64, 65, 100, 1000} {
				mask, count := look(from, from+n)
				if from >= 0 {
					bounded, _ := look(from, from+min(n, 64))
					require.Equal(t, mask, bounded)
					require.Equal(t, mask, set.Mask(from, n), "%d from %d in a set of %d", n, from, size)
				} else {
					require.Zero(t, set.Mask(from, n))
				}
				require.Equal(t, count, set.CountIn(from, from+n), "%d from %d in a set of %d", n, from, size)
			}
		}
	}
}
