// Command agent is a small agent runtime whose models and channels are wired
// through the registry, so that it keeps answering while they fail.
//
// With no flags and no API keys it starts its own servers on loopback, which
// speak the wire formats of OpenAI and Anthropic, asks 200 questions, makes the
// servers fail one after another, and shows which one answers. With OPENAI_API_KEY or
// ANTHROPIC_API_KEY set it talks to the real services and makes nothing fail.
// With -chat it answers what you type.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/examples/agent/internal/channel"
	"github.com/capreg/registry/examples/agent/internal/llm"
	"github.com/capreg/registry/stream"
)

// The services of the agent: a name and a Go type each, declared once.
var (
	LLM           = registry.NewService[llm.ChatModel]("llm")
	Communication = registry.NewService[channel.Channel]("communication")
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1) //nolint:gocritic // the process ends; stop has nothing left to undo
	}
}

func run(ctx context.Context, arguments []string, in io.Reader, out *os.File) (err error) {
	flags := flag.NewFlagSet("agent", flag.ContinueOnError)
	chat := flags.Bool("chat", false, "answer what is typed, instead of playing the session")
	questions := flags.Int("questions", 200, "how many questions the session asks")
	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if *questions < 1 {
		return fmt.Errorf("-questions is %d: want 1 or more", *questions)
	}

	screen := newScreen(out)
	backends, err := newBackends(ctx)
	if err != nil {
		return err
	}
	defer backends.close()
	agent, err := newAgent(ctx, backends, screen)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, agent.close()) }()
	if *chat {
		return agent.chat(ctx, in)
	}
	return agent.play(ctx, *questions)
}

// agent answers questions with whichever model can, and delivers the answers
// through whichever channel fits.
type agent struct {
	registry *registry.Registry
	models   *registry.Resolver[llm.ChatModel]
	screens  *registry.Resolver[channel.Channel] // for people
	hooks    *registry.Resolver[channel.Channel] // for programs
	events   *registry.Subscription
	watching chan struct{} // closed when the watcher has ended
	backends *backends
	screen   *screen
}

