package console

import (
	"fmt"
	"html/template"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/capreg/registry/admin/internal/control"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/status"
)

// mark shows a state by a shape and a word; Class adds a colour and a border.
type mark struct{ Glyph, Word, Class string }

// marks are the marks of states, in the order of the legend.
var marks = struct { //nolint:gochecknoglobals // a table
	healthy, degraded, unhealthy, open, halfOpen, cooling, parked, full, drained, notReady, noProvider mark
}{
	healthy:    mark{"●", "healthy", "good"},
	degraded:   mark{"◆", "degraded", "warn"},
	unhealthy:  mark{"✖", "unhealthy", "bad"},
	open:       mark{"▲", "breaker open", "bad"},
	halfOpen:   mark{"◐", "half-open", "warn"},
	cooling:    mark{"◔", "cooling down", "warn"},
	parked:     mark{"◼", "parked", "bad"},
	full:       mark{"▣", "no free place", "warn"},
	drained:    mark{"◇", "drained", "idle"},
	notReady:   mark{"○", "not ready", "idle"},
	noProvider: mark{"✖", "no provider", "bad"},
}

// legendLine says what a mark stands for.
type legendLine struct {
	mark

	Meaning string
}

// legend returns the marks with what they stand for.
func legend() (lines []legendLine) {
	all := []mark{
		marks.healthy, marks.degraded, marks.unhealthy, marks.open, marks.halfOpen, marks.cooling, marks.parked, marks.full, marks.drained, marks.notReady,
	}
	for i, meaning := range []string{
		"answers", "answers, but not as expected", "its probes fail, or it was marked so; it gets no calls",
		"it has failed too often; it gets no calls until the next trial", "a few calls are given to it on trial",
		"it has asked to be left alone for a time", "it refuses this program: credentials, quota or billing",
		"all its places are taken", "it gets no new calls, by its weight", "it has not been ready yet, or is not picked",
	} {
		lines = append(lines, legendLine{all[i], meaning})
	}
	return lines
}

// markOf returns the mark of a provider, and its rank: lower is worse.
func markOf(r *control.Row) (m mark, rank int) {
	switch r.Code {
	case reason.Unhealthy:
		return marks.unhealthy, 0
	case reason.BreakerOpen:
		return marks.open, 0
	case reason.Parked:
		return marks.parked, 0
	case reason.TrialsFull, reason.Trial:
		return marks.halfOpen, 1
	case reason.CoolingDown:
		return marks.cooling, 1
	case reason.AtCapacity:
		return marks.full, 2
	case reason.NoTraffic:
		return marks.drained, 3
	case reason.Eligible:
		if r.State == health.Degraded {
			return marks.degraded, 2
		}
		return marks.healthy, 5
	default:
		return mark{marks.notReady.Glyph, strings.ReplaceAll(string(r.Code), "_", " "), marks.notReady.Class}, 3
	}
}

// serviceMark returns the mark of a service, and its rank.
func serviceMark(s *control.Service) (mark, int) {
	switch {
	case s.Unserved() && s.Required:
		return marks.noProvider, 0
	case s.Unserved():
		return marks.noProvider, 1
	case s.State == health.Unhealthy:
		return marks.unhealthy, 2
	}
	first, serving := groups(s)
	switch {
	case serving > first:
		return mark{marks.degraded.Glyph, fmt.Sprintf("failed over to group %d", serving), marks.degraded.Class}, 3
	case s.State == health.Degraded, s.OpenBreakers > 0, s.Eligible < wanted(s):
		return marks.degraded, 4
	}
	return marks.healthy, 5
}

// groups returns the first priority group of a service, and the first with a provider that can be given a call.
func groups(s *control.Service) (first, serving int) {
	for i := range s.Providers {
		r := &s.Providers[i]
		if i == 0 || r.Group < first {
			first = r.Group
		}
	}
	none := true
	for i := range s.Providers {
		if r := &s.Providers[i]; r.Eligible && (none || r.Group < serving) {
			serving, none = r.Group, false
		}
	}
	return first, serving
}

// wanted counts the providers that are meant to get calls.
func wanted(s *control.Service) (n int) {
	for i := range s.Providers {
		if !s.Providers[i].Drained() {
			n++
		}
	}
	return n
}

func breakerMark(b *control.Breaker) mark {
	switch b.State {
	case status.BreakerOpen:
		return mark{marks.open.Glyph, "open", marks.open.Class}
	case status.BreakerHalfOpen:
		return marks.halfOpen
	default:
		return mark{"–", "closed", "plain"}
	}
}

