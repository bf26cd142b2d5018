package console

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin/action"
	"github.com/capreg/registry/admin/internal/control"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/status"
)

// Sizes of the lists, so that a page stays small whatever the registry has.
const (
	servicesOfPage  = 12
	providersOfPage = 40
	providersShown  = 3 // of each service in the overview
	servicesOpen    = 6 // of those that something is wrong with, so that a page of them is painted soon
	mostTroubles    = 8
	entriesOfPage   = 60
	entriesShown    = 12
	mostSuggested   = 100
)

// group is a service with the mark that it has.
type group struct {
	*control.Service

	Mark mark
	Rank int
	// Rows are its providers, worst first, as many as are shown; More is the number of the others.
	Rows []*control.Row
	More int
	// Open reports that its providers are shown without being asked for.
	Open bool
	// Query names it in the identifiers of a page.
	Query string
}

// groupOf returns a service with at most n of its providers, and with all where n is 0.
func groupOf(s *control.Service, n int) group {
	g := group{Service: s, Rows: ordered(s.Providers, func(r *control.Row) int { _, rank := markOf(r); return rank }), Query: query("name", s.Name)}
	g.Mark, g.Rank = serviceMark(s)
	if n > 0 && len(g.Rows) > n {
		g.More = len(g.Rows) - n
		g.Rows = g.Rows[:n]
	}
	return g
}

// overview is the first page: what is wrong, then all services, the worst first.
type overview struct {
	Totals status.Totals
	State  mark
	// Troubles are the services that something is wrong with, and MoreTroubles counts those that are not listed.
	Troubles     []group
	MoreTroubles int
	Served       int
	Groups       []group
	// Found are the providers of a search; nil: the services are listed.
	Found   []*control.Row
	Search  search
	Pager   pager
	Entries []line
}

// search selects the providers of a list.
type search struct{ Text, State string }

// States are the choices of a search, with their words.
func (search) States() [][2]string {
	return [][2]string{
		{"", "any state"}, {"out", "out of use"}, {"open", "breaker not closed"}, {"unhealthy", "unhealthy"}, {"degraded", "degraded"}, {"drained", "drained"},
	}
}

func (s search) accepts(r *control.Row) bool {
	switch s.State {
	case "out":
		return !r.Eligible
	case "open":
		return r.Breaker.State != status.BreakerClosed
	case "unhealthy":
		return r.State == health.Unhealthy
	case "degraded":
		return r.State == health.Degraded
	case "drained":
		return r.Drained()
	}
	return true
}

func (c *Console) overview(w http.ResponseWriter, r *http.Request) {
	s := c.Control.Snapshot()
	all := ordered(s.Services, func(s *control.Service) int { _, rank := serviceMark(s); return rank })
	o := &overview{Totals: s.Totals, State: stateMark(s.State), Search: search{r.URL.Query().Get("q"), r.URL.Query().Get("state")}}
	bad := 0
	for _, service := range all {
		if _, rank := serviceMark(service); rank < 5 {
			bad++
		}
	}
	for _, service := range all[:min(bad, mostTroubles)] {
		o.Troubles = append(o.Troubles, groupOf(service, 2))
	}
	o.MoreTroubles, o.Served = bad-len(o.Troubles), len(all)-bad
	parameters := map[string]string{"q": o.Search.Text, "state": o.Search.State}
	if o.Search != (search{}) {
		found := o.Search.find(s)
		o.Found, o.Pager = paged(r, found, providersOfPage)
	} else {
		var shown []*control.Service
		shown, o.Pager = paged(r, all, servicesOfPage)
		for i, service := range shown {
			g := groupOf(service, providersShown)
			g.Open = i < servicesOpen && g.Rank < 5
			o.Groups = append(o.Groups, g)
		}
	}
	o.Pager.Query = parameters
	o.Entries = c.lines("", "", entriesShown)
	title := "Registry"
	if bad > 0 {
		title = plural(bad, "service needs", "services need") + " attention"
	}
	c.write(w, r, http.StatusOK, "overview", &page{Title: title, Here: "overview", Live: true, Body: o})
}

