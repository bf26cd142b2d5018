package admin

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin/internal/control"
	"github.com/capreg/registry/admin/internal/input"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/selection"
)

type priorityInput struct {
	input.Target
	input.Match

	Body struct {
		Priority *registry.Priority  `json:"priority,omitempty" nullable:"true" doc:"CRITICAL, HIGH, NORMAL, LOW or FALLBACK, in any case"`
		Group    *int                `json:"priority_group,omitempty" nullable:"true" doc:"Number of the priority group; lower ones are exhausted first"`
		Strategy *selection.Strategy `json:"strategy,omitempty" nullable:"true" doc:"FALLBACK, ROUND_ROBIN or one that the registry knows; of the whole group"`
		Reason   string              `json:"reason,omitempty" maxLength:"1024" doc:"For the audit"`
	}
}

type resetInput struct {
	input.Match

	Body struct {
		Service  string `json:"service,omitempty" maxLength:"1024" doc:"Only those of that service"`
		Provider string `json:"provider,omitempty" maxLength:"1024" doc:"Only that one"`
		Reason   string `json:"reason,omitempty" maxLength:"1024" doc:"For the audit"`
	}
}

// reasonBody is the body of a change that needs no value.
type reasonBody struct {
	Reason string `json:"reason,omitempty" maxLength:"1024" doc:"For the audit"`
}

type changeInput[T any] struct {
	input.Target
	input.Match

	Body T
}

type weightBody struct {
	Weight float64 `json:"weight" minimum:"0" doc:"Share among others; 0: no traffic"`
	Reason string  `json:"reason,omitempty" maxLength:"1024" doc:"For the audit"`
}

type limitsBody struct {
	Limits registry.LimitPolicy `json:"limits" doc:"Limits of the whole failure domain; {} has none"`
	Reason string               `json:"reason,omitempty" maxLength:"1024" doc:"For the audit"`
}

type openBody struct {
	For    duration `json:"for" doc:"Time for which no call is admitted, such as 10m"`
	Reason string   `json:"reason,omitempty" maxLength:"1024" doc:"Part of errors and explanations meanwhile"`
}

func (h *Handler) addChangeRoutes() {
	huma.Register(h.api, h.operation("set-priority", http.MethodPut, base+"/services/{provider}/priority", "Change priority, group and strategy of a provider at one moment"),
		func(ctx context.Context, in *priorityInput) (*tagged[control.PriorityChanged], error) {
			change := control.PriorityChange{Priority: in.Body.Priority, Group: in.Body.Group, Strategy: in.Body.Strategy}
			done, err := h.control.SetPriority(ctx, h.ask(ctx, in.IfMatch, in.Body.Reason, true), in.Target.Target(), change)
			return taggedOf(done, done.Tag, err)
		})
	huma.Register(h.api, h.operation("reset-breakers", http.MethodPost, base+"/services/circuit-breakers/reset", "Close breakers and end cooldowns: all, of a service, or of a provider"),
		func(ctx context.Context, in *resetInput) (*body[control.ResetDone], error) {
			return answerOf(h.control.Reset(h.ask(ctx, in.IfMatch, in.Body.Reason, true), in.Body.Service, in.Body.Provider))
		})

	addChange(h, http.MethodPut, "weight", "Change the share of a provider among others",
		func(_ context.Context, ask control.Ask, t control.Target, in weightBody) (control.Changed, error) {
			ask.Reason = in.Reason
			return h.control.SetWeight(ask, t, in.Weight)
		})
	addChange(h, http.MethodPut, "limits", "Change the limits of a provider's failure domain",
		func(_ context.Context, ask control.Ask, t control.Target, in limitsBody) (control.Changed, error) {
			ask.Reason = in.Reason
			return h.control.SetLimits(ask, t, in.Limits)
		})
	addChange(h, http.MethodPost, "force-open", "Open the breaker of a provider for a time",
		func(_ context.Context, ask control.Ask, t control.Target, in openBody) (control.Changed, error) {
			ask.Reason = in.Reason
			return h.control.ForceOpen(ask, t, time.Duration(in.For))
		})
	for path, change := range map[string]struct {
		summary string
		make    func(control.Ask, control.Target) (control.Changed, error)
	}{
		"drain":          {"Give a provider no new calls; those in progress go on", func(a control.Ask, t control.Target) (control.Changed, error) { return h.control.Drain(a, t) }},
		"undrain":        {"Give a provider the weight again that it had before", func(a control.Ask, t control.Target) (control.Changed, error) { return h.control.Undrain(a, t) }},
		"clear-cooldown": {"End the cooldowns of a provider and its failure domain", func(a control.Ask, t control.Target) (control.Changed, error) { return h.control.ClearCooldown(a, t) }},
		"mark-unhealthy": {"Take a provider out of every pick", func(a control.Ask, t control.Target) (control.Changed, error) { return h.control.MarkUnhealthy(a, t) }},
		"mark-healthy":   {"End the mark of a provider", func(a control.Ask, t control.Target) (control.Changed, error) { return h.control.MarkHealthy(a, t) }},
	} {
		addChange(h, http.MethodPost, path, change.summary,
			func(_ context.Context, ask control.Ask, t control.Target, in reasonBody) (control.Changed, error) {
				ask.Reason = in.Reason
				return change.make(ask, t)
			})
	}
	huma.Register(h.api, h.operation("check-health", http.MethodPost, base+"/providers/{provider}/check-health", "Probe a provider now"),
		func(ctx context.Context, in *changeInput[reasonBody]) (*body[health.Status], error) {
			return answerOf(h.control.CheckHealth(ctx, h.ask(ctx, in.IfMatch, in.Body.Reason, true), in.Target.Target()))
		})
}

// addChange adds an operation that changes one provider.
func addChange[T any](h *Handler, method, path, summary string, change func(context.Context, control.Ask, control.Target, T) (control.Changed, error)) {
	huma.Register(h.api, h.operation(path, method, base+"/providers/{provider}/"+path, summary),
		func(ctx context.Context, in *changeInput[T]) (*tagged[control.Changed], error) {
			done, err := change(ctx, h.ask(ctx, in.IfMatch, "", false), in.Target.Target(), in.Body)
			return taggedOf(done, done.Tag, err)
		})
}
