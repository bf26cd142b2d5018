package startup_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/startup"
)

func FuzzState_RoundTrips(f *testing.F) {
	for state := startup.Waiting; state <= startup.Stuck; state++ {
		f.Add(state.String())
	}
	f.Add("")
	f.Add("state(200)")
	f.Fuzz(func(t *testing.T, text string) {
		state := startup.Ready
		if err := state.UnmarshalText([]byte(text)); err != nil {
			require.Equal(t, startup.Ready, state, "nothing is changed")
			return
		}
		written, err := state.MarshalText()
		require.NoError(t, err)
		require.Equal(t, text, string(written))
	})
}