// find returns the providers that are searched for, the worst first.
func (s search) find(snapshot *control.Snapshot) []*control.Row {
	rows := snapshot.Rows(control.Filter{Text: s.Text})
	rows = slices.DeleteFunc(rows, func(r *control.Row) bool { return !s.accepts(r) })
	slices.SortStableFunc(rows, func(a, b *control.Row) int {
		_, x := markOf(a)
		_, y := markOf(b)
		return x - y
	})
	return rows
}

// serviceView is the page of one service with all its providers.
type serviceView struct {
	group

	Pager     pager
	Analytics selection.Analytics
	Entries   []line
}

func (c *Console) service(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("name")
	s := c.Control.Snapshot().Service(name)
	if s == nil {
		c.Refuse(w, r, http.StatusNotFound, "There is no service of that name.")
		return
	}
	v := &serviceView{group: groupOf(s, 0), Entries: c.lines(name, "", entriesShown)}
	v.Rows, v.Pager = paged(r, v.Rows, providersOfPage)
	v.Pager.Query = map[string]string{"name": name}
	v.Analytics, _ = c.Control.Registry().Analytics(name)
	c.write(w, r, http.StatusOK, "service", &page{Title: show(name), Here: "service", Live: true, Body: v})
}

// providerView is the page of one provider.
type providerView struct {
	*control.Detail

	Row     *control.Row
	Mark    mark
	Entries []line
	Deeds   []offer
}

func (c *Console) provider(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	target := control.Target{Service: q.Get("service"), Provider: q.Get("provider")}
	detail, err := c.Control.Provider(target)
	if err != nil {
		c.fail(w, r, err)
		return
	}
	row := control.RowOf(&detail.Info, time.Now())
	v := &providerView{
		Detail: detail, Row: &row, Entries: c.lines(row.Service, row.Provider, entriesShown),
		Deeds: c.offers(r, &row),
	}
	v.Mark, _ = markOf(&row)
	slices.Reverse(v.History)
	c.write(w, r, http.StatusOK, "provider", &page{Title: show(row.Provider), Here: "provider", Live: true, Body: v})
}

// offer is an action that the party may take.
type offer struct{ Verb, Title, Service, Provider string }

func (c *Console) offers(r *http.Request, row *control.Row) (all []offer) {
	party := c.Party(r)
	for _, d := range deeds() {
		if d.fits != nil && d.fits(row) && c.Control.MayChange(party, action.Action{Verb: d.Verb, Service: row.Service, Provider: row.Provider}) {
			all = append(all, offer{string(d.Verb), d.Title, row.Service, row.Provider})
		}
	}
	return all
}

// line is an event or a record in words.
type line struct {
	ID       string
	Time     time.Time
	What     string
	Service  string
	Provider string
	Text     string
	Actor    string
	Class    string
}

// lines returns the latest events of a service or of a provider of it, newest first.
func (c *Console) lines(service, provider string, n int) []line {
	limit := n
	if provider != "" {
		limit = 1000
	}
	found := make([]line, 0, n)
	for _, e := range c.Control.Latest(service, false, limit) {
		l := lineOf(e)
		if provider == "" || l.Provider == provider {
			found = append(found, l)
		}
		if len(found) == n {
			break
		}
	}
	return found
}

func lineOf(e *control.Entry) line {
	if a := e.Audit; a != nil {
		l := line{
			ID: e.ID, Time: e.Time, What: strings.ReplaceAll(string(a.Verb), "_", " ") + " " + string(a.Outcome), Service: a.Service,
			Provider: a.Provider, Text: a.Detail, Actor: a.Actor, Class: "audit",
		}
		if a.Component != "" {
			l.Text = a.Component + ": " + l.Text
		}
		if a.Reason != "" {
			l.Text += " – " + a.Reason
		}
		return l
	}
	v := e.Event
	l := line{ID: e.ID, Time: e.Time, What: strings.ReplaceAll(string(v.Kind), "_", " "), Service: v.Service, Provider: v.Provider}
	var parts []string
	if v.From != "" || v.To != "" {
		parts = append(parts, strings.TrimSpace(v.From+" → "+v.To))
	}
	if v.Reason != "" {
		parts = append(parts, v.Reason)
	}
	if v.Err != nil && !strings.Contains(v.Reason, v.Err.Error()) {
		parts = append(parts, v.Err.Error())
	}
	l.Text = strings.Join(parts, ": ")
	return l
}

