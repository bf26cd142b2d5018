// Command registry works on documents of configuration: it checks them, plans the way from one to another, explains
// what is picked, and prints their JSON Schema,
//
//	registry lint agent.yaml
//	registry plan --from old.yaml agent.yaml
//	registry explain agent.yaml "any question"
//	registry schema > registry.schema.json
//	registry completion bash
//
// and operates a running program by its control API (package admin), which --address, $REGISTRY_ADDRESS or a file names:
//
//	registry top
//	registry health
//	registry providers --ineligible
//	registry fleet
//	registry explain --service llm --exclude primary
//	registry drain --reason "new disk" primary
//	registry reset --service llm
//	registry events --follow
//	registry apply agent.yaml
//
// These need no running program. They do not know a program's kinds: the settings of providers are checked against a
// JSON Schema that the program has printed (lint --schema). It exits with 0, with 1 where a document or an
// action is refused, and with 2 where it was called wrongly, cannot read a file or reaches no program. Colours are for terminals only, and not where NO_COLOR is set.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/capreg/registry/cmd/registry/internal/plain"
	"github.com/capreg/registry/config"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// The statuses of the command.
const (
	exitDone    = 0
	exitRefused = 1
	exitWrong   = 2
	// exitDegraded is that of health.
	exitDegraded = 3
)

// errRefused ends the command after it has printed what is wrong with a document.
var errRefused = errors.New("the document is refused")

func run(arguments []string, out, problems io.Writer) int {
	p := &printer{out: out, colours: colours(out)}
	root := &cobra.Command{
		Use:           "registry",
		Short:         "Check, plan and explain documents of configuration, and operate running programs",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.PersistentFlags().BoolVar(&p.json, "json", false, "print JSON")
	root.AddGroup(&cobra.Group{ID: groupDocuments, Title: "Documents of configuration"}, &cobra.Group{ID: groupOperate, Title: "A running program"})
	for _, command := range []*cobra.Command{lintCommand(p), planCommand(p), explainCommand(p), schemaCommand(p)} {
		command.GroupID = groupDocuments
		root.AddCommand(command)
	}
	root.AddCommand(operateCommands(p)...)
	root.SetArgs(arguments)
	root.SetOut(out)
	root.SetErr(problems)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var refused *apiError
	switch err := root.ExecuteContext(ctx); {
	case err == nil:
		return exitDone
	case errors.Is(err, errRefused):
		return exitRefused
	case errors.Is(err, errDegraded):
		return exitDegraded
	case errors.As(err, &refused) && refused.refuses():
		_, _ = fmt.Fprintln(problems, "registry:", plain.Lines(err.Error()))
		return exitRefused
	default:
		_, _ = fmt.Fprintln(problems, "registry:", plain.Lines(err.Error()))
		return exitWrong
	}
}

// colours reports whether the output is a terminal that shows them.
func colours(out io.Writer) bool {
	file, ok := out.(*os.File)
	_, no := os.LookupEnv("NO_COLOR")
	return ok && !no && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(file.Fd()))
}

// load reads a document, and prints its problems where it has some.
func (p *printer) load(path string) (*config.Document, error) {
	d, err := config.Load(path)
	return d, p.refused(err)
}

// refused prints the problems of a document. Other errors it returns as they are.
func (p *printer) refused(err error) error {
	var refused *config.Error
	if !errors.As(err, &refused) {
		return err
	}
	p.problems(refused.Problems)
	return errRefused
}

const groupDocuments = "documents"
