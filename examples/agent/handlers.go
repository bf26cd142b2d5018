// This file shows three handlers. Each has its own view of the services, makes its
// calls through decide, and knows no provider by name.

package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"strings"

	"github.com/capreg/registry"
	"github.com/capreg/registry/examples/agent/internal/channel"
	"github.com/capreg/registry/examples/agent/internal/llm"
	"github.com/capreg/registry/examples/agent/internal/memory"
	"github.com/capreg/registry/examples/agent/internal/observer"
	"github.com/capreg/registry/examples/agent/internal/tool"
	"github.com/capreg/registry/stream"
	"github.com/capreg/registry/verdict"
)

// answered is a text and the provider that gave it.
type answered struct {
	text string
	by   string
}

// manner is the way in which a question is answered.
type manner struct {
	streamed bool // the model answers piece by piece
	shown    bool // to people as well as to programs
}

// speaker is the SpeakHandler: tools where they help, then a model, then channels.
type speaker struct {
	auditor

	streaming func(whole bool) stream.Options[llm.Piece]
	models    *registry.Resolver[llm.ChatModel]
	people    *registry.Resolver[channel.Channel]
	programs  *registry.Resolver[channel.Channel]
	scrapers  *registry.Resolver[tool.Tool]
	analysts  *registry.Resolver[tool.Tool]
}

func newSpeaker(reg *registry.Registry, streaming func(bool) stream.Options[llm.Piece]) *speaker {
	query := func(capability string) registry.Query {
		return registry.Query{Handler: speakHandler, Require: []string{capability}}
	}
	return &speaker{
		auditor: newAuditor(reg, speakHandler), streaming: streaming,
		models: LLM.Bind(reg, query("chat")),
		people: Communication.Bind(reg, query("show")), programs: Communication.Bind(reg, query("notify")),
		scrapers: Tool.Bind(reg, query("web_scraping")), analysts: Tool.Bind(reg, query("data_analysis")),
	}
}

// answer answers the question and delivers the answer.
func (s *speaker) answer(ctx context.Context, question string, how manner) (answered, error) {
	ask := s.ask
	if how.streamed {
		ask = s.askForStream
	}
	reply, err := ask(ctx, question+s.research(ctx, question))
	if err != nil {
		return answered{}, err
	}
	if err := s.notify(ctx, reply.text); err != nil || !how.shown {
		return reply, err
	}
	return reply, s.show(ctx, "answer    "+reply.text)
}

var link = regexp.MustCompile(`https?://\S+`)

// research reads the page that a question names and describes its figures. Without the
// tools there is an answer all the same; the audit says what they had.
func (s *speaker) research(ctx context.Context, question string) string {
	url := link.FindString(question)
	if url == "" {
		return ""
	}
	use := func(input string) func(context.Context, tool.Tool) (string, error) {
		return func(ctx context.Context, t tool.Tool) (string, error) { return t.Use(ctx, input) }
	}
	page, _, err := decide(ctx, s.auditor, "read "+url, s.scrapers, use(url))
	if err != nil {
		return ""
	}
	figures, _, err := decide(ctx, s.auditor, "analyse "+url, s.analysts, use(page))
	if err != nil {
		return ""
	}
	return " (" + figures + ")"
}

func (s *speaker) ask(ctx context.Context, question string) (answered, error) {
	reply, by, err := decide(ctx, s.auditor, "answer", s.models, func(ctx context.Context, m llm.ChatModel) (llm.Reply, error) {
		return m.Chat(ctx, question)
	})
	return answered{reply.Text, by}, err
}

// askForStream is ask for an answer that comes piece by piece. It is wanted whole:
// so another model replaces a stream that is cut halfway.
func (s *speaker) askForStream(ctx context.Context, question string) (answered, error) {
	var report registry.CallReport
	options := s.streaming(true)
	options.Call = []registry.CallOption{registry.ReportTo(&report)}
	opened, err := s.open(ctx, question, options)
	var text strings.Builder
	if err == nil {
		for piece, failure := range opened.All() {
			err = failure
			text.WriteString(piece.Text)
		}
	}
	by, audited := s.record(ctx, "answer, as a stream", report, err)
	return answered{text.String(), by}, errors.Join(err, audited)
}