// componentMark returns the mark of a component of the program.
func componentMark(s startup.State) mark {
	switch s {
	case startup.Ready, startup.Completed:
		return mark{marks.healthy.Glyph, s.String(), marks.healthy.Class}
	case startup.Failed:
		return mark{marks.unhealthy.Glyph, s.String(), marks.unhealthy.Class}
	case startup.Starting, startup.Restarting:
		return mark{marks.halfOpen.Glyph, s.String(), marks.halfOpen.Class}
	default:
		return mark{marks.notReady.Glyph, s.String(), marks.notReady.Class}
	}
}

// show returns a text in one line in which nothing is invisible: what controls the direction of text, the terminal or
// the line stands as its number.
func show(text string) string {
	if !strings.ContainsFunc(text, isHidden) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if isHidden(r) {
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func isHidden(r rune) bool {
	return unicode.In(r, unicode.C, unicode.Zl, unicode.Zp) || r == unicode.ReplacementChar || unicode.IsSpace(r) && r != ' '
}

// query returns parameters, given as names and values.
func query(pairs ...string) string {
	values := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		values.Add(pairs[i], pairs[i+1])
	}
	return values.Encode()
}

// functions are those of the templates.
func functions() template.FuncMap {
	return template.FuncMap{
		"show": show, "when": when, "whenMS": func(t time.Time) int64 { return t.UnixMilli() },
		"absolute": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
		"iso":      func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
		"percent":  percent, "latency": latency, "rate": rate, "plural": plural, "legend": legend,
		"spark": sparkOf, "join": strings.Join, "words": func(c reason.Code) string { return strings.ReplaceAll(string(c), "_", " ") },
		"mark":      func(r *control.Row) mark { m, _ := markOf(r); return m },
		"node":      func(n *control.FleetNode) mark { m, _ := nodeMark(n); return m },
		"breaker":   breakerMark,
		"component": componentMark,
		"stateMark": stateMark,
		"add":       func(a, b int) int { return a + b },
		"stamp":     func(at time.Time) moment { return moment{at, time.Now()} },
		"table": func(label string, rows []*control.Row, readOnly, named bool) table {
			return table{label, rows, readOnly, named}
		},
	}
}

func stateMark(s health.State) mark {
	switch s {
	case health.Healthy:
		return marks.healthy
	case health.Degraded:
		return marks.degraded
	case health.Unhealthy:
		return marks.unhealthy
	default:
		return mark{marks.notReady.Glyph, s.String(), marks.notReady.Class}
	}
}

// moment is a time with the one from which it is seen.
type moment struct{ At, Now time.Time }

// table is a list of providers. Named ones stand with their service.
type table struct {
	Label           string
	Rows            []*control.Row
	ReadOnly, Named bool
}

// when returns a moment as seen from now, such as "3 min ago" or "in 12 s". The script says it in the same words.
func when(t, now time.Time) string {
	d := t.Sub(now)
	if d > 0 {
		return "in " + span(d+time.Second-1)
	}
	return span(-d) + " ago"
}

func span(d time.Duration) string {
	switch seconds := int(d / time.Second); {
	case seconds < 100:
		return fmt.Sprintf("%d s", seconds)
	case seconds < 100*60:
		return fmt.Sprintf("%d min", seconds/60)
	case seconds < 48*3600:
		return fmt.Sprintf("%d h", seconds/3600)
	default:
		return fmt.Sprintf("%d d", seconds/86400)
	}
}

func percent(share float64) string {
	if share > 0 && share < 0.095 {
		return strconv.FormatFloat(100*share, 'f', 1, 64) + "\u00a0%"
	}
	return strconv.FormatFloat(100*share, 'f', 0, 64) + "\u00a0%"
}

func rate(perSecond float64) string {
	if perSecond >= 10 {
		return strconv.FormatFloat(perSecond, 'f', 0, 64)
	}
	return strconv.FormatFloat(perSecond, 'f', 1, 64)
}

// latency returns a duration in three digits or so; zero: nothing was measured.
func latency(d time.Duration) string {
	switch {
	case d == 0:
		return "–"
	case d < time.Microsecond:
		return "<\u00a01\u00a0µs"
	case d < time.Millisecond:
		return fmt.Sprintf("%d\u00a0µs", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%d\u00a0ms", d.Milliseconds())
	default:
		return fmt.Sprintf("%.1f\u00a0s", d.Seconds())
	}
}

func plural(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + more
}
