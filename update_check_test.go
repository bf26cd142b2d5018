package registry_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
)

func TestCheckUpdate_TellsWhatUpdateWouldAndChangesNothing(t *testing.T) {
	t.Parallel()
	admitted := 0
	options := registry.Options{Admit: func(context.Context, registry.Definition) error {
		admitted++
		return errors.New("never")
	}}
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		testkit.Add(t, reg, testkit.Provider{Name: "b"})
		before := picture(t, reg)
		made := func(context.Context) (testkit.ChatModel, error) { panic("made") }
		for name, collect := range map[string]func(u *registry.Update){
			"good": func(u *registry.Update) {
				testkit.Chat.AddTo(u, testkit.Provider{Name: "c", Factory: made})
				other.AddTo(u, registry.Provider[string]{Name: "elsewhere", Instance: "x"})
				testkit.Chat.AddTo(u, testkit.Provider{Name: "b", Factory: made, Replace: true})
				u.SetStrategy("chat", "a", registry.StrategyRoundRobin)
				u.SetHealthPolicy("chat", "a", testkit.Provider{}.Health)
			},
			"bad input": func(u *registry.Update) { testkit.Chat.AddTo(u, testkit.Provider{Name: "c"}) },
			"conflicts": func(u *registry.Update) {
				testkit.Chat.AddTo(u, testkit.Provider{Name: "a", Factory: made})
				testkit.Chat.AddTo(u, testkit.Provider{Name: "c", Factory: made, Strategy: registry.StrategyRoundRobin})
				u.Remove("chat", "unknown")
			},
			"another type": func(u *registry.Update) {
				registry.NewService[string]("chat").AddTo(u, registry.Provider[string]{Name: "c", Instance: "x"})
			},
		} {
			var u registry.Update
			collect(&u)
			err := reg.CheckUpdate(&u)
			require.Equal(t, before, picture(t, reg), name)
			require.ErrorIs(t, reg.Explain(t.Context(), "other", registry.Query{}).Err, registry.ErrUnknownService)
			if name == "good" {
				require.NoError(t, err)
				continue
			}
			require.Error(t, err, name)
			require.EqualError(t, reg.Update(t.Context(), &u), err.Error(), name)
		}
		require.ErrorIs(t, reg.CheckUpdate(nil), registry.ErrInvalid)
		require.ErrorIs(t, (*registry.Registry)(nil).CheckUpdate(&registry.Update{}), registry.ErrInvalid)
		require.NoError(t, reg.Close(t.Context()))
		require.ErrorIs(t, reg.CheckUpdate(&registry.Update{}), registry.ErrClosed)
	})
	testkit.Bubble(t, options, func(t *testing.T, reg *registry.Registry) {
		var u registry.Update
		testkit.Chat.AddTo(&u, testkit.Provider{Name: "c", Instance: testkit.Says("c")})
		require.NoError(t, reg.CheckUpdate(&u))
		require.Zero(t, admitted)
	})
}
