package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/capreg/registry/cmd/registry/internal/plain"
	"github.com/capreg/registry/config"
)

// printer prints results as text, with colours on a terminal, or as JSON.
type printer struct {
	out     io.Writer
	json    bool
	colours bool
}

const (
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	bold   = "\x1b[1m"
	reset  = "\x1b[0m"
)

// line prints one line in a colour.
func (p *printer) line(colour, text string) {
	if p.colours && colour != "" {
		text = colour + text + reset
	}
	_, _ = fmt.Fprintln(p.out, text)
}

// value prints a value as JSON.
func (p *printer) value(v any) error {
	encoder := json.NewEncoder(p.out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// problems prints what is wrong, a line for each.
func (p *printer) problems(all []config.Problem) {
	if p.json {
		_ = p.value(config.Error{Problems: all}) // a plain value
		return
	}
	for _, problem := range all {
		p.line(red, problem.String())
	}
}

// plan prints the lines of a plan, each in the colour of its action.
func (p *printer) plan(plan *config.Plan) error {
	if p.json {
		return p.value(plan)
	}
	p.planText(plan.String())
	return nil
}

// planText prints the lines of a plan.
func (p *printer) planText(text string) {
	for line := range strings.Lines(text) {
		colour := ""
		switch {
		case strings.HasPrefix(line, "+"):
			colour = green
		case strings.HasPrefix(line, "-"):
			colour = red
		case strings.HasPrefix(line, "~"), strings.HasPrefix(line, "±"), strings.HasPrefix(line, "warning"):
			colour = yellow
		case strings.HasPrefix(line, "picked"):
			colour = bold
		}
		p.line(colour, plain.Line(strings.TrimSuffix(line, "\n")))
	}
}
