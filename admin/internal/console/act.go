package console

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin/action"
	"github.com/capreg/registry/admin/internal/control"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/status"
)

// deed is an action of an operator, as the pages offer it.
type deed struct {
	Verb  action.Verb
	Title string
	// Effect says what it will do, before it is done.
	Effect string
	// Back says how it can be undone.
	Back string
	// Fields hold the present values of the fields that it needs besides a reason.
	Fields func(*control.Detail) []field
	// fits reports whether a provider's page offers it; nil: none does.
	fits func(*control.Row) bool
	do   func(context.Context, *control.Control, control.Ask, control.Target, url.Values) (result, error)
}

// field is a field of a form.
type field struct {
	Name, Label, Value string
	// Choices are those of a list, and Hint says what can be entered.
	Choices []string
	Hint    string
}

// result tells of an action that was carried out, and has the form that undoes it.
type result struct {
	Message string
	// Undo has the fields of the form that undoes it; nil: nothing does.
	Undo      url.Values
	UndoTitle string
	// Where is the page that shows it.
	Where string
}

// targeted reports whether the action is one of a provider.
func (d *deed) targeted() bool { return d.fits != nil }

func deedOf(verb string) *deed {
	for _, d := range deeds() {
		if string(d.Verb) == verb {
			return &d
		}
	}
	return nil
}

// deeds are all actions, in the order in which pages offer them.
func deeds() []deed {
	always := func(*control.Row) bool { return true }
	return []deed{
		{
			Verb: action.Reset, Title: "Reset breaker", fits: always, do: reset,
			Effect: "The breaker is closed and the cooldowns end, so that calls are given to it at once. If it still fails, its breaker opens again.",
			Back:   "An open breaker can be opened again for the time that it had left.",
		},
		{
			Verb: action.Drain, Title: "Drain", fits: func(r *control.Row) bool { return !r.Drained() },
			Effect: "It gets no new calls; those in progress go on. The others of the service take its share.", Back: "Undrain gives it the same weight again.",
			do: simple((*control.Control).Drain, action.Undrain, "Undrain"),
		},
		{
			Verb: action.Undrain, Title: "Undrain", fits: (*control.Row).Drained,
			Effect: "It gets calls again, with the weight that it had before.", Back: "Drain takes it out of use again.",
			do: simple((*control.Control).Undrain, action.Drain, "Drain again"),
		},
		{
			Verb: action.SetPriority, Title: "Set priority", fits: always, do: setPriority, Fields: priorityFields,
			Effect: "The order in which providers are asked changes with the next call. The strategy is that of its whole group.",
			Back:   "The former values can be set again.",
		},
		{
			Verb: action.SetWeight, Title: "Set weight", fits: always, do: setWeight,
			Fields: func(d *control.Detail) []field {
				return []field{{Name: "weight", Label: "Weight", Value: weightText(&d.Info), Hint: "0 or more; 0 drains it"}}
			},
			Effect: "Its share among the others of its group changes with the next call, where the strategy looks at weights.",
			Back:   "The former weight can be set again.",
		},
		{
			Verb: action.SetLimits, Title: "Set limits", fits: always, do: setLimits, Fields: limitFields,
			Effect: "The limits of all providers of its failure domain change with the next call. Calls in progress and in the queue stay.",
			Back:   "The former limits can be set again.",
		},
		{
			Verb: action.ForceOpen, Title: "Force open", fits: always, do: forceOpen,
			Fields: func(*control.Detail) []field {
				return []field{{Name: "for", Label: "For", Value: "10m", Hint: "a time such as 90s, 10m or 2h"}}
			},
			Effect: "Its breaker opens: it gets no calls for that time, then it is tried again.", Back: "A reset closes the breaker.",
		},
		{
			Verb: action.MarkUnhealthy, Title: "Mark unhealthy", fits: func(r *control.Row) bool { return r.Code != reason.Unhealthy },
			Effect: "It is taken out of every pick until it is marked healthy.", Back: "Mark healthy ends it.",
			do: simple((*control.Control).MarkUnhealthy, action.MarkHealthy, "Mark healthy"),
		},
		{
			Verb: action.MarkHealthy, Title: "Mark healthy", fits: func(r *control.Row) bool { return r.Code == reason.Unhealthy },
			Effect: "It gets calls again; probes that fail count from the beginning.", Back: "Mark unhealthy takes it out again.",
			do: simple((*control.Control).MarkHealthy, action.MarkUnhealthy, "Mark unhealthy again"),
		},
		{
			Verb: action.ClearCooldown, Title: "Clear cooldown", fits: func(r *control.Row) bool { return r.Cooldown != nil },
			Effect: "It and its failure domain are asked again at once, although they have asked to be left alone. The breaker stays as it is.",
			Back:   "It cannot be undone; they cool down again when they ask for it.",
			do:     simple((*control.Control).ClearCooldown, "", ""),
		},
		{
			Verb: action.CheckHealth, Title: "Probe now", fits: always, do: checkHealth,
			Effect: "Its probe runs once, now, and counts as one of the others.", Back: "There is nothing to undo.",
		},
		{
			Verb: action.Restart, Title: "Restart", do: restart,
			Effect: "The component is stopped and started again, and this page waits until it is ready.", Back: "It cannot be undone.",
		},
		{
			Verb: action.Configure, Title: "Apply the former document", do: undoDocument,
			Effect: "The document of before the last one that was applied here is applied again, at one moment or not at all.",
			Back:   "The other one can be applied again.",
		},
	}
}

