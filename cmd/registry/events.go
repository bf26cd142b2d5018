package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/capreg/registry/cmd/registry/internal/plain"
)

// entry is an event, or a change that was made.
type entry struct {
	Time  time.Time `json:"time"`
	Event *struct {
		Kind     string `json:"kind"`
		Service  string `json:"service"`
		Provider string `json:"provider"`
		From     string `json:"from"`
		To       string `json:"to"`
		Reason   string `json:"reason"`
		Error    string `json:"error"`
	} `json:"event"`
	Audit *struct {
		Verb      string `json:"verb"`
		Outcome   string `json:"outcome"`
		Actor     string `json:"actor"`
		Service   string `json:"service"`
		Provider  string `json:"provider"`
		Component string `json:"component"`
		Detail    string `json:"detail"`
	} `json:"audit"`
}

func eventsCommand(p *printer) *cobra.Command {
	var r remote
	var service string
	var follow bool
	var limit int
	command := &cobra.Command{
		Use:     "events",
		Short:   "Show the latest events and changes of a running program, oldest first",
		Long:    "Show the latest events and changes of a running program, oldest first.\nWith --follow it goes on with what comes, and connects again where it has to. JSON has an event in each line.",
		Example: "  registry events -f --service payments\n  registry events --json -n 1000",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := r.connect(); err != nil {
				return err
			}
			last, err := p.latest(command.Context(), &r, query{"service": {service}, "limit": {strconv.Itoa(limit)}})
			if err != nil || !follow {
				return err
			}
			return p.follow(command.Context(), &r, service, last)
		},
	}
	r.addFlags(command)
	command.Flags().StringVar(&service, "service", "", "only those of that service")
	command.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	command.Flags().IntVarP(&limit, "number", "n", 100, "number of the latest ones, at most 1000")
	return command
}

// latest prints the latest events, and returns the identifier of the newest.
func (p *printer) latest(ctx context.Context, r *remote, q query) (last string, err error) {
	var latest struct {
		Events []json.RawMessage `json:"events"`
	}
	if _, err := r.get(ctx, apiBase+"/events/latest", q, &latest); err != nil {
		return "", err
	}
	for _, text := range slices.Backward(latest.Events) {
		if err := p.event(text); err != nil {
			return "", err
		}
	}
	if len(latest.Events) == 0 {
		return "", nil
	}
	var newest struct {
		ID string `json:"id"`
	}
	err = json.Unmarshal(latest.Events[0], &newest)
	return newest.ID, err
}

// event prints an event as a line.
func (p *printer) event(text json.RawMessage) error {
	if p.json {
		var line bytes.Buffer
		if err := json.Compact(&line, text); err != nil {
			return err
		}
		p.line("", line.String())
		return nil
	}
	var e entry
	if err := json.Unmarshal(text, &e); err != nil {
		return err
	}
	at, line := e.Time.Local().Format("15:04:05"), ""
	switch {
	case e.Audit != nil:
		line = fmt.Sprintf("%s  %s %s %s%s by %s: %s", at, e.Audit.Verb, e.Audit.Outcome, ofService(e.Audit.Service, e.Audit.Provider), e.Audit.Component, first(e.Audit.Actor, "-"), e.Audit.Detail)
	case e.Event != nil:
		line = fmt.Sprintf("%s  %s %s", at, e.Event.Kind, ofService(e.Event.Service, e.Event.Provider))
		if e.Event.From != "" || e.Event.To != "" {
			line += " " + e.Event.From + " → " + e.Event.To
		}
		if why := first(e.Event.Error, e.Event.Reason); why != "" {
			line += ": " + why
		}
	}
	p.line("", plain.Line(line))
	return nil
}

func ofService(service, provider string) string {
	if provider == "" {
		return service
	}
	return service + "/" + provider
}

// follow prints what comes, and connects again until ctx ends.
func (p *printer) follow(ctx context.Context, r *remote, service, last string) error {
	for {
		answer, err := r.open(ctx, http.MethodGet, apiBase+"/events", query{"service": {service}}, "", nil, last) //nolint:bodyclose // by stream
		var refused *apiError
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the end that was asked for
		case errors.As(err, &refused) && refused.refuses():
			return err
		case err == nil:
			last, err = p.stream(answer.Body, last)
			if err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// stream prints the events of one connection and returns the identifier of the last one. The error is of the output.
func (p *printer) stream(body io.ReadCloser, last string) (string, error) {
	err := eachEvent(body, func(kind, id, data string) error {
		if id != "" {
			last = id
		}
		if kind == "lost" {
			p.line(yellow, data+" events were missed")
			return nil
		}
		return p.event(json.RawMessage(data))
	})
	return last, err
}

// eachEvent gives the events of a stream to a function until that fails or the stream ends, and closes it.
func eachEvent(body io.ReadCloser, do func(kind, id, data string) error) error {
	defer func() { _ = body.Close() }()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	kind, id := "", ""
	for lines.Scan() {
		switch name, value, _ := strings.Cut(lines.Text(), ": "); name {
		case "id":
			id = value
		case "event":
			kind = value
		case "data":
			if err := do(kind, id, value); err != nil {
				return err
			}
		}
	}
	return nil
}
