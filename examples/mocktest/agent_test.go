package mocktest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/examples/mocktest"
	"github.com/capreg/registry/registrytest"
	"github.com/capreg/registry/verdict"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a model with an answer, and with a script of what goes wrong before it.
type fake struct {
	*registrytest.Script

	answer string
}

func (f fake) Chat(ctx context.Context, _ string) (string, error) { return f.answer, f.Play(ctx) }

// newAgent returns the agent with its real providers, and its registry.
func newAgent(t *testing.T) (*mocktest.Agent, *registry.Registry) {
	t.Helper()
	reg := registrytest.New(t, registry.Options{})
	agent, err := mocktest.New(t.Context(), reg, mocktest.Config{})
	require.NoError(t, err)
	return agent, reg
}

func TestAgent_CloudAnswers(t *testing.T) {
	t.Parallel()
	agent, reg := newAgent(t)
	registrytest.Swap[mocktest.ChatModel](t, reg, mocktest.LLM, "cloud", fake{registrytest.NewScript(), "42"})

	answer, err := agent.Answer(t.Context(), "what is it all about?")
	require.NoError(t, err)
	require.Equal(t, "42", answer)
}

func TestAgent_LocalModelAnswersWhileTheCloudIsDown(t *testing.T) {
	t.Parallel()
	agent, reg := newAgent(t)
	down := registrytest.NewScript(registrytest.Fail(verdict.ClassServerError))
	registrytest.Swap[mocktest.ChatModel](t, reg, mocktest.LLM, "cloud", fake{down, "from the cloud"})
	registrytest.Swap[mocktest.ChatModel](t, reg, mocktest.LLM, "local", fake{registrytest.NewScript(), "from here"})
	record := registrytest.Record(t, reg)

	for _, want := range []string{"from here", "from the cloud"} { // it fails once
		answer, err := agent.Answer(t.Context(), "?")
		require.NoError(t, err)
		require.Equal(t, want, answer)
	}
	record.AssertAttempts("cloud") // of the last call
	record.AssertAsked("local", 1)
}

// In a bubble an hour takes no time.
func TestAgent_RateLimitedCloudCoolsDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		agent, reg := newAgent(t)
		limited := registrytest.NewScript(registrytest.RateLimit(time.Hour))
		registrytest.Swap[mocktest.ChatModel](t, reg, mocktest.LLM, "cloud", fake{limited, "from the cloud"})
		registrytest.Swap[mocktest.ChatModel](t, reg, mocktest.LLM, "local", fake{registrytest.NewScript(), "from here"})
		record := registrytest.Record(t, reg)

		for _, want := range []string{"from here", "from here", "from the cloud"} {
			answer, err := agent.Answer(t.Context(), "?")
			require.NoError(t, err)
			require.Equal(t, want, answer)
			time.Sleep(time.Hour)
		}
		record.AssertEvent(event.Cooling, "cloud")
		record.AssertAsked("cloud", 2)
	})
}

func TestAgent_FailsInAnOutage(t *testing.T) {
	t.Parallel()
	agent, reg := newAgent(t)
	registrytest.Override(t, reg, mocktest.LLM) // without instances: an outage

	_, err := agent.Answer(t.Context(), "?")
	require.ErrorIs(t, err, registry.ErrUnavailable)
}

// The real providers, with the official SDK, against a server that fails as they do.
func TestModel_ReportsARateLimitWithoutRetrying(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := registrytest.NewPipeServer(t, registrytest.NewScript(registrytest.RateLimit(time.Hour)))
		reg := registrytest.New(t, registry.Options{})
		agent, err := mocktest.New(t.Context(), reg, mocktest.Config{CloudURL: server.URL(), Key: "key", Client: server.Client()})
		require.NoError(t, err)
		registrytest.Swap[mocktest.ChatModel](t, reg, mocktest.LLM, "local", fake{registrytest.NewScript(), "from here"})
		record := registrytest.Record(t, reg)

		answer, err := agent.Answer(t.Context(), "?")
		require.NoError(t, err)
		require.Equal(t, "from here", answer)
		record.AssertAttempts("cloud", "local")
		record.AssertEvent(event.Cooling, "cloud")
		time.Sleep(2 * time.Hour)
		answer, err = agent.Answer(t.Context(), "how are you?")
		require.NoError(t, err)
		require.Equal(t, "You said: Answer in one sentence: how are you?", answer)

		cloud, err := mocktest.LLM.Bind(reg, registry.Query{}).Get(t.Context())
		require.NoError(t, err)
		server.AssertNoRetries(func(ctx context.Context) error {
			_, err := cloud.Chat(ctx, "?")
			return err
		})
	})
}