// simple makes a change that has no values of its own.
func simple(
	change func(*control.Control, control.Ask, control.Target) (control.Changed, error), undo action.Verb, title string,
) func(context.Context, *control.Control, control.Ask, control.Target, url.Values) (result, error) {
	return func(_ context.Context, c *control.Control, ask control.Ask, t control.Target, _ url.Values) (result, error) {
		done, err := change(c, ask, t)
		if err != nil || undo == "" {
			return result{Message: done.Message}, err
		}
		return result{Message: done.Message, Undo: undoOf(undo, t, done.Tag), UndoTitle: title}, nil
	}
}

// undoOf returns the fields of a form that changes a provider back, given as names and values besides the target.
func undoOf(verb action.Verb, t control.Target, tag string, more ...string) url.Values {
	values := url.Values{"verb": {string(verb)}, "service": {t.Service}, "provider": {t.Provider}, "tag": {tag}}
	for i := 0; i+1 < len(more); i += 2 {
		values.Set(more[i], more[i+1])
	}
	return values
}

func reset(_ context.Context, c *control.Control, ask control.Ask, t control.Target, _ url.Values) (result, error) {
	before, err := c.Provider(t)
	known := err == nil && t.Provider != ""
	done, err := c.Reset(ask, t.Service, t.Provider)
	if err != nil {
		return result{}, err
	}
	r := result{Message: done.Message}
	if known {
		r.Message = fmt.Sprintf("the breaker of %s was reset (before: %v)", show(t.Provider), before.Info.Breaker.State)
		if after, err := c.Provider(t); err == nil && before.Info.Breaker.State == status.BreakerOpen {
			left := max(before.Info.Breaker.RetryIn.Round(time.Second), time.Second)
			r.Undo, r.UndoTitle = undoOf(action.ForceOpen, t, after.Tag, "for", left.String()), fmt.Sprintf("Open again for %v", left)
		}
	}
	return r, nil
}

func priorityFields(d *control.Detail) []field {
	names := []string{"CRITICAL", "HIGH", "NORMAL", "LOW", "FALLBACK"}
	return []field{
		{Name: "priority", Label: "Priority", Value: d.Info.Priority.String(), Choices: names},
		{Name: "group", Label: "Group", Value: strconv.Itoa(d.Info.Group), Hint: "lower groups are exhausted first"},
		{Name: "strategy", Label: "Strategy of the group", Value: d.Info.Strategy.String(), Hint: "FALLBACK, ROUND_ROBIN or one that the program knows"},
	}
}

func setPriority(ctx context.Context, c *control.Control, ask control.Ask, t control.Target, form url.Values) (result, error) {
	change := control.PriorityChange{Priority: new(registry.Priority)}
	if err := change.Priority.UnmarshalText([]byte(form.Get("priority"))); err != nil {
		return result{}, invalid("priority", err)
	}
	number, err := strconv.Atoi(strings.TrimSpace(form.Get("group")))
	if err != nil {
		return result{}, invalid("group", fmt.Errorf("%q is no number", show(form.Get("group"))))
	}
	change.Group = &number
	before, err := c.Provider(t)
	if err != nil {
		return result{}, err
	}
	if form.Get("strategy") != before.Info.Strategy.String() {
		named := before.Info.Strategy
		if err := named.UnmarshalText([]byte(strings.TrimSpace(form.Get("strategy")))); err != nil {
			return result{}, invalid("strategy", err)
		}
		change.Strategy = &named
	}
	done, err := c.SetPriority(ctx, ask, t, change)
	if err != nil {
		return result{}, err
	}
	undo := undoOf(action.SetPriority, t, done.Tag, "priority", done.OldPriority.String(), "group", strconv.Itoa(done.OldGroup), "strategy", done.OldStrategy)
	return result{Message: done.Message, Undo: undo, UndoTitle: "Undo"}, nil
}

