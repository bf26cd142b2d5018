package bus_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/bus"
)

func TestSubscribe_FilteredReaderLosesOnlyWhatItWants(t *testing.T) {
	t.Parallel()
	o := newOwner(t, nil)
	r := o.subscribe(2, event.Filter{Kinds: []event.Kind{event.Parked}}, event.Filter{Providers: []string{"b"}})
	for range 5 {
		o.publish(event.Event{Kind: event.Changed, Provider: "a"})
	}
	o.publish(event.Event{Kind: event.Parked, Provider: "a"}, event.Event{Kind: event.Changed, Provider: "b"})
	all := rest(t, r)
	require.Len(t, all, 2, "what one of the filters accepts")
	require.Zero(t, all[0].Lost)
	require.Equal(t, []uint64{6, 7}, []uint64{all[0].Sequence, all[1].Sequence}, "the numbers are the registry's")
	for range 3 {
		o.publish(event.Event{Kind: event.Parked}, event.Event{Kind: event.Changed, Provider: "a"})
	}
	require.EqualValues(t, 1, rest(t, r)[0].Lost)
	require.True(t, r.AcceptsProvider("llm", "a"))
}

func TestSubscribe_KeepsACopyOfTheFilters(t *testing.T) {
	t.Parallel()
	o := newOwner(t, nil)
	filter := event.Filter{Kinds: []event.Kind{event.Parked}, Services: []string{"llm"}, Providers: []string{"a"}}
	r := o.subscribe(0, filter)
	filter.Kinds[0], filter.Services[0], filter.Providers[0] = event.Changed, "x", "x"
	o.publish(event.Event{Kind: event.Parked, Service: "llm", Provider: "a"})
	require.Len(t, rest(t, r), 1)
	require.False(t, r.AcceptsProvider("x", "x"))
}

func TestCheckFilters_NamesTheKindThatIsNone(t *testing.T) {
	t.Parallel()
	require.Nil(t, bus.CheckFilters(nil))
	require.Nil(t, bus.CheckFilters([]event.Filter{{}, {Kinds: event.Kinds()}}))
	v := bus.CheckFilters([]event.Filter{{}, {Kinds: []event.Kind{event.Parked, "open"}}})
	require.Equal(t, "filters[1].Kinds[1]", v.Field)
	require.Equal(t, `"open"`, v.Value)
}

func TestRefuse_ReaderHasEndedWithTheError(t *testing.T) {
	t.Parallel()
	o := newOwner(t, nil)
	r := o.bus.Refuse(errTest)
	o.publish(event.Event{})
	_, err := r.Next(t.Context())
	require.ErrorIs(t, err, errTest)
	r.Close()
}
