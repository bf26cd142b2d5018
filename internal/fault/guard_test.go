package fault_test

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/fault"
)

func TestGuard_TellsOfWhatDoesNotReturnAndOfNothingElse(t *testing.T) {
	t.Parallel()
	told := []any{}
	stops := func(value any) (bool, error) {
		told = append(told, value)
		return true, fault.Panicked(value)
	}
	goesOn := func(value any) (bool, error) {
		told = append(told, value)
		return false, errCause
	}
	require.NoError(t, fault.Guard(func() error { return nil }, goesOn))
	require.ErrorIs(t, fault.Guard(func() error { return errCause }, goesOn), errCause)
	require.Empty(t, told, "work that returns, an error or not, is not told of")

	err := fault.Guard(func() error { panic(errCause) }, stops)
	require.ErrorIs(t, err, errCause)
	require.Contains(t, string(fault.Panicked(1).Stack), "guard_test.go")
	require.PanicsWithValue(t, "boom", func() { _ = fault.Guard(func() error { panic("boom") }, goesOn) })

	returned := make(chan bool, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = fault.Guard(func() error { runtime.Goexit(); return nil }, stops)
		returned <- true
	}()
	<-ended
	require.Empty(t, returned, "the goroutine goes on exiting")
	require.Equal(t, []any{errCause, "boom", nil}, told)
}
