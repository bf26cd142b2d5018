package changeset_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/changeset"
)

func TestProofs_AreOverWhenAllHaveProvenThemselves(t *testing.T) {
	t.Parallel()
	var none changeset.Proofs
	_, _, proven := none.Look(0, nil)
	require.True(t, proven)

	var p changeset.Proofs
	p.Add(3, 2*time.Second)
	p.Add(5, time.Second)
	require.Equal(t, []int{3, 5}, p.All())
	now := map[int]changeset.Proof{}
	look := func(after time.Duration) (failed []int, left time.Duration, proven bool) {
		return p.Look(after, func(i int) changeset.Proof { return now[i] })
	}
	failed, left, proven := look(time.Second / 4)
	require.Empty(t, failed)
	require.False(t, proven)
	require.Equal(t, time.Second*3/4, left, "until the first is late")
	now[5] = changeset.Proven
	_, left, proven = look(time.Second)
	require.False(t, proven)
	require.Equal(t, time.Second, left, "one that has proven itself is never late")
	now[5] = changeset.Failed
	failed, left, _ = look(time.Second)
	require.Empty(t, failed, "it has to be well once the others are")
	require.Equal(t, time.Second, left)
	now[3], now[5] = changeset.Proven, changeset.Pending
	_, left, proven = look(time.Second / 2)
	require.False(t, proven, "it was well, and is not now")
	require.Equal(t, time.Second/2, left)
	now[5] = changeset.Proven
	failed, left, proven = look(time.Minute)
	require.Empty(t, failed)
	require.True(t, proven)
	require.Equal(t, time.Duration(math.MaxInt64), left)
}

func TestProofs_FailWithTheFirstThatFailsOrIsLate(t *testing.T) {
	t.Parallel()
	var p changeset.Proofs
	p.Add(0, time.Second)
	p.Add(1, time.Minute)
	failed, _, proven := p.Look(time.Second, func(int) changeset.Proof { return changeset.Pending })
	require.Equal(t, []int{0}, failed)
	require.False(t, proven)
	require.True(t, p.Late(0, time.Second))
	require.False(t, p.Late(1, time.Second))

	var again changeset.Proofs
	again.Add(0, time.Minute)
	again.Add(1, time.Minute)
	failed, _, proven = again.Look(0, func(i int) changeset.Proof { return []changeset.Proof{changeset.Proven, changeset.Failed}[i] })
	require.Equal(t, []int{1}, failed)
	require.False(t, proven)
}
