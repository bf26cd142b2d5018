package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/capreg/registry"
	"github.com/capreg/registry/cmd/registry/internal/top"
)

func topCommand(p *printer) *cobra.Command {
	var r remote
	var once bool
	command := &cobra.Command{
		Use:   "top",
		Short: "Watch the services and providers of a running program, worst first",
		Long: "Watch the services and providers of a running program, worst first: state, breaker with the time of its next trial, the last minute, last error.\n" +
			"Keys: arrows or j and k move, / filters, enter shows details, e explains, f shows the fleet, r resets, d drains and undrains, q quits. Actions ask first.\n" +
			"Where the output is no terminal, it prints one table and ends.",
		Example: "  registry top --address http://localhost:8080/ops\n  registry top --once",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := r.connect(); err != nil {
				return err
			}
			program := running{&r}
			if file, ok := p.out.(*os.File); ok && !once && !p.json && term.IsTerminal(int(file.Fd())) && term.IsTerminal(int(os.Stdin.Fd())) {
				return top.Run(command.Context(), program, r.base.Redacted(), os.Stdin, file)
			}
			var now top.Snapshot
			text, err := r.get(command.Context(), snapshotPath, nil, &now)
			switch {
			case err != nil:
				return err
			case p.json:
				return p.value(json.RawMessage(text))
			}
			return top.Table(p.out, &now, time.Now())
		},
	}
	r.addFlags(command)
	command.Flags().BoolVar(&once, "once", false, "print one table and end")
	return command
}

const snapshotPath = apiBase + "/snapshot"

// running is the program that top shows.
type running struct{ remote *remote }

// Snapshot reads the program.
func (p running) Snapshot(ctx context.Context) (*top.Snapshot, error) {
	now := &top.Snapshot{}
	_, err := p.remote.get(ctx, snapshotPath, nil, now)
	return now, err
}

// Follow follows its events.
func (p running) Follow(ctx context.Context, connected, changed func()) error {
	answer, err := p.remote.open(ctx, http.MethodGet, apiBase+"/events", nil, "", nil, "") //nolint:bodyclose // by eachEvent
	if err != nil {
		return err
	}
	connected()
	return eachEvent(answer.Body, func(_, _, _ string) error { changed(); return nil })
}

// Explain asks which provider of a service is given a call.
func (p running) Explain(ctx context.Context, service string) (string, error) {
	var found struct {
		Explanation registry.Explanation `json:"explanation"`
	}
	if _, err := p.remote.get(ctx, apiBase+"/services/selection", query{"service": {service}}, &found); err != nil {
		return "", err
	}
	return found.Explanation.String(), nil
}

// Fleet reads what it knows of other processes.
func (p running) Fleet(ctx context.Context) (*top.Fleet, error) {
	all, _, err := p.remote.fleet(ctx)
	return all, err
}

// fleet reads all pages: the fleet, and its nodes as they came.
func (r *remote) fleet(ctx context.Context) (all *top.Fleet, raw map[string]json.RawMessage, err error) {
	nodes := []json.RawMessage{}
	for q := (query{"limit": {"1000"}}); ; {
		page := &top.Fleet{}
		text, err := r.get(ctx, apiBase+"/fleet", q, page)
		if err != nil {
			return nil, nil, err
		}
		var more struct {
			Nodes []json.RawMessage `json:"nodes"`
			Next  string            `json:"next_page_token"`
		}
		if raw == nil {
			err = json.Unmarshal(text, &raw)
		}
		if err = errors.Join(err, json.Unmarshal(text, &more)); err != nil {
			return nil, nil, err
		}
		nodes = append(nodes, more.Nodes...)
		if all == nil {
			all = page
		} else {
			all.Nodes = append(all.Nodes, page.Nodes...)
		}
		if more.Next == "" {
			break
		}
		q["page_token"] = []string{more.Next}
	}
	delete(raw, "next_page_token")
	raw["nodes"], err = json.Marshal(nodes)
	return all, raw, err
}

func fleetCommand(p *printer) *cobra.Command {
	var r remote
	command := &cobra.Command{
		Use:   "fleet",
		Short: "Show the processes that offer providers to each other, as a running program sees them",
		Long: "Show the processes that offer providers to each other, as a running program sees them: which node announces what, what is in use, and which\n" +
			"one is suspected by which. It exits with 3 where a node is suspected or the store cannot be reached.",
		Example: "  registry fleet --address http://localhost:8080/ops\n  registry fleet --json",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := r.connect(); err != nil {
				return err
			}
			all, raw, err := r.fleet(command.Context())
			if err != nil {
				return err
			}
			if p.json {
				err = p.value(raw)
			} else {
				err = top.FleetTable(p.out, all, time.Now())
			}
			suspected := slices.ContainsFunc(all.Nodes, func(n top.Node) bool { return n.Suspect || len(n.SuspectedBy) > 0 })
			if err == nil && (suspected || all.Store != "" && !all.Reachable) {
				err = errDegraded
			}
			return err
		},
	}
	r.addFlags(command)
	return command
}

// Change makes a change.
func (p running) Change(ctx context.Context, c top.Change) (string, error) {
	if c.Verb == top.Reset {
		body := map[string]string{"service": c.Service}
		if c.Provider != "" {
			body["provider"] = c.Provider
		}
		var done resetDone
		_, err := p.remote.send(ctx, resetPath, nil, body, &done)
		var text strings.Builder
		text.WriteString(done.Message)
		for _, one := range done.Still {
			text.WriteString("; not closed: " + ofService(one.Service, one.Provider) + ": " + one.Reason)
		}
		return text.String(), err
	}
	var done changed
	_, err := p.remote.send(ctx, apiBase+"/providers/-/"+string(c.Verb), query{"provider": {c.Provider}, "service": {c.Service}}, map[string]string{}, &done)
	return done.Message, err
}
