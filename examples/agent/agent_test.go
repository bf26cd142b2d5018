package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/examples/agent/internal/audit"
	"github.com/capreg/registry/examples/agent/internal/channel"
	"github.com/capreg/registry/examples/agent/internal/llm"
	"github.com/capreg/registry/registrytest"
	"github.com/capreg/registry/verdict"
)

// Fakes of the services: a script decides the outcome, and the fake keeps what it got.

type fakeModel struct {
	*registrytest.Script

	text string
}

func (f fakeModel) Chat(ctx context.Context, _ string) (llm.Reply, error) {
	return llm.Reply{Text: f.text}, f.Play(ctx)
}

func (f fakeModel) Stream(ctx context.Context, _ string) (iter.Seq2[llm.Piece, error], error) {
	return registrytest.Stream(ctx, f.Script, llm.Piece{Text: f.text}, llm.Piece{Last: true})
}

type fakeChannel struct {
	*registrytest.Script

	sent *[]string
}

func (f fakeChannel) Send(ctx context.Context, message string) error {
	if err := f.Play(ctx); err != nil {
		return err
	}
	*f.sent = append(*f.sent, message)
	return nil
}

type fakeTool struct {
	*registrytest.Script

	result string
}

func (f fakeTool) Use(ctx context.Context, input string) (string, error) {
	return f.result + input, f.Play(ctx)
}

type fakeTrail struct{ *registrytest.Script }

func (f fakeTrail) Append(ctx context.Context, _ audit.Record) error { return f.Play(ctx) }

// world is an agent with its real providers, but for those that leave the process.
type world struct {
	*agent

	reg    *registry.Registry
	record *registrytest.Recorder
	posted *[]string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	b := &backends{dir: t.TempDir(), models: []backend{
		{name: "openai", priority: registry.PriorityCritical},
		{name: "anthropic", priority: registry.PriorityHigh},
		{name: "local-a", group: 1, strategy: registry.StrategyRoundRobin},
		{name: "local-b", group: 1},
	}}
	require.NoError(t, os.MkdirAll(b.journal(), 0o700))
	reg := registrytest.New(t, options())
	a, err := newAgent(t.Context(), reg, b, newScreen(out))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, a.close())
		require.NoError(t, errors.Join(b.close(), out.Close()))
	})
	w := &world{a, reg, registrytest.Record(t, reg), new([]string)}
	for _, model := range b.models {
		w.model(t, model.name)
	}
	registrytest.Swap[channel.Channel](t, reg, Communication, "webhook", fakeChannel{registrytest.NewScript(), w.posted})
	return w
}

// model replaces a model by a fake whose calls go by the steps, and answer from then on.
func (w *world) model(t *testing.T, name string, steps ...registrytest.Step) *registrytest.Script {
	t.Helper()
	script := registrytest.NewScript(steps...)
	registrytest.Swap[llm.ChatModel](t, w.reg, LLM, name, fakeModel{script, "from " + name})
	return script
}

// asked has the agent answer the question.
func (w *world) asked(t *testing.T, question string, how manner) answered {
	t.Helper()
	require.NoError(t, w.inbox.Put(t.Context(), question))
	reply, err := w.turn(t.Context(), how)
	require.NoError(t, err)
	return reply
}

// requireAudited requires that the audit, in both its trails, has a decision for every call and
// stream of the agent, with each failed attempt.
func (w *world) requireAudited(t *testing.T) {
	t.Helper()
	records := w.ledger.Records()
	require.NoError(t, w.ledger.Verify(records))
	calls, failed := 0, 0
	for _, call := range w.record.Calls() {
		if call.Service == Audit.Name() {
			continue
		}
		calls++
		failed += len(call.Attempts) - 1
	}
	require.Len(t, records, calls)
	for _, r := range records {
		require.NotEmpty(t, r.Provider)
		require.Empty(t, r.Err)
		failed -= len(r.Failed)
	}
	require.Zero(t, failed)
	written, err := audit.NewFile(filepath.Join(w.backends.dir, "audit.jsonl")).Records()
	require.NoError(t, err)
	require.Len(t, written, len(records))
}

func TestAgent_LosesNothingWhileModelsFailInTurn(t *testing.T) {
	t.Parallel()
	for _, streamed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			faults := []registrytest.Step{
				registrytest.Fail(verdict.ClassServerError), registrytest.RateLimit(time.Second),
				registrytest.Hang(), registrytest.Fail(verdict.ClassNotSent),
			}
			served := make(map[string]int)
			for n := range 40 {
				for i, name := range []string{"openai", "anthropic", "local-a", "local-b"} {
					if n/8 >= i { // one more is down every eight questions
						w.model(t, name).Always(faults[i])
					}
				}
				reply := w.asked(t, fmt.Sprint("question ", n), manner{streamed: streamed})
				served[reply.by]++
				time.Sleep(time.Second)
			}
			require.Len(t, *w.posted, 40)
			require.Equal(t, map[string]int{"anthropic": 8, "local-a": 4, "local-b": 12, "last-resort": 16}, served)
			for n := range 40 {
				_, err := w.memorize.find(t.Context(), fmt.Sprint("question ", n))
				require.NoError(t, err)
			}
		})
	}
}

func TestAgent_EveryDecisionIsAudited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.model(t, "openai", registrytest.Fail(verdict.ClassServerError), registrytest.Fail(verdict.ClassServerError))
		for n := range 6 {
			w.asked(t, fmt.Sprint("question ", n), manner{streamed: n%2 == 1, shown: n == 3})
		}
		w.requireAudited(t)
		require.Equal(t, audit.Record{
			Time: w.ledger.Records()[1].Time, Handler: speakHandler, Service: "llm", Action: "answer",
			Provider: "anthropic", Failed: []string{"openai: server error"},
		}, w.ledger.Records()[1])
	})
}

func TestAgent_AuditKeepsEverythingWhileATrailFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		broken := registrytest.NewScript().Always(registrytest.Error(os.ErrClosed))
		undo := registrytest.Swap[audit.Trail](t, w.reg, Audit, "ledger", fakeTrail{broken})
		for n := range 10 {
			w.asked(t, fmt.Sprint("question ", n), manner{})
		}
		require.Empty(t, w.ledger.Records())
		undo()
		w.asked(t, "one more", manner{})
		written, err := audit.NewFile(filepath.Join(w.backends.dir, "audit.jsonl")).Records()
		require.NoError(t, err)
		require.Len(t, written, 11*5, "look, answer, notify, condense, memorize")
		require.Len(t, w.ledger.Records(), 5)
	})
}

func TestAgent_DecisionThatNoTrailKeepsIsAnError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		full := errors.New("disk full")
		for _, name := range []string{"ledger", "audit-file"} {
			registrytest.Swap[audit.Trail](t, w.reg, Audit, name, fakeTrail{registrytest.NewScript(registrytest.Error(full))})
		}
		require.NoError(t, w.inbox.Put(t.Context(), "?"))
		_, err := w.turn(t.Context(), manner{})
		require.ErrorIs(t, err, full)
	})
}

func TestAgent_FailedDecisionIsAuditedWithItsError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		registrytest.Override(t, w.reg, Communication) // without instances: an outage
		require.NoError(t, w.inbox.Put(t.Context(), "?"))
		_, err := w.turn(t.Context(), manner{})
		require.ErrorIs(t, err, registry.ErrUnavailable)
		records := w.ledger.Records()
		require.Equal(t, "notify", records[len(records)-1].Action)
		require.Contains(t, records[len(records)-1].Err, "no provider available")
	})
}