func weightText(i *registry.Info) string {
	if i.NoTraffic {
		return "0"
	}
	return strconv.FormatFloat(i.Weight, 'g', -1, 64)
}

func setWeight(_ context.Context, c *control.Control, ask control.Ask, t control.Target, form url.Values) (result, error) {
	weight, err := strconv.ParseFloat(strings.TrimSpace(form.Get("weight")), 64)
	if err != nil {
		return result{}, invalid("weight", fmt.Errorf("%q is no number", show(form.Get("weight"))))
	}
	done, err := c.SetWeight(ask, t, weight)
	return result{Message: done.Message, Undo: undoOf(action.SetWeight, t, done.Tag, "weight", done.From), UndoTitle: "Undo"}, err
}

// limitFields has the policy as its JSON form, the words of which are those of documents of configuration.
func limitFields(d *control.Detail) []field {
	text, _ := json.Marshal(d.Info.Limits) // plain data
	return []field{{Name: "limits", Label: "Limits", Value: string(text), Hint: `JSON such as {"max_concurrent": 4, "max_queue": 20, "max_wait": "5s"}; {} has none`}}
}

func setLimits(_ context.Context, c *control.Control, ask control.Ask, t control.Target, form url.Values) (result, error) {
	var limits registry.LimitPolicy
	if err := json.Unmarshal([]byte(form.Get("limits")), &limits); err != nil {
		return result{}, invalid("limits", err)
	}
	before, err := c.Provider(t)
	if err != nil {
		return result{}, err
	}
	done, err := c.SetLimits(ask, t, limits)
	text, _ := json.Marshal(before.Info.Limits) // plain data
	return result{Message: done.Message, Undo: undoOf(action.SetLimits, t, done.Tag, "limits", string(text)), UndoTitle: "Undo"}, err
}

func forceOpen(_ context.Context, c *control.Control, ask control.Ask, t control.Target, form url.Values) (result, error) {
	open, err := time.ParseDuration(strings.TrimSpace(form.Get("for")))
	if err != nil {
		return result{}, invalid("for", fmt.Errorf("%q is no time such as 10m", show(form.Get("for"))))
	}
	done, err := c.ForceOpen(ask, t, open)
	return result{Message: done.Message, Undo: undoOf(action.Reset, t, done.Tag), UndoTitle: "Reset"}, err
}

// probeTime bounds a probe that a page waits for.
const probeTime = 30 * time.Second

func checkHealth(ctx context.Context, c *control.Control, ask control.Ask, t control.Target, _ url.Values) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	found, err := c.CheckHealth(ctx, ask, t)
	return result{Message: fmt.Sprintf("%s is %v", show(t.Provider), found.State)}, err
}

func restart(ctx context.Context, c *control.Control, ask control.Ask, _ control.Target, form url.Values) (result, error) {
	state, err := c.Restart(ctx, ask, form.Get("component"))
	return result{Message: fmt.Sprintf("%s was restarted and is %v", show(form.Get("component")), state)}, err
}

// invalid returns the refusal of a field.
func invalid(name string, err error) error {
	return &control.Error{Kind: control.Invalid, Text: name + ": " + err.Error(), Field: name}
}

// confirmView is the page that says what an action will do, with the form that does it.
type confirmView struct {
	*deed

	Service, Provider, Component, Tag string
	Values                            []field
	// Plan has the changes of a document; nil: it is no action of one.
	Plan *planView
	// Of names the target in words.
	Of string
	// Back leads to where it was asked for.
	Where   string
	Allowed bool
}

