package record_test

import (
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCounter_CountsByReason(t *testing.T) {
	t.Parallel()
	var c record.Counter[string]
	require.Nil(t, c.ByReason())
	c.Add()
	require.Nil(t, c.ByReason())
	c.Add("a")
	c.Add("b", "a")
	counts := c.ByReason()
	require.Equal(t, map[string]uint64{"a": 2, "b": 1}, counts)
	counts["a"] = 9
	require.EqualValues(t, 2, c.ByReason()["a"], "it was a copy")
}

func TestCounter_CountsConcurrently(t *testing.T) {
	t.Parallel()
	var c record.Counter[string]
	var adding sync.WaitGroup
	for i := range 4 {
		adding.Go(func() {
			for range 100 {
				c.Add("all", strconv.Itoa(i))
			}
		})
	}
	adding.Wait()
	require.Equal(t, map[string]uint64{"all": 400, "0": 100, "1": 100, "2": 100, "3": 100}, c.ByReason())
}

func TestLatest_KeepsLatestValues(t *testing.T) {
	t.Parallel()
	l := record.NewLatest[int](3)
	require.Empty(t, l.Values())
	for i := range 5 {
		l.Add(i)
	}
	require.Equal(t, []int{2, 3, 4}, l.Values())
	l.Values()[0] = 9
	require.Equal(t, []int{2, 3, 4}, l.Values(), "it was a copy")
}

func TestLatest_OfNoneKeepsNothing(t *testing.T) {
	t.Parallel()
	require.Nil(t, record.NewLatest[int](-1))
	one := record.NewLatest[int](1)
	one.Add(1)
	require.Equal(t, []int{1}, one.Values())
	none := record.NewLatest[int](0)
	require.Nil(t, none)
	none.Add(1)
	require.Nil(t, none.Values())
}
