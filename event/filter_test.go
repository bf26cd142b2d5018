package event_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/event"
)

func TestFilter_AcceptsWhatHasAValueOfEachField(t *testing.T) {
	t.Parallel()
	opened := event.Event{Kind: event.BreakerOpened, Service: "llm", Provider: "a"}
	ofService := event.Event{Kind: event.SelectorFailed, Service: "llm"}
	closed := event.Event{Kind: event.Closed}
	for name, row := range map[string]struct {
		filter event.Filter
		want   [3]bool // of opened, ofService, closed
	}{
		"all":            {event.Filter{}, [3]bool{true, true, true}},
		"kind":           {event.Filter{Kinds: []event.Kind{event.Parked, event.BreakerOpened}}, [3]bool{true, false, false}},
		"service":        {event.Filter{Services: []string{"x", "llm"}}, [3]bool{true, true, false}},
		"other service":  {event.Filter{Services: []string{"x"}}, [3]bool{}},
		"provider":       {event.Filter{Providers: []string{"a"}}, [3]bool{true, false, false}},
		"other provider": {event.Filter{Providers: []string{"b"}}, [3]bool{}},
		"both": {
			event.Filter{Kinds: []event.Kind{event.BreakerOpened}, Services: []string{"llm"}, Providers: []string{"a"}},
			[3]bool{true, false, false},
		},
		"one does not": {
			event.Filter{Kinds: []event.Kind{event.BreakerOpened}, Services: []string{"llm"}, Providers: []string{"b"}},
			[3]bool{},
		},
	} {
		for i, e := range []event.Event{opened, ofService, closed} {
			require.Equal(t, row.want[i], row.filter.Accepts(e), "%s: %s", name, e.Kind)
		}
	}
	require.True(t, event.Filter{Kinds: []event.Kind{event.Parked}}.AcceptsProvider("llm", "a"), "of any kind")
	require.False(t, event.Filter{Providers: []string{"b"}}.AcceptsProvider("llm", "a"))
}

func TestKinds_ListIsTheCallers(t *testing.T) {
	t.Parallel()
	event.Kinds()[0] = ""
	require.Equal(t, event.Registered, event.Kinds()[0])
}
