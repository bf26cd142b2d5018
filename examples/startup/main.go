// Command startup starts an agent platform of fifteen components in the order of what
// they need, each as soon as that is ready, and stops it in reverse.
//
//	go run ./examples/startup                            # plan, progress, report, stop
//	go run ./examples/startup -fail                      # one fails: the others are rolled back
//	go run ./examples/startup -wait                      # up until it is interrupted
//	go run ./examples/startup -dot plan.dot -trace start.json
//
// Each component is an HTTP server on loopback that needs a while to warm up, as the
// real ones do, and is ready when its health endpoint says so. Nothing else has to run,
// and nothing is kept.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/startup/picture"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "startup:", err)
		os.Exit(1)
	}
}

// settings holds the flags of the command line.
type settings struct {
	fail, wait bool
	dot, trace string
}

// run starts the platform and stops it again; progress goes to a place of its own.
func run(ctx context.Context, arguments []string, out, progress io.Writer) (err error) {
	var s settings
	flags := flag.NewFlagSet("startup", flag.ContinueOnError)
	flags.SetOutput(progress)
	flags.BoolVar(&s.fail, "fail", false, "let the vector store find its index damaged")
	flags.BoolVar(&s.wait, "wait", false, "stay up until interrupted")
	flags.StringVar(&s.dot, "dot", "", "write the plan to this file, for Graphviz")
	flags.StringVar(&s.trace, "trace", "", "write the report to this file, for chrome://tracing")
	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	reg, err := registry.New(registry.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close(context.WithoutCancel(ctx))) }()
	p := newPlatform(reg, s.fail)
	watch := newWatcher(startup.Progress(progress))
	o, err := registry.NewOrchestrator(reg, startup.Options{StartTimeout: 10 * time.Second, Listen: watch.listen}, p.components()...)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "plan\n%v\n\n", o.Plan()); err != nil {
		return err
	}
	if s.dot != "" {
		if err := toFile(s.dot, func(w io.Writer) error { return picture.DOT(w, o.Plan()) }); err != nil {
			return err
		}
	}
	session := session{platform: p, orchestrator: o, watch: watch, out: out, trace: s.trace}
	if s.wait {
		return session.untilInterrupted(ctx)
	}
	return session.once(ctx)
}

// session is one life of the platform.
type session struct {
	platform     *platform
	orchestrator *registry.Orchestrator
	watch        *watcher
	out          io.Writer
	trace        string
}

// once starts the platform, sends it a question and stops it.
func (s session) once(ctx context.Context) error {
	ctx, release := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer release()
	if _, err := s.orchestrator.Start(ctx); err != nil {
		return errors.Join(err, s.rolledBack())
	}
	err := s.started(ctx)
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err = errors.Join(err, s.orchestrator.Stop(stopping))
	return errors.Join(err, s.stopped())
}

// untilInterrupted starts the platform and keeps it up.
func (s session) untilInterrupted(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- s.orchestrator.Run(ctx, os.Interrupt, syscall.SIGTERM) }()
	select {
	case err := <-ended: // it did not come up
		return errors.Join(err, s.rolledBack())
	case <-s.watch.up:
	}
	err := s.started(ctx)
	if err == nil {
		_, err = fmt.Fprintln(s.out, "up until interrupted")
	}
	err = errors.Join(err, <-ended)
	return errors.Join(err, s.stopped())
}

// started shows how the start went, and that the platform works.
func (s session) started(ctx context.Context) error {
	if err := s.report(); err != nil {
		return err
	}
	answer, err := s.platform.ask(ctx, "hello")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "asked over HTTP\n%s\n\n", answer)
	return err
}

func (s session) report() error {
	report := s.orchestrator.Report()
	if s.trace != "" {
		if err := toFile(s.trace, func(w io.Writer) error { return picture.ChromeTrace(w, report) }); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(s.out, "report\n%v\n\n", report)
	return err
}

// rolledBack prints the components that a failed start has stopped again.
func (s session) rolledBack() error {
	err := s.report()
	s.watch.wait()
	_, failed := fmt.Fprintf(s.out, "rolled back, in this order\n%s\n", strings.Join(s.watch.order, ", "))
	return errors.Join(err, failed)
}

func (s session) stopped() error {
	s.watch.wait()
	_, err := fmt.Fprintf(s.out, "stopped, in this order\n%s\n", strings.Join(s.watch.order, ", "))
	return err
}

// watcher follows the events of the start and the stop.
type watcher struct {
	show     func(startup.Event)
	up, down chan struct{}
	order    []string // in which components stopped; not to be read before down is closed
}

func newWatcher(show func(startup.Event)) *watcher {
	return &watcher{show: show, up: make(chan struct{}), down: make(chan struct{})}
}

func (w *watcher) listen(e startup.Event) {
	w.show(e)
	switch {
	case e.Component == "" && e.State == startup.Ready:
		close(w.up)
	case e.Component == "" && e.State == startup.Stopped:
		close(w.down)
	case e.State == startup.Stopped:
		w.order = append(w.order, e.Component)
	}
}

// wait returns when the last event has been shown: events come a moment after what
// they tell of.
func (w *watcher) wait() { <-w.down }

func toFile(path string, write func(io.Writer) error) error {
	file, err := os.Create(path) //nolint:gosec // a path given by the user
	if err != nil {
		return err
	}
	return errors.Join(write(file), file.Close())
}
