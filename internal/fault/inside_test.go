package fault_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/fault"
)

//go:noinline
func comesBack(inner func() bool) bool { return inner() }

func TestInside_SeesTheFunctionsOfItsOwnGoroutine(t *testing.T) {
	t.Parallel()
	inside := func() bool { return fault.Inside("fault_test.comesBack") }
	require.False(t, inside())
	require.True(t, comesBack(inside))
	require.True(t, comesBack(func() bool { return fault.Run(func() error { return nil }) == nil && inside() }))
	other := make(chan bool)
	require.True(t, comesBack(func() bool {
		go func() { other <- inside() }()
		return !<-other
	}), "another goroutine")
}
