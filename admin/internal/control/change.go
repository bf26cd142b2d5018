package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin/action"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/status"
)

// Changed is the result of a change of one provider.
type Changed struct {
	Target

	Action action.Verb `json:"action"`
	// From and To are the value before and after, as text.
	From string `json:"from"`
	To   string `json:"to"`
	// Message states what was done, Undo what undoes it.
	Message string `json:"message"`
	Undo    string `json:"undo,omitempty"`
	// Tag is the new tag of the provider's settings.
	Tag string `json:"-"`
}

// change makes one change of one provider.
func (c *Control) change(
	ask Ask, verb action.Verb, t Target, act func(actor string, handle *registry.Registration, info *registry.Info) (Changed, error),
) (Changed, error) {
	handle, t, err := c.find(t)
	if err != nil {
		return Changed{}, c.missing(ask, verb, t, err)
	}
	var done Changed
	err = c.do(ask, action.Action{Verb: verb, Service: t.Service, Provider: t.Provider}, func(actor string) (string, error) {
		info := handle.Info()
		err := ask.matches(c.tag(handle, &info))
		if err == nil {
			done, err = act(actor, handle, &info)
		}
		if err != nil {
			return "", err
		}
		c.revisions.add(info.Generation)
		done.Target, done.Action = t, verb
		info = handle.Info()
		done.Tag = c.tag(handle, &info)
		return done.Message, nil
	})
	return done, err
}

// missing refuses a change of a target that is not there: only a party that may make it is told so.
func (c *Control) missing(ask Ask, verb action.Verb, t Target, reason error) error {
	return c.do(ask, action.Action{Verb: verb, Service: t.Service, Provider: oneline.Short(t.Provider, longestName)}, func(string) (string, error) {
		return "", reason
	})
}

// by returns the reason of a change with its actor, for events and explanations.
func by(actor, reason, none string) string {
	return oneline.Short(cmp.Or(reason, none)+" (by "+cmp.Or(actor, "an operator")+")", longestReason)
}

// PriorityChange changes the order of a provider; nil fields stay as they are.
type PriorityChange struct {
	Priority *registry.Priority
	Group    *int
	Strategy *selection.Strategy
}

// PriorityChanged is the result of a change of the order of a provider.
type PriorityChanged struct {
	Service     string            `json:"service"`
	Provider    string            `json:"provider_name"`
	OldPriority registry.Priority `json:"old_priority"`
	NewPriority registry.Priority `json:"new_priority"`
	OldGroup    int               `json:"old_priority_group"`
	NewGroup    int               `json:"new_priority_group"`
	OldStrategy string            `json:"old_strategy"`
	NewStrategy string            `json:"new_strategy"`
	Message     string            `json:"message"`
	Tag         string            `json:"-"`
}

// SetPriority changes priority, group and strategy of a provider at one moment. The strategy is that of its whole group.
func (c *Control) SetPriority(ctx context.Context, ask Ask, t Target, change PriorityChange) (PriorityChanged, error) {
	var result PriorityChanged
	done, err := c.change(ask, action.SetPriority, t, func(_ string, handle *registry.Registration, info *registry.Info) (Changed, error) {
		result = PriorityChanged{
			Service: info.Service, Provider: info.Name,
			OldPriority: info.Priority, OldGroup: info.Group, OldStrategy: info.Strategy.String(),
		}
		if err := c.update(ctx, info, change); err != nil {
			return Changed{}, err
		}
		now := handle.Info()
		result.NewPriority, result.NewGroup, result.NewStrategy = now.Priority, now.Group, now.Strategy.String()
		from := orderOf(result.OldPriority, result.OldGroup, result.OldStrategy)
		to := orderOf(result.NewPriority, result.NewGroup, result.NewStrategy)
		return Changed{From: from, To: to, Message: fmt.Sprintf("%s is now %s (before: %s)", info.Name, to, from)}, nil
	})
	result.Message, result.Tag = done.Message, done.Tag
	return result, err
}

func orderOf(p registry.Priority, group int, strategy string) string {
	return fmt.Sprintf("%s in group %d, %s", p, group, strategy)
}

func (c *Control) update(ctx context.Context, info *registry.Info, change PriorityChange) error {
	var u registry.Update
	changes := 0
	if change.Priority != nil && *change.Priority != info.Priority {
		u.SetPriority(info.Service, info.Name, *change.Priority)
		changes++
	}
	if change.Group != nil && *change.Group != info.Group {
		u.SetGroup(info.Service, info.Name, *change.Group)
		changes++
	}
	if change.Strategy != nil && !change.Strategy.IsZero() {
		u.SetStrategy(info.Service, info.Name, *change.Strategy)
		changes++
	}
	if changes == 0 {
		return nil
	}
	return c.registry.Update(ctx, &u)
}