// eventsView is the page of what happened.
type eventsView struct {
	Service string
	Audits  bool
	Entries []line
	Pager   pager
}

func (c *Console) events(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	v := &eventsView{Service: q.Get("service"), Audits: q.Get("audits") == "true"}
	all := c.Control.Latest(v.Service, v.Audits, 100_000)
	all, v.Pager = paged(r, all, entriesOfPage)
	v.Pager.Query = map[string]string{"service": v.Service}
	if v.Audits {
		v.Pager.Query["audits"] = "true"
	}
	for _, e := range all {
		v.Entries = append(v.Entries, lineOf(e))
	}
	c.write(w, r, http.StatusOK, "events", &page{Title: "Events", Here: "events", Live: true, Body: v})
}

// explainView is the page that explains a query.
type explainView struct {
	// Form holds what was asked, by the names of the fields.
	Form     map[string]string
	Services []string
	Asked    bool
	*control.Selection
	// Strategies reports that the strategies rate their candidates.
	Strategies bool
	Refused    string
}

func (c *Console) explain(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	v := &explainView{Form: make(map[string]string)}
	for _, name := range []string{"service", "require", "exclude", "tags", "handler", "key", "near", "caller"} {
		v.Form[name] = q.Get(name)
	}
	s := c.Control.Snapshot()
	for i := range s.Services[:min(len(s.Services), mostSuggested)] {
		v.Services = append(v.Services, s.Services[i].Name)
	}
	status := http.StatusOK
	if v.Asked = v.Form["service"] != ""; v.Asked {
		asked := registry.Query{
			Handler: v.Form["handler"], Require: listOf(v.Form["require"]), Near: v.Form["near"], Key: v.Form["key"],
			Where: selection.Requirements{Tags: listOf(v.Form["tags"]), Exclude: listOf(v.Form["exclude"])},
		}
		found, err := c.Control.Explain(r.Context(), v.Form["service"], asked, v.Form["caller"])
		if err != nil {
			status, _ = c.Status(err)
			v.Refused = err.Error()
		} else {
			v.Selection = &found
			v.Strategies = slices.ContainsFunc(found.Explanation.Candidates, func(c registry.Candidate) bool { return c.Detail != nil })
		}
	}
	c.write(w, r, status, "explain", &page{Title: "Explain", Here: "explain", Live: v.Selection != nil, Body: v})
}

// Provides reports whether the candidate could be given the call.
func (explainView) Provides(c registry.Candidate) mark {
	switch {
	case c.Code == reason.Trial:
		return marks.halfOpen
	case c.Eligible:
		return mark{"✓", "eligible", "good"}
	default:
		return mark{"✗", strings.ReplaceAll(string(c.Code), "_", " "), "bad"}
	}
}

// listOf reads words with commas between them.
func listOf(text string) (words []string) {
	for word := range strings.SplitSeq(text, ",") {
		if word = strings.TrimSpace(word); word != "" {
			words = append(words, word)
		}
	}
	return words
}

// startupView is the page of the start of the program.
type startupView struct {
	control.Startup

	Picture timeline
	// Restartable reports that the party may restart components.
	Restartable bool
}

func (c *Console) startup(w http.ResponseWriter, r *http.Request) {
	s, err := c.Control.Startup()
	if err != nil {
		c.fail(w, r, err)
		return
	}
	v := &startupView{Startup: s, Picture: timelineOf(&s.Report), Restartable: c.Control.MayChange(c.Party(r), action.Action{Verb: action.Restart})}
	c.write(w, r, http.StatusOK, "startup", &page{Title: "Startup", Here: "startup", Live: true, Body: v})
}
