package sdktest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/capreg/registry/verdict"
)

// Cell holds the outcome of one fault at one client, and its verdict.
type Cell struct {
	Outcome

	Client Client
	Fault  Fault
	// Got is the verdict of the error.
	Got verdict.Verdict
}

// Table has the cells by the names of the fault and of the client.
type Table map[string]map[string]Cell

// Measure plays every fault to every client, each client in its own goroutine.
func Measure(ctx context.Context) (Table, error) {
	var (
		group    sync.WaitGroup
		mu       sync.Mutex
		failures []error
		table    = make(Table)
	)
	for _, fault := range Faults() {
		table[fault.Name] = make(map[string]Cell)
	}
	for _, client := range Clients() {
		group.Go(func() {
			for _, fault := range Faults() {
				outcome, err := client.Try(ctx, fault)
				cell := Cell{Outcome: outcome, Client: client, Fault: fault, Got: verdict.Of(outcome.Err)}
				mu.Lock()
				table[fault.Name][client.Name] = cell
				if err != nil {
					failures = append(failures, fmt.Errorf("%s, %s: %w", client.Name, fault.Name, err))
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return table, errors.Join(failures...)
}

// Check returns an error that names each cell that is not what it has to be.
func (t Table) Check() error {
	var wrong []error
	for _, fault := range Faults() {
		for _, client := range Clients() {
			if err := t[fault.Name][client.Name].check(); err != nil {
				wrong = append(wrong, fmt.Errorf("%s, %s: %w", client.Name, fault.Name, err))
			}
		}
	}
	return errors.Join(wrong...)
}

func (c Cell) check() error {
	if !c.Played {
		return nil
	}
	want, _ := Expected(c.Client, c.Fault)
	if !Same(c.Got, want) {
		return fmt.Errorf("%v after %v of %v, want %v after %v of %v: %w", c.Got.Class, c.Got.After, c.Got.Scope, want.Class, want.After, want.Scope, c.Err)
	}
	asked := int64(1)
	switch c.Fault.Trouble {
	case Refused, NoHost, BadTLS:
		asked = 0
	default:
	}
	unseen := c.Requests == 0 && c.Fault.Trouble == Hangs // the client may give up before the server sees it
	if c.Requests != asked && !unseen {
		return fmt.Errorf("%d requests, want %d", c.Requests, asked)
	}
	if !c.Client.LLM || c.Fault.Status < http.StatusBadRequest {
		return nil
	}
	if got, want := verdict.LLM(c.Err).Class, ExpectedOfLLM(c.Fault, c.Got.Class); got != want {
		return fmt.Errorf("%v for the profile of language models, want %v", got, want)
	}
	return nil
}

// Document returns the page with the table. It needs the versions of the modules; see [Versions].
func Document(table Table, versions map[string]string) string {
	var b strings.Builder
	b.WriteString(opening)
	b.WriteString("| fault | what the server does | class | delay | pause of | once-only moves on |\n|-|-|-|-|-|-|\n")
	for _, fault := range Faults() {
		rule := fault.Want.Class.Rule()
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", fault.Name, fault.Does, fault.Want.Class, delayOf(fault.Want), scopeOf(fault.Want), yesNo(rule.OnceMovesOn))
	}
	b.WriteString(middle)
	number := numbers()
	clients := Clients()
	for _, half := range [][]Client{ofKind(clients, true), ofKind(clients, false)} {
		matrix(&b, table, half, number)
	}
	b.WriteString("## Why some differ\n\n")
	said := 0
	for i, e := range Exceptions() {
		if number[i+1] > said {
			said = number[i+1]
			fmt.Fprintf(&b, "%d. %s\n", said, e.Why)
		}
	}
	b.WriteString(closing)
	b.WriteString("| client | module | version | its own retries |\n|-|-|-|-|\n")
	for _, client := range clients {
		if base, isMore := strings.CutSuffix(client.Name, " +"); isMore && base != "" {
			continue
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", client.Name, client.Module, versions[client.Module], client.Retries)
	}
	return b.String()
}

// numbers returns the numbers that the exceptions have in the page: those with the same reason have the same one.
func numbers() map[int]int {
	number, seen := make(map[int]int), make(map[string]int)
	for i, e := range Exceptions() {
		if _, known := seen[e.Why]; !known {
			seen[e.Why] = len(seen) + 1
		}
		number[i+1] = seen[e.Why]
	}
	return number
}

func ofKind(clients []Client, llm bool) (some []Client) {
	for _, client := range clients {
		if client.LLM == llm {
			some = append(some, client)
		}
	}
	return some
}

func matrix(b *strings.Builder, table Table, clients []Client, number map[int]int) {
	b.WriteString("| fault |")
	for _, client := range clients {
		fmt.Fprintf(b, " %s |", client.Name)
	}
	b.WriteString("\n|-|" + strings.Repeat("-|", len(clients)) + "\n")
	for _, fault := range Faults() {
		cells, played := []string{fault.Name}, false
		for _, client := range clients {
			cell := table[fault.Name][client.Name]
			played = played || cell.Played
			cells = append(cells, textOf(cell, number))
		}
		if played {
			b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
		}
	}
	b.WriteString("\n")
}

// textOf returns the text of a cell: a tick where the error means what the fault demands.
func textOf(cell Cell, number map[int]int) string {
	if !cell.Played {
		return "–"
	}
	_, exceptions := Expected(cell.Client, cell.Fault)
	words := []string{"✓"}
	want := cell.Fault.Want
	switch got := cell.Got; {
	case got.Class != want.Class:
		words[0] = got.Class.String()
	case want.After > 0 && got.After == 0:
		words[0] = "✓, no delay"
	}
	for _, exception := range exceptions {
		words = append(words, fmt.Sprintf("(%d)", number[exception]))
	}
	return strings.Join(words, " ")
}

func delayOf(v verdict.Verdict) string {
	switch {
	case v.After > 0:
		return strings.Replace(v.After.Round(time.Millisecond).String(), "s", " s", 1)
	case v.Class.Rule().Cooldown == verdict.CooldownNone || v.Class.Rule().Cooldown == verdict.CooldownReset:
		return "–"
	}
	return "the registry's"
}

func scopeOf(v verdict.Verdict) string {
	rule := v.Class.Rule()
	scope := v.Scope
	if scope == 0 {
		scope = rule.Scope
	}
	switch {
	case v.After == 0 && (rule.Cooldown == verdict.CooldownNone || rule.Cooldown == verdict.CooldownReset):
		return "–"
	case scope == verdict.ScopeDomain:
		return "domain"
	}
	return "provider"
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

// Versions returns the versions of modules that a go.mod file names.
func Versions(goMod string) (map[string]string, error) {
	text, err := os.ReadFile(goMod) //nolint:gosec // it is one of this repository
	if err != nil {
		return nil, err
	}
	versions := map[string]string{"net/http": "of Go"}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(strings.TrimPrefix(line, "require ")); len(words) >= 2 && strings.HasPrefix(words[1], "v") {
			versions[words[0]] = words[1]
		}
	}
	return versions, nil
}

const (
	opening = `# Errors of clients

What the registry makes of the errors of common clients, without a classifier: a fail-over, a pause or the end of the
call. Each cell was measured: the real client asked a server on loopback that fails in this way, and its error went
through ` + "`verdict.Of`" + `, which reads fields, methods and codes, and never a text.

This page is written by ` + "`go run ./internal/sdktest/table`" + `, and a test compares every cell with what it has to be.

## What each fault means

"Pause of" says what stays out of use for the delay: this provider, or all of its failure domain. "Once-only moves on"
says whether a call that must not take effect twice tries the next provider. What else follows from a class is in
the documentation of package ` + "`verdict`" + `.

`
	middle = `
## What each client says

A tick means: as the row above says. A dash: the API has no such answer, or the client no such call. Numbers are
explained below. A column with "+" is the client with an ` + "`http.Client`" + ` whose transport is a ` + "`verdict.ErrorTransport`" + `:

` + "```go\n" + `client := &http.Client{Transport: &verdict.ErrorTransport{}}
` + "```" + `

It returns each refusal as an error that has the status, the code and the delay, for clients that drop one of them. A
client of MCP needs ` + "`Keep: []int{404, 405}`" + `, which have a meaning of their own there.

`
	closing = `
What is not ticked is in no error of the client, or a ` + "`verdict.ErrorTransport`" + ` has it, so that no client needs a module of
its own for its errors. Two things are left to programs: ` + "`ollama`" + ` returns no error where the connection ends between two
lines of a stream, which its ` + "`Done`" + ` tells; and a session of MCP that has ended is an error without a type, which
` + "`verdict.Map`" + ` can name:

` + "```go\n" + `Classify: verdict.Map(map[error]verdict.Class{mcp.ErrSessionMissing: verdict.ClassNotSent})
` + "```" + `

With ` + "`verdict.LLM`" + ` as the classifier, answers of language models without a code mean: 404 and 410 "not for it", 409 "ask
elsewhere", 413 "too long for it".

## The clients

`
)