// SetWeight changes the share of a provider among others; zero drains it.
func (c *Control) SetWeight(ask Ask, t Target, weight float64) (Changed, error) {
	return c.change(ask, action.SetWeight, t, func(_ string, handle *registry.Registration, info *registry.Info) (Changed, error) {
		return c.setWeight(handle, info, weight, "the weight of %s is now %s (before: %s)", "set the weight to the former one")
	})
}

// Drain gives a provider no new calls; those in progress go on.
func (c *Control) Drain(ask Ask, t Target) (Changed, error) {
	return c.change(ask, action.Drain, t, func(_ string, handle *registry.Registration, info *registry.Info) (Changed, error) {
		return c.setWeight(handle, info, 0, "%s gets no new calls: weight %s (before: %s)", "undrain")
	})
}

// Undrain gives a provider the weight again that it had before it was drained.
func (c *Control) Undrain(ask Ask, t Target) (Changed, error) {
	return c.change(ask, action.Undrain, t, func(_ string, handle *registry.Registration, info *registry.Info) (Changed, error) {
		weight := weightOf(info)
		if weight == 0 {
			weight = cmp.Or(c.weights[info.Generation], 1)
		}
		return c.setWeight(handle, info, weight, "%s gets calls again: weight %s (before: %s)", "drain")
	})
}

func (c *Control) setWeight(handle *registry.Registration, info *registry.Info, weight float64, message, undo string) (Changed, error) {
	before, err := handle.SetWeight(weight)
	if err != nil {
		return Changed{}, err
	}
	if weight == 0 && before > 0 {
		c.weights[info.Generation] = before
		c.forgetWeights()
	} else if weight > 0 {
		delete(c.weights, info.Generation)
	}
	from, to := number(before), number(weight)
	return Changed{From: from, To: to, Message: fmt.Sprintf(message, info.Name, to, from), Undo: undo}, nil
}

// forgetWeights forgets those of providers that have left. Caller holds mu.
func (c *Control) forgetWeights() {
	there := make(map[uint64]bool)
	for _, handle := range c.registry.Registrations() {
		there[handle.Info().Generation] = true
	}
	for generation := range c.weights {
		if !there[generation] {
			delete(c.weights, generation)
		}
	}
}

