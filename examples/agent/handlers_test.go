package main

import (
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/examples/agent/internal/channel"
	"github.com/capreg/registry/examples/agent/internal/llm"
	"github.com/capreg/registry/examples/agent/internal/memory"
	"github.com/capreg/registry/examples/agent/internal/observer"
	"github.com/capreg/registry/examples/agent/internal/tool"
	"github.com/capreg/registry/registrytest"
	"github.com/capreg/registry/verdict"
)

func TestMemorizeHandler_OwnModelWinsUntilItFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		openai := w.model(t, "openai")
		w.asked(t, "first", manner{})
		require.Equal(t, 1, openai.Calls(), "it answered; the condenser made it short")
		w.record.AssertAsked("condenser", 1)

		w.model(t, "condenser", registrytest.Fail(verdict.ClassServerError))
		w.asked(t, "second", manner{})
		require.Equal(t, 3, openai.Calls(), "a global model takes over")
		w.requireAudited(t)
		kept, err := w.memorize.find(t.Context(), "first")
		require.NoError(t, err)
		require.Equal(t, "from openai", kept)
	})
}

func TestSpeakHandler_DoesNotSeeProvidersOfOtherHandlers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		registrytest.Override[llm.ChatModel](t, w.reg, LLM, fakeModel{registrytest.NewScript(), "global"})
		require.Equal(t, []string{"webhook"}, eligible(w.speak.programs.Explain()))
		require.ErrorIs(t, Communication.Bind(w.reg, registry.Query{Handler: observeHandler, Require: []string{"notify"}}).Ready(), registry.ErrUnavailable)
		require.Equal(t, []string{"scratch"}, eligible(Memory.Bind(w.reg, registry.Query{Handler: speakHandler}).Explain()))
		require.Equal(t, []string{"journal", "scratch"}, eligible(w.memorize.memories.Explain()))
		require.Equal(t, []string{"inbox", "vitals"}, eligible(w.observe.observers.Explain()))
	})
}

func eligible(e registry.Explanation) (names []string) {
	for _, c := range e.Candidates {
		if c.Eligible {
			names = append(names, c.Provider)
		}
	}
	return names
}

func TestSpeakHandler_NotifiesOnceWhenTheAnswerIsUnknown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		webhook := registrytest.NewScript(registrytest.Fail(verdict.ClassTransport))
		registrytest.Swap[channel.Channel](t, w.reg, Communication, "webhook", fakeChannel{webhook, w.posted})
		require.NoError(t, w.inbox.Put(t.Context(), "?"))
		_, err := w.turn(t.Context(), manner{})
		require.Error(t, err)
		require.Equal(t, 1, webhook.Calls(), "it may have been posted")
	})
}

func TestSpeakHandler_UsesToolsAndAnswersWithoutThem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		scraper := registrytest.NewScript()
		registrytest.Swap[tool.Tool](t, w.reg, Tool, "web-scraper", fakeTool{scraper, "4 and 8 of "})
		require.Equal(t, " (2 figures, mean 6, median 6, deviation 2)", w.speak.research(t.Context(), "what is in http://a.test"))
		require.Empty(t, w.speak.research(t.Context(), "what is next?"))
		w.record.AssertAsked("data-analyst", 1)

		scraper.Always(registrytest.HTTPStatus(404, 0))
		require.Empty(t, w.speak.research(t.Context(), "what is in http://a.test"))
		require.Equal(t, "openai", w.asked(t, "what is in http://a.test", manner{}).by)
		records := w.ledger.Records()
		require.Equal(t, "read http://a.test", records[2].Action)
		require.NotEmpty(t, records[2].Err)
	})
}

func TestMemorizeHandler_ScratchKeepsWhatTheJournalCannot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.asked(t, "before", manner{})
		require.NoError(t, w.backends.unmount())
		for n := range 5 {
			w.asked(t, fmt.Sprint("question ", n), manner{})
		}
		w.record.AssertEvent(event.BreakerOpened, "journal")
		require.NoError(t, w.backends.mount())
		time.Sleep(2 * time.Second)
		w.asked(t, "after", manner{})
		for _, key := range []string{"before", "question 0", "question 4", "after"} {
			kept, err := w.memorize.find(t.Context(), key)
			require.NoError(t, err, key)
			require.Equal(t, "from openai", kept)
		}
		_, err := w.memorize.find(t.Context(), "never")
		require.ErrorIs(t, err, memory.ErrUnknown)
		w.record.AssertNoEvent(event.BreakerOpened, "scratch")
	})
}

func TestObserveHandler_ReportsVitalsWithoutMessages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		reply, err := w.turn(t.Context(), manner{})
		require.NoError(t, err)
		require.Equal(t, answered{by: "vitals"}, reply)
		require.Equal(t, []string{"inbox: " + verdict.ClassNotForMe.String()}, w.ledger.Records()[0].Failed)
		seen, err := observer.Vitals(w.reg.Health).Observe(t.Context())
		require.NoError(t, err)
		require.Contains(t, seen, "the agent is ")
	})
}

func TestDefinitions_AreCompleteAndPublished(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for name, want := range map[string]struct {
			version, team string
			concurrent    int
			time          time.Duration
		}{
			"data-analyst": {"2.1.0", "insight", 4, 5 * time.Second},
			"web-scraper":  {"1.4.0", "harvest", 8, 10 * time.Second},
		} {
			r, ok := w.reg.Provider(Tool.Name(), name)
			require.True(t, ok)
			text, err := json.Marshal(r.Definition())
			require.NoError(t, err)
			var d registry.Definition
			require.NoError(t, json.Unmarshal(text, &d))
			require.Equal(t, r.Definition(), d)
			require.Equal(t, want.version, d.Version)
			require.Equal(t, want.team, d.Team)
			require.NotEmpty(t, d.Documentation)
			require.Less(t, d.ExpectedResponse, want.time)
			require.Positive(t, d.ExpectedResponse)
			require.NotEmpty(t, d.Description)
			require.Equal(t, want.time, r.Info().AttemptTimeout)
			limits, err := r.SetLimits(registry.LimitPolicy{})
			require.NoError(t, err)
			require.Equal(t, want.concurrent, limits.MaxConcurrent)
		}
		for _, capability := range []string{"data_analysis", "web_scraping"} {
			found, err := w.reg.Discover(registry.Query{Require: []string{capability}})
			require.NoError(t, err)
			require.Len(t, found, 1)
		}
	})
}
