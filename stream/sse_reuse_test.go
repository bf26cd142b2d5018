package stream_test

import (
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/stream"
)

func TestReuseData_ReadsTheSameEvents(t *testing.T) {
	t.Parallel()
	const text = "data: one\n\n: comment\n\ndata: a longer one\ndata: of two lines\n\nevent: x\n\ndata: 3\n\ndata:\n\ndata: " + "last"
	var all [2][]string
	for i, options := range [][]stream.SSEOption{nil, {stream.ReuseData()}} {
		events := stream.NewEventReader(strings.NewReader(text), options...)
		for {
			event, err := events.Next()
			if err != nil {
				require.ErrorIs(t, err, io.EOF)
				break
			}
			all[i] = append(all[i], string(event.Data))
		}
	}
	require.Equal(t, []string{"one", "a longer one\nof two lines", "3", "", "last"}, all[0])
	require.Equal(t, all[0], all[1])
}

// It is not parallel: counting allocations counts those of all goroutines.
func TestReuseData_CostsNoAllocationForEachEvent(t *testing.T) {
	events := stream.NewEventReader(&forever{text: "data: {\"a\":\"piece of an answer\"}\n\n"}, stream.ReuseData())
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if _, err := events.Next(); err != nil {
			t.Fatal(err)
		}
	}))
}

// forever is a body that gives its text again and again.
type forever struct{ text string }

func (f *forever) Read(p []byte) (int, error) { return copy(p, f.text), nil }