// confirm shows what an action will do.
func (c *Console) confirm(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	d := deedOf(q.Get("verb"))
	if d == nil {
		c.Refuse(w, r, http.StatusNotFound, "There is no such action.")
		return
	}
	v := &confirmView{deed: d, Service: q.Get("service"), Provider: q.Get("provider"), Component: q.Get("component"), Where: whereOf(q)}
	switch {
	case d.Verb == action.Restart:
		v.Of = "component " + show(v.Component)
	case d.Verb == action.Configure:
		if err := c.planUndo(r, v); err != nil {
			c.fail(w, r, err, link{v.Where, "Back"})
			return
		}
	case v.Provider != "":
		detail, err := c.Control.Provider(control.Target{Service: v.Service, Provider: v.Provider})
		if err != nil {
			c.fail(w, r, err)
			return
		}
		v.Service, v.Tag = detail.Info.Service, detail.Tag
		v.Of = show(v.Provider) + " of " + show(v.Service)
		if d.Fields != nil {
			v.Values = entered(d.Fields(detail), q)
		}
	case d.Verb != action.Reset:
		c.Refuse(w, r, http.StatusNotFound, "The action needs a provider.")
		return
	case v.Service != "":
		v.Of = "all providers of " + show(v.Service)
	default:
		v.Of = "all providers of all services"
	}
	v.Allowed = c.Control.MayChange(c.Party(r), action.Action{Verb: d.Verb, Service: v.Service, Provider: v.Provider, Component: v.Component})
	c.write(w, r, http.StatusOK, "confirm", &page{Title: d.Title + " of " + v.Of, Here: "act", Body: v})
}

// planUndo adds what the former document would change.
func (c *Console) planUndo(r *http.Request, v *confirmView) error {
	if err := c.Control.MayPlan(c.Party(r)); err != nil {
		return err
	}
	_, tag, err := c.Control.Document()
	if err != nil {
		return err
	}
	planned, err := c.Control.PlanUndo(r.Context())
	if err != nil {
		return err
	}
	v.Of, v.Tag, v.Plan = "configuration", tag, planOf(planned.Text)
	return nil
}

// entered puts what was entered before into the fields of a form that comes again.
func entered(fields []field, q url.Values) []field {
	for i := range fields {
		if q.Has(fields[i].Name) {
			fields[i].Value = q.Get(fields[i].Name)
		}
	}
	return fields
}

// whereOf returns the page that an action belongs to.
func whereOf(form url.Values) string {
	switch {
	case form.Get("verb") == string(action.Configure):
		return "configuration"
	case form.Get("component") != "":
		return "startup"
	case form.Get("provider") != "":
		return "provider?" + query("service", form.Get("service"), "provider", form.Get("provider"))
	case form.Get("service") != "":
		return "service?" + query("name", form.Get("service"))
	}
	return "./"
}

const longestForm = 64 << 10

// act takes a form, and leads to the page that shows what has come of it.
func (c *Console) act(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, longestForm)
	if err := r.ParseForm(); err != nil {
		c.Refuse(w, r, http.StatusBadRequest, "The form cannot be read.")
		return
	}
	form := r.PostForm
	d := deedOf(form.Get("verb"))
	if d == nil || d.Verb != action.Reset && d.targeted() && form.Get("provider") == "" {
		c.Refuse(w, r, http.StatusNotFound, "There is no such action.")
		return
	}
	where := whereOf(form)
	ask := control.Ask{Party: c.Party(r), Match: form.Get("tag"), Reason: form.Get("reason"), Unconditional: d.Verb == action.Reset || d.Verb == action.CheckHealth || d.Verb == action.Restart}
	done, err := d.do(r.Context(), c.Control, ask, control.Target{Service: form.Get("service"), Provider: form.Get("provider")}, form)
	if err != nil {
		form.Del("tag")
		form.Del("reason")
		c.fail(w, r, err, link{"act?" + form.Encode(), "Look at it again"}, link{where, "Back"})
		return
	}
	c.lead(w, where, &done)
}

// lead leads to the page that shows what was done.
func (c *Console) lead(w http.ResponseWriter, where string, done *result) {
	separator := "?"
	if strings.Contains(where, "?") {
		separator = "&"
	}
	w.Header().Set("Location", where+separator+query("done", c.results.add(done))) // below whatever prefix there is
	w.WriteHeader(http.StatusSeeOther)
}

// results keeps what the latest actions have done, for the pages that follow them. The zero value is ready to use.
type results struct {
	mu    sync.Mutex // guards what follows; nothing waits under it
	known map[string]*result
	order []string
}

const mostResults = 256

func (r *results) add(done *result) (id string) {
	id = rand.Text()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = make(map[string]*result)
	}
	r.known[id] = done
	if r.order = append(r.order, id); len(r.order) > mostResults {
		delete(r.known, r.order[0])
		r.order = r.order[1:]
	}
	return id
}

func (r *results) get(id string) *result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known[id]
}
