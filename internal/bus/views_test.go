package bus_test

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/bus"
)

// thing is what views are of: its state, and how often it was looked at.
type thing struct {
	state  string
	looked int
	place  bus.Place[thing, string]
}

func placeOf(t *thing) *bus.Place[thing, string] { return &t.place }

func lookAt(t *thing, before string) string {
	t.looked++
	return before + t.state
}

func TestViews_AreSharedUntilAChange(t *testing.T) {
	t.Parallel()
	var views bus.Views[thing, string]
	a, b := &thing{state: "a"}, &thing{state: "b"}
	things := []*thing{a, b}
	require.Equal(t, things, views.Outdated(things, placeOf), "none was looked at")
	first := views.All(things, placeOf, lookAt)
	require.Equal(t, []string{"a", "b"}, []string{first[0].Was(), first[1].Was()})
	require.Same(t, a, first[0].Of())
	require.Same(t, first[0], views.All(things, placeOf, lookAt)[0])
	require.Empty(t, views.Outdated(things, placeOf))
	require.Equal(t, []int{1, 1}, []int{a.looked, b.looked})

	views.Change(&b.place)
	require.True(t, a.place.Shows(first[0]))
	require.False(t, b.place.Shows(first[1]))
	require.Equal(t, []*thing{b}, views.Outdated(things, placeOf))
	second := views.All(things, placeOf, lookAt)
	require.Same(t, first[0], second[0], "it has not changed")
	require.Equal(t, "bb", second[1].Was(), "what it was is known")
	require.Equal(t, "b", first[1].Was(), "a view never changes")
	require.Equal(t, []int{1, 2}, []int{a.looked, b.looked})
}

func TestViews_OfOtherThingsAreListedAnew(t *testing.T) {
	t.Parallel()
	var views bus.Views[thing, string]
	a, b := &thing{state: "a"}, &thing{state: "b"}
	require.Len(t, views.All([]*thing{a}, placeOf, lookAt), 1)
	views.Reset()
	both := views.All([]*thing{b, a}, placeOf, lookAt)
	require.Same(t, b, both[0].Of())
	require.Equal(t, 1, a.looked, "its view is kept")
}

func TestView_DoesNotKeepItsThingAlive(t *testing.T) {
	t.Parallel()
	var views bus.Views[thing, string]
	gone := views.All([]*thing{{state: "a"}}, placeOf, lookAt)[0]
	for range 10 {
		runtime.GC()
		if gone.Of() == nil {
			break
		}
	}
	require.Nil(t, gone.Of())
	require.Equal(t, "a", gone.Was())
}

func TestKinds_AreCounted(t *testing.T) {
	t.Parallel()
	o := newOwner(t, nil)
	o.publish(event.Event{Kind: event.Registered}, event.Event{Kind: event.Registered}, event.Event{Kind: event.Drained})
	o.Lock()
	defer o.Unlock()
	kinds := o.bus.Kinds()
	require.EqualValues(t, 2, kinds[event.Registered])
	require.EqualValues(t, 1, kinds[event.Drained])
	kinds[event.Drained] = 9
	require.EqualValues(t, 1, o.bus.Kinds()[event.Drained], "the counts are a copy")
}
