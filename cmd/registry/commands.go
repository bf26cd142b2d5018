package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/spf13/cobra"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/capreg/registry/config"
)

func lintCommand(p *printer) *cobra.Command {
	var schema string
	command := &cobra.Command{
		Use:     "lint FILE...",
		Short:   "Check documents, each by itself",
		Long:    "Check documents, each by itself: fields, values, bounds of policies, and what they have to agree on.\nA FILE may be a directory of fragments.",
		Example: "  registry lint agent.yaml\n  registry lint --schema agent.schema.json conf.d",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, files []string) error {
			var all []config.Problem
			for _, file := range files {
				problems, err := lint(file, schema)
				if err != nil {
					return err
				}
				all = append(all, problems...)
			}
			if len(all) > 0 {
				p.problems(all)
				return errRefused
			}
			if p.json {
				return p.value(config.Error{Problems: []config.Problem{}})
			}
			p.line(green, fmt.Sprintf("%d checked, nothing wrong", len(files)))
			return nil
		},
	}
	command.Flags().StringVar(&schema, "schema", "", "a JSON Schema that the program has printed, with the settings of its kinds")
	return command
}

// lint returns what is wrong with the document of a file.
func lint(file, schema string) ([]config.Problem, error) {
	d, err := config.Load(file)
	if err == nil {
		err = config.Check(d, config.Options{})
	}
	var refused *config.Error
	switch {
	case errors.As(err, &refused):
		return refused.Problems, nil
	case err != nil || schema == "":
		return nil, err
	}
	return validate(file, d, schema)
}

// validate returns what a schema has against a document.
func validate(file string, d *config.Document, schema string) ([]config.Problem, error) {
	compiled, err := jsonschema.NewCompiler().Compile(schema)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return nil, err
	}
	var invalid *jsonschema.ValidationError
	switch err := compiled.Validate(value); {
	case err == nil:
		return nil, nil
	case !errors.As(err, &invalid):
		return nil, err
	}
	return causes(file, invalid), nil
}

// causes returns the innermost causes of a validation that has failed.
func causes(file string, e *jsonschema.ValidationError) (all []config.Problem) {
	for _, cause := range e.Causes {
		all = append(all, causes(file, cause)...)
	}
	if len(e.Causes) == 0 {
		text := e.ErrorKind.LocalizedString(message.NewPrinter(language.English))
		all = append(all, config.Problem{File: file, Path: pathOf(e.InstanceLocation), Text: text})
	}
	return all
}

// pathOf writes the place in a JSON value as that of a document.
func pathOf(location []string) (path string) {
	for _, name := range location {
		switch {
		case path == "":
			path = name
		case name[0] >= '0' && name[0] <= '9':
			path += "[" + name + "]"
		default:
			path += "." + name
		}
	}
	return path
}

func planCommand(p *printer) *cobra.Command {
	var from string
	var live bool
	var r remote
	command := &cobra.Command{
		Use:     "plan FILE",
		Short:   "Show what a document changes",
		Long:    "Show what a document changes: what is added, altered in place, replaced, removed and kept, and what is picked for its queries\nbefore and after, with all providers healthy. References are not resolved. With --live a running program is asked what\nit would change.",
		Example: "  registry plan --from agent.yaml agent-new.yaml\n  registry plan --json agent.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, files []string) error {
			if live {
				return p.sendDocument(command.Context(), &r, http.MethodPost, "/plan", files[0])
			}
			var old *config.Document
			if from != "" {
				var err error
				if old, err = p.load(from); err != nil {
					return err
				}
			}
			next, err := p.load(files[0])
			if err != nil {
				return err
			}
			plan, err := config.Compare(old, next, config.Options{})
			if err != nil {
				return p.refused(err)
			}
			return p.plan(plan)
		},
	}
	command.Flags().StringVar(&from, "from", "", "the document in force; none: the registry is empty")
	command.Flags().BoolVar(&live, "live", false, "ask a running program")
	command.MarkFlagsMutuallyExclusive("from", "live")
	r.addFlags(command)
	return command
}

func explainCommand(p *printer) *cobra.Command {
	var r remote
	var q struct {
		service, handler, caller, key string
		require, exclude              []string
	}
	command := &cobra.Command{
		Use:               "explain FILE [QUERY] | explain --service NAME",
		Short:             "Show what is picked for a query of a document, and why not the others",
		Long:              "Show what is picked for a query of a document when all providers are healthy, and why not the others.\nWithout a QUERY: for each of them.\nWith --service: what is picked in a running program now. It exits with 1 where none is.",
		Example:           "  registry explain agent.yaml\n  registry explain --json agent.yaml \"any question\"\n  registry explain --service llm --require vision --exclude primary",
		Args:              cobra.MaximumNArgs(2),
		ValidArgsFunction: completeQueries,
		RunE: func(command *cobra.Command, args []string) error {
			if (q.service == "") == (len(args) == 0) {
				return errors.New("explain wants a FILE, or the --service of a running program")
			}
			if q.service != "" {
				return p.explainLive(command.Context(), &r, query{
					"service": {q.service}, "handler": {q.handler}, "caller": {q.caller}, "key": {q.key}, "require": q.require, "exclude": q.exclude,
				})
			}
			d, err := p.load(args[0])
			if err != nil {
				return err
			}
			queries := args[1:]
			if len(queries) == 0 {
				queries = slices.Sorted(maps.Keys(d.Queries))
			}
			if len(queries) == 0 {
				return errors.New("the document has no queries")
			}
			for _, query := range queries {
				if err := p.explain(d, query); err != nil {
					return err
				}
			}
			return nil
		},
	}
	flags := command.Flags()
	flags.StringVar(&q.service, "service", "", "service of a running program")
	flags.StringVar(&q.handler, "handler", "", "handler of the query")
	flags.StringVar(&q.caller, "caller", "", "caller that rates count for")
	flags.StringVar(&q.key, "key", "", "affinity key")
	flags.StringSliceVar(&q.require, "require", nil, "required capabilities")
	flags.StringSliceVar(&q.exclude, "exclude", nil, "providers that are taken away")
	r.addFlags(command)
	return command
}

// explain prints what is picked for one query.
func (p *printer) explain(d *config.Document, query string) error {
	e, err := config.Explain(d, query, config.Options{})
	if err != nil {
		return p.refused(err)
	}
	if p.json {
		return p.value(e)
	}
	p.line(bold, query)
	p.line("", e.String())
	return nil
}

// completeQueries completes the second argument of explain: the queries of the document that is the first.
func completeQueries(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) != 1 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	d, err := config.Load(args[0])
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return slices.Sorted(maps.Keys(d.Queries)), cobra.ShellCompDirectiveNoFileComp
}

func schemaCommand(p *printer) *cobra.Command {
	return &cobra.Command{
		Use:     "schema",
		Short:   "Print the JSON Schema of documents",
		Long:    "Print the JSON Schema of documents, for editors. It leaves the settings of providers open: a program that knows its kinds\nprints one with them (config.Schema).",
		Example: "  registry schema > registry.schema.json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			text, err := config.Schema()
			if err == nil {
				_, err = fmt.Fprintln(p.out, string(text))
			}
			return err
		},
	}
}
