package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/capreg/registry"
	"github.com/capreg/registry/cmd/registry/internal/plain"
)

const apiBase = "/v1/runtime"

// operateCommands are those that ask a running program.
func operateCommands(p *printer) []*cobra.Command {
	commands := []*cobra.Command{
		topCommand(p), providersCommand(p), healthCommand(p), fleetCommand(p), eventsCommand(p), resetCommand(p), forceOpenCommand(p), applyCommand(p),
		changeCommand(p, "drain", "Give a provider no new calls; those in progress go on"),
		changeCommand(p, "undrain", "Give a provider the weight again that it had before it was drained"),
		changeCommand(p, "clear-cooldown", "End the cooldowns of a provider and of its failure domain"),
		changeCommand(p, "mark-unhealthy", "Take a provider out of every pick until it is marked healthy"),
		changeCommand(p, "mark-healthy", "End the mark of a provider"),
	}
	for _, command := range commands {
		command.GroupID = groupOperate
	}
	return commands
}

const groupOperate = "operate"

// row is a provider as lists show it.
type row struct {
	Service  string            `json:"service"`
	Provider string            `json:"provider"`
	Group    int               `json:"priority_group"`
	Priority registry.Priority `json:"priority"`
	Weight   float64           `json:"weight"`
	State    string            `json:"state"`
	Eligible bool              `json:"eligible"`
	Code     string            `json:"code"`
	Reason   string            `json:"reason"`
	Breaker  struct {
		State     string    `json:"state"`
		NextTrial time.Time `json:"next_trial"`
	} `json:"circuit_breaker"`
	InFlight   uint64 `json:"in_flight"`
	LastMinute struct {
		Rate   float64 `json:"rate"`
		Errors float64 `json:"errors"`
		P99    string  `json:"p99"`
	} `json:"last_minute"`
}

func providersCommand(p *printer) *cobra.Command {
	var r remote
	var service, state, breaker, search string
	var ineligible bool
	command := &cobra.Command{
		Use:     "providers",
		Short:   "List the providers of a running program",
		Example: "  registry providers --address http://localhost:8080/ops\n  registry providers --ineligible --json",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := r.connect(); err != nil {
				return err
			}
			q := query{"service": {service}, "state": {state}, "circuit_breaker": {breaker}, "search": {search}, "limit": {"1000"}}
			if ineligible {
				q["ineligible"] = []string{"true"}
			}
			all, raw, err := r.providers(command.Context(), q)
			if err != nil {
				return err
			}
			if p.json {
				return p.value(map[string]any{"providers": raw})
			}
			return p.rows(all)
		},
	}
	r.addFlags(command)
	command.Flags().StringVar(&service, "service", "", "only those of that service")
	command.Flags().StringVar(&state, "state", "", "only those of that health: healthy, degraded, unhealthy, starting, unknown, draining")
	command.Flags().StringVar(&breaker, "breaker", "", "only those whose breaker is closed, open or half-open")
	command.Flags().StringVar(&search, "search", "", "only those with that text in name, service, reason or last error")
	command.Flags().BoolVar(&ineligible, "ineligible", false, "only those that no call can be given to")
	return command
}

// providers reads all pages: each provider as a row and as it came.
func (r *remote) providers(ctx context.Context, q query) (all []row, raw []json.RawMessage, err error) {
	raw = []json.RawMessage{}
	for more := true; more; {
		var page struct {
			Providers []json.RawMessage `json:"providers"`
			Next      string            `json:"next_page_token"`
		}
		if _, err := r.get(ctx, apiBase+"/providers", q, &page); err != nil {
			return nil, nil, err
		}
		for _, text := range page.Providers {
			var one row
			if err := json.Unmarshal(text, &one); err != nil {
				return nil, nil, err
			}
			all, raw = append(all, one), append(raw, text)
		}
		q["page_token"], more = []string{page.Next}, page.Next != ""
	}
	return all, raw, nil
}

// rows prints providers as a table.
func (p *printer) rows(all []row) error {
	var text bytes.Buffer
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "SERVICE\tPROVIDER\tGROUP\tPRIORITY\tWEIGHT\tHEALTH\tBREAKER\tIN FLIGHT\tPER S\tERRORS\tP99\tCODE")
	for _, r := range all {
		breaker := r.Breaker.State
		if !r.Breaker.NextTrial.IsZero() {
			breaker += ", trial in " + max(0, time.Until(r.Breaker.NextTrial).Round(time.Second)).String()
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%g\t%s\t%s\t%d\t%.1f\t%.1f %%\t%s\t%s\n", plain.Line(r.Service), plain.Line(r.Provider), r.Group, r.Priority, r.Weight,
			r.State, breaker, r.InFlight, r.LastMinute.Rate, 100*r.LastMinute.Errors, r.LastMinute.P99, r.Code)
	}
	_ = table.Flush() // into memory
	for i, line := range strings.Split(strings.TrimRight(text.String(), "\n"), "\n") {
		colour := ""
		switch {
		case i == 0:
			colour = bold
		case !all[i-1].Eligible:
			colour = red
		case all[i-1].State != "healthy":
			colour = yellow
		}
		p.line(colour, strings.TrimRight(line, " "))
	}
	return nil
}