func newAgent(ctx context.Context, b *backends, s *screen) (*agent, error) {
	reg, err := registry.New(registry.Options{
		Required: []string{LLM.Name(), Communication.Name()},
	})
	if err != nil {
		return nil, err
	}
	a := &agent{
		registry: reg, backends: b, screen: s, watching: make(chan struct{}),
		models:  LLM.Bind(reg, registry.Query{Require: []string{"chat"}}),
		screens: Communication.Bind(reg, registry.Query{Require: []string{"show"}}),
		hooks:   Communication.Bind(reg, registry.Query{Require: []string{"notify"}}),
		events:  reg.Subscribe(0),
	}
	go a.watch() //nolint:gosec // it ends with the registry, after ctx, so that it shows the end too
	if err := errors.Join(a.wireModels(ctx), a.wireChannels(ctx), reg.WaitReady(ctx)); err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

// attemptTimeout is short, and so are the times of impatient.
const attemptTimeout = 400 * time.Millisecond

// impatient is for a session of half a minute. The defaults suit production:
// 5 failures, 60 s of recovery, 3 successes, 30 s an attempt.
func impatient() registry.BreakerPolicy {
	return registry.BreakerPolicy{FailureThreshold: 3, RecoveryTimeout: 1500 * time.Millisecond, SuccessThreshold: 2}
}

// wireModels registers the models. The clouds are tried first, in order of
// priority; the local servers share the load that is left; the built-in answer
// comes last. Factories, so that the registry owns the clients and closes them.
func (a *agent) wireModels(ctx context.Context) error {
	breaker, timeout := impatient(), attemptTimeout
	if a.backends.real {
		breaker, timeout = registry.BreakerPolicy{}, 0 // the defaults
	}
	var failures []error
	add := func(p registry.Provider[llm.ChatModel]) {
		p.Capabilities = append(p.Capabilities, "chat")
		p.Breaker, p.AttemptTimeout = breaker, timeout
		_, err := LLM.Register(ctx, a.registry, p)
		failures = append(failures, err)
	}
	for _, backend := range a.backends.models {
		add(registry.Provider[llm.ChatModel]{
			Name: backend.name, Priority: backend.priority, Group: backend.group, Strategy: backend.strategy,
			Factory:  func(context.Context) (llm.ChatModel, error) { return backend.client(), nil },
			Limits:   registry.LimitPolicy{MaxConcurrent: 8}, // more at once would make each of them slower
			Metadata: map[string]string{"model": backend.model},
		})
	}
	add(registry.Provider[llm.ChatModel]{
		Name: "last-resort", Instance: llm.LastResort{}, Group: 2, Priority: registry.PriorityFallback,
	})
	return errors.Join(failures...)
}

// wireChannels registers the ways out: people look at the terminal, programs
// listen to a webhook.
func (a *agent) wireChannels(ctx context.Context) error {
	_, terminal := Communication.Register(ctx, a.registry, registry.Provider[channel.Channel]{
		Name: "terminal", Capabilities: []string{"show"}, Instance: channel.NewTerminal(a.screen),
	})
	_, webhook := Communication.Register(ctx, a.registry, registry.Provider[channel.Channel]{
		Name: "webhook", Capabilities: []string{"notify"}, AttemptTimeout: attemptTimeout,
		Factory: func(context.Context) (channel.Channel, error) {
			return channel.NewWebhook(a.backends.sink.URL()), nil
		},
	})
	return errors.Join(terminal, webhook)
}

// answered is a reply and the backend that gave it.
type answered struct {
	llm.Reply

	by string
}

// ask contains no code for failover.
func (a *agent) ask(ctx context.Context, question string) (answered, error) {
	return registry.Call(ctx, a.models, func(ctx context.Context, m llm.ChatModel) (answered, error) {
		reply, err := m.Chat(ctx, question)
		return answered{Reply: reply, by: a.backends.nameOf(m)}, err
	})
}

// askForStream is ask for an answer that comes piece by piece. It is wanted whole:
// so another backend replaces a stream that is cut halfway.
func (a *agent) askForStream(ctx context.Context, question string) (answered, error) {
	s, err := stream.Open(ctx, a.models, func(ctx context.Context, m llm.ChatModel) (iter.Seq2[llm.Piece, error], error) {
		return m.Stream(ctx, question)
	}, a.streaming(true))
	if err != nil {
		return answered{}, err
	}
	var text strings.Builder
	for piece, err := range s.All() {
		if err != nil {
			return answered{}, err
		}
		text.WriteString(piece.Text)
	}
	return answered{Reply: llm.Reply{Text: text.String()}, by: s.Provider()}, nil
}

// streaming configures the time limits and the end mark of a stream. Pieces
// without text keep a connection alive and no more.
func (a *agent) streaming(whole bool) stream.Options[llm.Piece] {
	options := stream.Options[llm.Piece]{
		Last:      func(p llm.Piece) bool { return p.Last },
		KeepAlive: func(p llm.Piece) bool { return p.Text == "" && !p.Last },
		Whole:     whole,
	}
	if !a.backends.real {
		options.FirstTimeout, options.StallTimeout = attemptTimeout, attemptTimeout
	}
	return options
}

// show puts a message in front of people.
func (a *agent) show(ctx context.Context, message string) error {
	_, err := registry.Call(ctx, a.screens, func(ctx context.Context, c channel.Channel) (struct{}, error) {
		return struct{}{}, c.Send(ctx, message)
	})
	return err
}

// notify tells programs. A message must not be posted twice, so the call is
// once-only: it moves on only as long as nothing was sent.
func (a *agent) notify(ctx context.Context, message string) error {
	_, err := registry.Call(ctx, a.hooks, func(ctx context.Context, c channel.Channel) (struct{}, error) {
		return struct{}{}, c.Send(ctx, message)
	}, registry.OnceOnly())
	return err
}

// watch prints the events of the registry.
func (a *agent) watch() {
	defer close(a.watching)
	for e := range a.events.All(context.Background()) {
		if line := describe(e); line != "" {
			a.screen.line(line)
		}
	}
}

// chat answers lines from a person.
func (a *agent) chat(ctx context.Context, in io.Reader) error {
	if err := a.show(ctx, "Ask me something; an empty line, or the end of input, ends the chat."); err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() && strings.TrimSpace(lines.Text()) != "" && ctx.Err() == nil {
		if err := a.reply(ctx, lines.Text()); err != nil {
			return err
		}
	}
	return lines.Err()
}

// reply prints the answer as it arrives. Printed text cannot be taken back, so a
// message follows a stream that is cut.
func (a *agent) reply(ctx context.Context, question string) error {
	s, err := stream.Open(ctx, a.models, func(ctx context.Context, m llm.ChatModel) (iter.Seq2[llm.Piece, error], error) {
		return m.Stream(ctx, question)
	}, a.streaming(false))
	if err != nil {
		return a.show(ctx, "no backend can answer: "+err.Error())
	}
	a.screen.part("[" + s.Provider() + "] ")
	for piece, err := range s.All() {
		if err != nil {
			a.screen.part(" … (cut: " + err.Error() + ")")
			break
		}
		a.screen.part(piece.Text)
	}
	a.screen.part("\n")
	return nil
}

// close ends the registry, which closes the clients its factories made.
func (a *agent) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := a.registry.Close(ctx)
	<-a.watching
	return err
}