func number(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

// SetLimits changes the limits of a provider's whole failure domain.
func (c *Control) SetLimits(ask Ask, t Target, limits registry.LimitPolicy) (Changed, error) {
	return c.change(ask, action.SetLimits, t, func(_ string, handle *registry.Registration, info *registry.Info) (Changed, error) {
		before, err := handle.SetLimits(limits)
		if err != nil {
			return Changed{}, err
		}
		from, to := limitsOf(before), limitsOf(handle.Limits())
		return Changed{From: from, To: to, Message: fmt.Sprintf("the limits of %s are now %s (before: %s)", info.Name, to, from), Undo: "set the former limits"}, nil
	})
}

func limitsOf(l registry.LimitPolicy) string {
	text, err := l.MarshalJSON()
	if err != nil || string(text) == "{}" {
		return "none"
	}
	return string(text)
}

// ForceOpen opens the breaker of a provider for a time.
func (c *Control) ForceOpen(ask Ask, t Target, open time.Duration) (Changed, error) {
	return c.change(ask, action.ForceOpen, t, func(actor string, handle *registry.Registration, info *registry.Info) (Changed, error) {
		if err := handle.ForceOpen(open, by(actor, ask.Reason, "forced open")); err != nil {
			return Changed{}, err
		}
		return Changed{
			From: info.Breaker.State.String(), To: status.BreakerOpen.String(), Undo: "reset",
			Message: fmt.Sprintf("%s gets no calls for %v; then it is tried again", info.Name, open),
		}, nil
	})
}

// ClearCooldown ends the cooldowns of a provider and of its failure domain.
func (c *Control) ClearCooldown(ask Ask, t Target) (Changed, error) {
	return c.change(ask, action.ClearCooldown, t, func(_ string, handle *registry.Registration, info *registry.Info) (Changed, error) {
		if err := handle.CoolDown(status.Cooldown{}, nil); err != nil {
			return Changed{}, err
		}
		from := "none"
		if !info.Cooldown.Until.IsZero() {
			from = "until " + info.Cooldown.Until.UTC().Format(time.RFC3339)
		}
		return Changed{From: from, To: "none", Message: fmt.Sprintf("%s does not cool down (before: %s)", info.Name, from)}, nil
	})
}

// MarkUnhealthy takes a provider out of every pick until MarkHealthy.
func (c *Control) MarkUnhealthy(ask Ask, t Target) (Changed, error) {
	return c.change(ask, action.MarkUnhealthy, t, func(actor string, handle *registry.Registration, info *registry.Info) (Changed, error) {
		if err := handle.MarkUnhealthy(errors.New(by(actor, ask.Reason, "marked unhealthy"))); err != nil {
			return Changed{}, err
		}
		return Changed{
			From: info.Health.State.String(), To: handle.Health().State.String(), Undo: "mark healthy",
			Message: info.Name + " is marked unhealthy and gets no calls until it is marked healthy",
		}, nil
	})
}

// MarkHealthy ends the mark, and counts as the successes that an unhealthy provider needs.
func (c *Control) MarkHealthy(ask Ask, t Target) (Changed, error) {
	return c.change(ask, action.MarkHealthy, t, func(_ string, handle *registry.Registration, info *registry.Info) (Changed, error) {
		if err := handle.MarkHealthy(); err != nil {
			return Changed{}, err
		}
		return Changed{
			From: info.Health.State.String(), To: handle.Health().State.String(), Undo: "mark unhealthy",
			Message: info.Name + " is marked healthy; probes that fail count from the beginning",
		}, nil
	})
}

// CheckHealth probes a provider now, within ctx.
func (c *Control) CheckHealth(ctx context.Context, ask Ask, t Target) (found health.Status, err error) {
	handle, t, err := c.find(t)
	if err != nil {
		return found, c.missing(ask, action.CheckHealth, t, err)
	}
	err = c.doSlowly(ctx, ask, action.Action{Verb: action.CheckHealth, Service: t.Service, Provider: t.Provider},
		func(ctx context.Context, _ string) (detail string, err error) {
			found, err = handle.CheckHealth(ctx)
			return found.State.String(), err
		})
	return found, err
}

// Kept is a provider whose breaker is not closed, or that cools down.
type Kept struct {
	Target

	Breaker status.BreakerState `json:"circuit_breaker_state"`
	Cooling bool                `json:"cooling_down,omitempty"`
	Reason  string              `json:"reason,omitempty"`
}

// ResetDone is the result of a reset.
type ResetDone struct {
	Service  string `json:"service,omitempty"`
	Provider string `json:"provider,omitempty"`
	// Count is the number of breakers and cooldowns that were reset and were not closed, or ended, before.
	Count int `json:"reset_count"`
	// Affected are the services of those.
	Affected []string `json:"services_affected"`
	// WereNotClosed are the providers that were kept away by a breaker or a cooldown, StillNotClosed those that are
	// again, or that have left meanwhile.
	WereNotClosed  []Kept `json:"were_not_closed"`
	StillNotClosed []Kept `json:"not_closed"`
	Message        string `json:"message"`
}

// Reset closes breakers and ends cooldowns: of all providers, of those of a service, or of one.
func (c *Control) Reset(ask Ask, service, provider string) (ResetDone, error) {
	handles, refusal := c.toReset(service, provider)
	a := action.Action{Verb: action.Reset, Service: service, Provider: oneline.Short(provider, longestName)}
	if provider != "" && refusal == nil {
		a.Service = handles[0].Definition().Service
	}
	done := ResetDone{Service: a.Service, Provider: a.Provider, Affected: []string{}, WereNotClosed: []Kept{}, StillNotClosed: []Kept{}}
	err := c.do(ask, a, func(string) (string, error) {
		if refusal != nil {
			return "", refusal
		}
		tag := "" // several providers have none
		if provider != "" {
			info := handles[0].Info()
			tag = c.tag(handles[0], &info)
		}
		if err := ask.matches(tag); err != nil {
			return "", err
		}
		for _, handle := range handles {
			done.reset(handle)
			c.revisions.add(handle.Info().Generation)
		}
		slices.Sort(done.Affected)
		done.Affected = slices.Compact(done.Affected)
		done.Message = fmt.Sprintf("%s reset, %d of them not closed before", oneline.Plural(len(handles), "breaker"), done.Count)
		return done.Message, nil
	})
	return done, err
}

func (c *Control) toReset(service, provider string) ([]*registry.Registration, error) {
	if provider != "" {
		handle, _, err := c.find(Target{service, provider})
		return []*registry.Registration{handle}, err
	}
	if service == "" {
		return c.registry.Registrations(), nil
	}
	handles := c.registry.Registrations(service)
	if len(handles) == 0 {
		return nil, &Error{Kind: NotFound, Text: fmt.Sprintf("there is no provider of service %q", oneline.Short(service, longestName))}
	}
	return handles, nil
}

func (d *ResetDone) reset(handle *registry.Registration) {
	before := handle.Info()
	err := handle.Reset()
	if kept, is := keptOf(&before); is && err == nil {
		d.Count++
		d.Affected = append(d.Affected, kept.Service)
		d.WereNotClosed = append(d.WereNotClosed, kept)
	}
	after := handle.Info()
	if kept, is := keptOf(&after); is || err != nil {
		if err != nil {
			kept.Reason = oneline.Of(err.Error())
		}
		d.StillNotClosed = append(d.StillNotClosed, kept)
	}
}

func keptOf(i *registry.Info) (k Kept, is bool) {
	k = Kept{Target{i.Service, i.Name}, i.Breaker.State, !i.Cooldown.Until.IsZero(), cmp.Or(i.Breaker.Reason, i.Reason)}
	return k, k.Breaker != status.BreakerClosed || k.Cooling
}
