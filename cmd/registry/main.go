// Command registry works on documents of configuration: it checks them, plans the way from one to another, explains
// what is picked, and prints their JSON Schema.
//
//	registry lint agent.yaml
//	registry plan --from old.yaml agent.yaml
//	registry explain agent.yaml "any question"
//	registry schema > registry.schema.json
//	registry completion bash
//
// It needs no running program. It does not know a program's kinds: the settings of providers are checked against a
// JSON Schema that the program has printed (lint --schema). It exits with 0, with 1 where a document is refused, and
// with 2 where it was called wrongly or cannot read a file. Colours are for terminals only, and not where NO_COLOR is set.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/capreg/registry/config"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// The statuses of the command.
const (
	exitDone    = 0
	exitRefused = 1
	exitWrong   = 2
)

// errRefused ends the command after it has printed what is wrong with a document.
var errRefused = errors.New("the document is refused")

func run(arguments []string, out, problems io.Writer) int {
	p := &printer{out: out, colours: colours(out)}
	root := &cobra.Command{
		Use:           "registry",
		Short:         "Check, plan and explain documents of configuration",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.PersistentFlags().BoolVar(&p.json, "json", false, "print JSON")
	root.AddCommand(lintCommand(p), planCommand(p), explainCommand(p), schemaCommand(p))
	root.SetArgs(arguments)
	root.SetOut(out)
	root.SetErr(problems)
	switch err := root.Execute(); {
	case err == nil:
		return exitDone
	case errors.Is(err, errRefused):
		return exitRefused
	default:
		_, _ = fmt.Fprintln(problems, "registry:", err)
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
