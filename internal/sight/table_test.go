package sight_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/sight"
	"github.com/capreg/registry/verdict"
)

func TestTable_HasALineForEachCandidateWithWhatIsKnownOfIt(t *testing.T) {
	t.Parallel()
	require.Equal(t, `service "chat"`, sight.Table("chat", "", nil, nil))
	last := &verdict.LastError{Class: verdict.ClassTransport, Text: "no answer", Time: now}
	text := sight.Table("chat", " with tools", fault.ErrUnhealthy, []sight.Line{
		{Picked: true, Group: 1, Priority: "high", Text: "a: ready", Handler: "h", Mock: true},
		{Group: 2, Priority: "default", Text: "b: unhealthy", LastError: last},
	})
	require.Equal(t, "service \"chat\" with tools: unhealthy\n"+
		"▶ group 1 high     a: ready (of handler h) (mock)\n"+
		"  group 2 default  b: unhealthy; last error at 12:00:00: transport: no answer", text)
}