func healthCommand(p *printer) *cobra.Command {
	var r remote
	command := &cobra.Command{
		Use:     "health",
		Short:   "Show the health of a running program, and what to do about it",
		Long:    "Show the health of a running program, and what to do about it.\nIt exits with 0 where it is healthy, 3 where it is degraded, and 1 where it is unhealthy.",
		Example: "  registry health --address unix:/run/agent.sock",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if err := r.connect(); err != nil {
				return err
			}
			var health struct {
				Overall         string   `json:"overall_health"`
				Reason          string   `json:"reason"`
				Total           int      `json:"total_services"`
				Healthy         int      `json:"healthy_services"`
				Recommendations []string `json:"recommendations"`
			}
			text, err := r.get(command.Context(), apiBase+"/services/health", nil, &health)
			if err != nil {
				return err
			}
			if p.json {
				err = p.value(json.RawMessage(text))
			} else {
				colour := map[string]string{"healthy": green, "degraded": yellow}[health.Overall]
				p.line(first(colour, red), fmt.Sprintf("%s: %d of %d services healthy", health.Overall, health.Healthy, health.Total))
				for _, advice := range health.Recommendations {
					p.line("", "- "+plain.Line(advice))
				}
			}
			switch {
			case err != nil:
				return err
			case health.Overall == "healthy":
				return nil
			case health.Overall == "degraded":
				return errDegraded
			}
			return errRefused
		},
	}
	r.addFlags(command)
	return command
}

// errDegraded ends the command with a status of its own.
var errDegraded = errors.New("the program is degraded")

// target are the flags that name a provider.
type target struct{ service, reason string }

func (t *target) addFlags(command *cobra.Command) {
	command.Flags().StringVar(&t.service, "service", "", "service of the provider, where several have one of that name")
	command.Flags().StringVar(&t.reason, "reason", "", "reason, for the audit")
}

// changed is the answer to a change.
type changed struct {
	Message string `json:"message"`
	Undo    string `json:"undo"`
}

// changes sends a change of a provider and prints what was done.
func (p *printer) changes(ctx context.Context, r *remote, name, operation string, t target, body map[string]any) error {
	if err := r.connect(); err != nil {
		return err
	}
	if t.reason != "" {
		body["reason"] = t.reason
	}
	var done changed
	text, err := r.send(ctx, apiBase+"/providers/-/"+operation, query{"provider": {name}, "service": {t.service}}, body, &done)
	if err != nil {
		return err
	}
	if p.json {
		return p.value(json.RawMessage(text))
	}
	p.line(green, plain.Line(done.Message))
	return nil
}

func changeCommand(p *printer, name, short string) *cobra.Command {
	var r remote
	var t target
	command := &cobra.Command{
		Use:     name + " PROVIDER",
		Short:   short,
		Example: "  registry " + name + " --reason \"new disk\" local-llm",
		Args:    cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, names []string) error {
			return p.changes(command.Context(), &r, names[0], name, t, map[string]any{})
		},
	}
	r.addFlags(command)
	t.addFlags(command)
	return command
}

func forceOpenCommand(p *printer) *cobra.Command {
	var r remote
	var t target
	var open time.Duration
	command := &cobra.Command{
		Use:     "force-open PROVIDER",
		Short:   "Open the breaker of a provider for a time",
		Example: "  registry force-open --for 10m --reason maintenance stripe",
		Args:    cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, names []string) error {
			return p.changes(command.Context(), &r, names[0], "force-open", t, map[string]any{"for": open.String()})
		},
	}
	r.addFlags(command)
	t.addFlags(command)
	command.Flags().DurationVar(&open, "for", 5*time.Minute, "time for which no call is admitted")
	return command
}

