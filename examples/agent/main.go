// Command agent is a small agent runtime whose models, channels, memories, audit
// trails, tools and observers are wired through the registry, so that it keeps
// answering while they fail.
//
// With no flags and no API keys it starts its own servers on loopback, which
// speak the wire formats of OpenAI and Anthropic, asks 200 questions, makes the
// servers fail one after another, and shows which one answers. With OPENAI_API_KEY or
// ANTHROPIC_API_KEY set it talks to the real services and makes nothing fail.
// With -chat it answers what you type.
//
// Its files, a room each: agent.go has the services and puts the runtime together,
// providers.go and definitions.go register what is there, decisions.go makes the calls
// and audits them, handlers.go decides what to do with a message, backends.go has the
// servers, session.go and script.go the bad day, chat.go the other mode, screen.go and
// events.go the output. With -config FILE the models, the webhook and the memories come from a
// document (configured.go, agent.yaml), and follow its changes, each watched for a time with -canary TIME, and go on from what
// the run before has learnt with -state FILE. With -metrics ADDR Prometheus can scrape it (metrics.go). With -trace the trees of calls that have moved on are printed (trace.go). With
// -admin ADDR it is looked at and operated in a browser, and with -chaos its servers fail for ever (operate.go).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/capreg/registry"
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
	configured := flags.String("config", "", "a document with models, webhook and memories, which is followed; default: those of the program")
	canary := flags.Duration("canary", 0, "the time for which a change of the document is watched, and taken back if calls fail more often; default: none")
	state := flags.String("state", "", "a file in which what was learnt of the document's providers outlives the program, such as parked keys; default: none")
	metrics := flags.String("metrics", "", "an address at which /metrics is served, such as localhost:9464; default: none")
	traced := flags.Bool("trace", false, "print the tree of calls that have moved on to another provider")
	console := flags.String("admin", "", "an address at which console and control API are served, such as localhost:8080; default: none")
	chaos := flags.Bool("chaos", false, "ask for ever, while one server after another fails")
	dir := flags.String("dir", "", "the folder of memory and audit; default: one that is removed at the end")
	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if *questions < 1 {
		return fmt.Errorf("-questions is %d: want 1 or more", *questions)
	}

	backends, err := newBackends(ctx, *dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, backends.close()) }()
	backends.document, backends.canary, backends.state = *configured, *canary, *state
	reg, err := registry.New(options())
	if err != nil {
		return err
	}
	screen := newScreen(out)
	if *traced {
		stop, failure := traceCalls(reg, screen)
		if failure != nil {
			return failure
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	agent, err := newAgent(ctx, reg, backends, screen)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, agent.close()) }()
	stop, err := serveAll(ctx, reg, screen, *metrics, *console)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if *chat {
		return agent.chat(ctx, in)
	}
	if *chaos {
		return agent.chaos(ctx)
	}
	return agent.play(ctx, *questions)
}