func (s *speaker) open(ctx context.Context, question string, options stream.Options[llm.Piece]) (*stream.Stream[llm.Piece], error) {
	return stream.Open(ctx, s.models, func(ctx context.Context, m llm.ChatModel) (iter.Seq2[llm.Piece, error], error) {
		return m.Stream(ctx, question)
	}, options)
}

// show puts a message in front of people.
func (s *speaker) show(ctx context.Context, message string) error {
	return s.send(ctx, "show", s.people, message)
}

// notify tells programs. A message must not be posted twice, so the call is
// once-only: it moves on only as long as nothing was sent.
func (s *speaker) notify(ctx context.Context, message string) error {
	return s.send(ctx, "notify", s.programs, message, registry.OnceOnly())
}

func (s *speaker) send(
	ctx context.Context, action string, to *registry.Resolver[channel.Channel], message string, options ...registry.CallOption,
) error {
	_, _, err := decide(ctx, s.auditor, action, to, func(ctx context.Context, c channel.Channel) (struct{}, error) {
		return struct{}{}, c.Send(ctx, message)
	}, options...)
	return err
}

// memorizer is the MemorizeHandler: a model that makes it short, then a memory.
type memorizer struct {
	auditor

	models   *registry.Resolver[llm.ChatModel]
	memories *registry.Resolver[memory.Memory]
}

func newMemorizer(reg *registry.Registry) *memorizer {
	return &memorizer{
		auditor:  newAuditor(reg, memorizeHandler),
		models:   LLM.Bind(reg, registry.Query{Handler: memorizeHandler, Require: []string{"chat"}}),
		memories: Memory.Bind(reg, registry.Query{Handler: memorizeHandler}),
	}
}

// keep remembers the text, made short. The model is the handler's own; while that fails
// it is one of those that answer questions.
func (m *memorizer) keep(ctx context.Context, key, text string) error {
	short, _, err := decide(ctx, m.auditor, "condense", m.models, func(ctx context.Context, model llm.ChatModel) (llm.Reply, error) {
		return model.Chat(ctx, text)
	})
	if err != nil {
		return err
	}
	_, _, err = decide(ctx, m.auditor, "memorize "+key, m.memories, func(ctx context.Context, to memory.Memory) (struct{}, error) {
		return struct{}{}, to.Memorize(ctx, key, short.Text)
	})
	return err
}

// errNotNeeded says nothing about the memory that was not asked.
var errNotNeeded = verdict.Ignore(errors.New("not needed"))

// find returns what was kept, in whichever memory it is: what the next one kept while
// the first was away is only there.
func (m *memorizer) find(ctx context.Context, key string) (string, error) {
	leases, err := m.memories.AcquireAll(ctx, 0)
	if err != nil {
		return "", err
	}
	text, failures := "", []error(nil)
	for _, lease := range leases {
		if text != "" {
			lease.Done(errNotNeeded)
			continue
		}
		err := lease.Guard(func() (err error) {
			text, err = lease.Value.Find(lease.Context(), key)
			return err
		})
		lease.Done(err)
		if err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", lease.Provider(), err))
		}
	}
	if text != "" {
		return text, nil
	}
	return "", errors.Join(failures...)
}

// watcher is the ObserveHandler: messages, and without any the condition of the agent.
type watcher struct {
	auditor

	observers *registry.Resolver[observer.Observer]
}

func newWatcher(reg *registry.Registry) *watcher {
	return &watcher{newAuditor(reg, observeHandler), Observer.Bind(reg, registry.Query{Handler: observeHandler})}
}

func (w *watcher) look(ctx context.Context) (answered, error) {
	text, by, err := decide(ctx, w.auditor, "look", w.observers, func(ctx context.Context, o observer.Observer) (string, error) {
		return o.Observe(ctx)
	})
	return answered{text, by}, err
}