func resetCommand(p *printer) *cobra.Command {
	var r remote
	var t target
	var all bool
	command := &cobra.Command{
		Use:     "reset [PROVIDER]",
		Short:   "Close breakers and end cooldowns: of a provider, of a service (--service), or all (--all)",
		Example: "  registry reset stripe\n  registry reset --service payments\n  registry reset --all",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(command *cobra.Command, names []string) error {
			if wide := len(names) == 0 && t.service == ""; wide != all {
				return errors.New("reset wants a PROVIDER, --service or --all")
			}
			body := map[string]string{}
			for field, text := range map[string]string{"service": t.service, "reason": t.reason, "provider": strings.Join(names, "")} {
				if text != "" {
					body[field] = text
				}
			}
			return p.reset(command.Context(), &r, body)
		},
	}
	r.addFlags(command)
	t.addFlags(command)
	command.Flags().BoolVar(&all, "all", false, "reset all providers")
	return command
}

// resetDone is the answer to a reset.
type resetDone struct {
	Message string `json:"message"`
	Still   []struct {
		Service  string `json:"service"`
		Provider string `json:"provider"`
		Reason   string `json:"reason"`
	} `json:"not_closed"`
}

const resetPath = apiBase + "/services/circuit-breakers/reset"

// reset sends a reset and prints what is not closed.
func (p *printer) reset(ctx context.Context, r *remote, body map[string]string) error {
	if err := r.connect(); err != nil {
		return err
	}
	var done resetDone
	text, err := r.send(ctx, resetPath, nil, body, &done)
	if err == nil && p.json {
		err = p.value(json.RawMessage(text))
	} else if err == nil {
		p.line(green, plain.Line(done.Message))
		for _, one := range done.Still {
			p.line(red, fmt.Sprintf("not closed: %s: %s", plain.Line(ofService(one.Service, one.Provider)), plain.Line(one.Reason)))
		}
	}
	if err == nil && len(done.Still) > 0 {
		return errRefused
	}
	return err
}

func applyCommand(p *printer) *cobra.Command {
	var r remote
	var undo bool
	command := &cobra.Command{
		Use:     "apply FILE",
		Short:   "Apply a document to a running program, at one moment or not at all",
		Long:    "Apply a document to a running program, at one moment or not at all. --undo applies the one again that was in force before the last.",
		Example: "  registry plan --live agent.yaml && registry apply agent.yaml\n  registry apply --undo",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(command *cobra.Command, files []string) error {
			switch ctx := command.Context(); {
			case undo == (len(files) == 1):
				return errors.New("apply wants a FILE or --undo")
			case undo:
				return p.undo(ctx, &r)
			default:
				return p.sendDocument(ctx, &r, http.MethodPut, "", files[0])
			}
		},
	}
	r.addFlags(command)
	command.Flags().BoolVar(&undo, "undo", false, "apply the document that was in force before the last one that was applied this way")
	return command
}

// undo applies the former document, and prints the changes.
func (p *printer) undo(ctx context.Context, r *remote) error {
	if err := r.connect(); err != nil {
		return err
	}
	text, err := r.send(ctx, apiBase+"/configuration/undo", nil, map[string]string{}, &struct{}{})
	if err != nil {
		return err
	}
	return p.changesOf(text)
}

// sendDocument sends a file to be planned or applied, and prints the changes.
func (p *printer) sendDocument(ctx context.Context, r *remote, method, path, file string) error {
	document, err := os.ReadFile(file) //nolint:gosec // the file that was named
	if err == nil {
		err = r.connect()
	}
	if err != nil {
		return err
	}
	text, err := r.do(ctx, method, apiBase+"/configuration"+path, nil, "application/yaml", document)
	if err != nil {
		return err
	}
	return p.changesOf(text)
}

// changesOf prints the plan of an answer.
func (p *printer) changesOf(text []byte) error {
	var plan struct {
		Plan json.RawMessage `json:"plan"`
		Text string          `json:"text"`
	}
	if err := json.Unmarshal(text, &plan); err != nil {
		return err
	}
	if p.json {
		return p.value(plan.Plan)
	}
	p.planText(plan.Text)
	return nil
}

// explainLive prints which provider a call of a running program is given to now.
func (p *printer) explainLive(ctx context.Context, r *remote, q query) error {
	if err := r.connect(); err != nil {
		return err
	}
	var found struct {
		Explanation registry.Explanation `json:"explanation"`
	}
	text, err := r.get(ctx, apiBase+"/services/selection", q, &found)
	if err != nil {
		return err
	}
	if p.json {
		err = p.value(json.RawMessage(text))
	} else {
		for line := range strings.Lines(found.Explanation.String()) {
			p.line("", plain.Line(strings.TrimSuffix(line, "\n")))
		}
	}
	if err == nil && found.Explanation.Winner == "" {
		return errRefused
	}
	return err
}
