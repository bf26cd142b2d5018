package guide_test

import (
	"context"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/registrytest"
	"github.com/capreg/registry/verdict"
)

// fake is a model with an answer, and a script of what goes wrong before it.
type fake struct {
	*registrytest.Script

	answer string
}

func (f fake) Ask(ctx context.Context, _ string) (string, error) { return f.answer, f.Play(ctx) }

func (f fake) Stream(context.Context, string) (iter.Seq2[string, error], error) {
	return nil, verdict.Cannot(nil)
}

// newModels returns a registry with the models of the program, and what its code binds.
func newModels(t *testing.T) (*registry.Registry, *registry.Resolver[Model]) {
	t.Helper()
	reg := registrytest.New(t, registry.Options{})
	require.NoError(t, registerModels(t.Context(), reg, model{"openai", nil}, model{"anthropic", nil}, model{"local", nil}))
	return reg, LLM.Bind(reg, registry.Query{})
}

func ask(ctx context.Context, models *registry.Resolver[Model]) (string, error) {
	return registry.Call(ctx, models, func(ctx context.Context, m Model) (string, error) { return m.Ask(ctx, "?") })
}

func TestAsk_AnotherModelAnswersWhileOneFails(t *testing.T) {
	t.Parallel()
	reg, models := newModels(t)
	down := registrytest.NewScript(registrytest.Fail(verdict.ClassServerError))
	registrytest.Swap[Model](t, reg, LLM, "openai", fake{down, "from the cloud"})
	record := registrytest.Record(t, reg)

	answer, err := ask(t.Context(), models)
	require.NoError(t, err)
	require.Equal(t, "anthropic answers", answer)
	record.AssertAttempts("openai", "anthropic")
}

// In a bubble an hour takes no time.
func TestAsk_RateLimitedModelIsLeftAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg, models := newModels(t)
		limited := registrytest.NewScript(registrytest.RateLimit(time.Hour))
		registrytest.Swap[Model](t, reg, LLM, "openai", fake{limited, "openai again"})
		record := registrytest.Record(t, reg)

		for _, want := range []string{"anthropic answers", "anthropic answers", "openai again"} {
			answer, err := ask(t.Context(), models)
			require.NoError(t, err)
			require.Equal(t, want, answer)
			time.Sleep(time.Hour)
		}
		record.AssertEvent(event.Cooling, "openai")
		record.AssertAsked("openai", 2)
	})
}

func TestAsk_OutageIsAnError(t *testing.T) {
	t.Parallel()
	reg, models := newModels(t)
	registrytest.Override(t, reg, LLM) // by nothing

	_, err := ask(t.Context(), models)
	require.ErrorIs(t, err, registry.ErrUnavailable)
}
