package top

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/capreg/registry/cmd/registry/internal/plain"
)

// frame is the number of lines around those of the page: title, heads, message and keys.
const frame = 4

// rows is the number of lines that the page has.
func (m *Model) rows() int { return max(1, m.height-frame) }

// style returns the style of a tone.
func (t tone) style() lipgloss.Style {
	switch t {
	case bad:
		return lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Red)
	case warning:
		return lipgloss.NewStyle().Foreground(lipgloss.Yellow)
	case idle:
		return lipgloss.NewStyle().Faint(true)
	case good:
	}
	return lipgloss.NewStyle().Foreground(lipgloss.Green)
}

// View draws the screen.
func (m *Model) View() tea.View {
	v := tea.NewView(strings.Join(m.screen(), "\n"))
	v.AltScreen = true
	return v
}

func (m *Model) screen() []string {
	lines := []string{m.title()}
	if m.page == list {
		lines = append(lines, lipgloss.NewStyle().Bold(true).Render(fit(heads(), m.width)))
		lines = append(lines, m.visible()...)
	} else {
		body := m.body()
		from := max(0, min(m.scrolled, len(body)-1))
		lines = append(lines, "")
		for _, text := range body[from:min(len(body), from+m.rows())] {
			lines = append(lines, fit(text, m.width))
		}
	}
	for len(lines) < frame-2+m.rows() {
		lines = append(lines, "")
	}
	return append(lines[:frame-2+m.rows()], m.note(), m.keys())
}

// title says what is shown, of when, and how it is.
func (m *Model) title() string {
	text, t := " registry top  "+m.address+"  ", idle
	switch stale, why := m.stale(); {
	case stale && m.snapshot == nil:
		text, t = text+"✖ NO ANSWER: "+why, bad
	case stale:
		text, t = text+fmt.Sprintf("✖ STALE, %d s old: %s", int(m.now.Sub(m.read).Seconds()), why), bad
	case m.snapshot == nil:
		text += "…"
	default:
		state := mark{"◆", plain.Line(m.snapshot.State), warning, 0}
		switch m.snapshot.State {
		case "healthy":
			state.glyph, state.tone = "●", good
		case "unhealthy":
			state.glyph, state.tone = "✖", bad
		}
		t = state.tone
		source := "live"
		if !m.following {
			source = "polled"
		}
		text += state.glyph + " " + state.word + "  " + source
		if m.snapshot.Reason != "" {
			text += "  " + plain.Line(m.snapshot.Reason)
		}
	}
	return t.style().Reverse(true).Render(fit(text, m.width))
}

// stale reports whether what is shown may not be so any more, and why.
func (m *Model) stale() (bool, string) {
	if m.problem != nil {
		return true, plain.Line(m.problem.Error())
	}
	return m.snapshot != nil && m.now.Sub(m.read) >= staleAge, "the program does not answer"
}

const cells = "%-16s %-26s %-24s %7s %7s %9s %9s %6s  %s"

func heads() string {
	return fmt.Sprintf(cells, "  STATE", "SERVICE / PROVIDER", "BREAKER", "PER S", "ERRORS", "P50", "P99", "FLIGHT", "LAST ERROR")
}

// visible draws the lines of the list that are in sight.
func (m *Model) visible() (texts []string) {
	for i := m.from; i < min(len(m.lines), m.from+m.rows()); i++ {
		state, text := m.lines[i].text(m.now)
		text = fit(text, m.width)
		if i == m.at {
			texts = append(texts, lipgloss.NewStyle().Reverse(true).Render("▶"+ansi.Cut(text, 1, m.width)))
			continue
		}
		width := min(16, m.width)
		texts = append(texts, state.tone.style().Render(ansi.Cut(text, 0, width))+ansi.Cut(text, width, m.width))
	}
	if len(m.lines) == 0 && m.snapshot != nil {
		texts = append(texts, fit("  nothing has that text in its name, state or last error", m.width))
	}
	return texts
}

// text returns a line without colours, and its mark.
func (l line) text(now time.Time) (mark, string) {
	if l.provider == nil {
		state := serviceMark(l.service)
		text := fmt.Sprintf("%s %s  %d of %d eligible", cell(" "+state.glyph+" "+state.word, 16), cell(plain.Line(l.service.Name), 26), l.service.Eligible, len(l.service.Providers))
		if why := plain.Line(l.service.Reason); why != "" {
			text += ": " + why
		}
		return state, text
	}
	p, state := l.provider, markOf(l.provider)
	why := first(p.lastError(), p.Breaker.Reason)
	if !p.Eligible {
		why = first(why, p.Reason)
	}
	return state, fmt.Sprintf("%s %s %s %7.1f %6.1f%% %9s %9s %6d  %s",
		cell(" "+state.glyph+" "+state.word, 16), cell("  "+plain.Line(p.Name), 26), cell(p.breakerText(now), 24),
		p.LastMinute.Rate, 100*p.LastMinute.Errors, brief(p.LastMinute.P50), brief(p.LastMinute.P99), p.InFlight, plain.Line(why))
}

func first(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}

// cell returns text in exactly width columns.
func cell(text string, width int) string { return fit(ansi.Truncate(text, width, "…"), width) }

// fit returns text in exactly width columns: what is too long is cut, what is too short is filled.
func fit(text string, width int) string {
	text = ansi.Truncate(text, width, "…")
	return text + strings.Repeat(" ", max(0, width-ansi.StringWidth(text)))
}

// brief returns a duration without the digits that nothing depends on.
func brief(text string) string {
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return plain.Line(text)
	case d == 0:
		return "-"
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(100 * time.Nanosecond).String()
}

// body returns the lines of a page that is not the list.
func (m *Model) body() []string {
	if m.page == nodes {
		return m.fleet.lines(m.now)
	}
	if m.page == explanation {
		return append([]string{"Which provider of " + plain.Line(m.of.service) + " a call is given to now:", ""}, m.text...)
	}
	l, ok := m.find(m.of)
	if !ok {
		return []string{plain.Line(m.of.service+"/"+m.of.provider) + " is not there any more"}
	}
	return l.provider.details(m.now)
}

// details says all that is known of a provider.
func (p *Provider) details(now time.Time) []string {
	state := markOf(p)
	texts := []string{
		plain.Line(p.Service) + "/" + plain.Line(p.Name),
		"",
		"state        " + state.glyph + " " + state.word + " (probes: " + plain.Line(p.State) + ", " + since(p.StateSince, now) + ")",
	}
	if p.Reason != "" {
		texts = append(texts, "why          "+plain.Line(p.Reason))
	}
	texts = append(texts, "breaker      "+p.breakerText(now)+" ("+since(p.Breaker.Since, now)+")",
		fmt.Sprintf("             %d failures in a row; the breaker opens at %s", p.Breaker.Failures, threshold(p.Breaker.Threshold)))
	if p.Breaker.Reason != "" {
		texts = append(texts, "             "+plain.Line(p.Breaker.Reason))
	}
	if p.Cooldown != nil {
		rest := "ends " + in(p.Cooldown.Until, now)
		if p.Cooldown.Parked {
			rest += "; parked until it is reset"
		}
		texts = append(texts, "cooldown     "+rest)
	}
	texts = append(texts,
		fmt.Sprintf("picking      group %d, priority %s, %s, weight %g", p.Group, strings.Trim(plain.Line(string(p.Priority)), `"`), plain.Line(p.Strategy), p.Weight),
		fmt.Sprintf("last minute  %.1f attempts a second, %.1f %% errors, p50 %s, p99 %s", p.LastMinute.Rate, 100*p.LastMinute.Errors, brief(p.LastMinute.P50), brief(p.LastMinute.P99)),
		fmt.Sprintf("now          %d in flight, places %s, queue %s", p.InFlight, bounded(p.Places, p.MaxPlaces), bounded(p.Queued, p.MaxQueue)),
		fmt.Sprintf("so far       %d attempts, %d failures", p.Attempts, p.Failures))
	if e := p.LastError; e != nil {
		texts = append(texts, "last error   "+max(0, now.Sub(e.Time)).Round(time.Second).String()+" ago, "+plain.Line(e.Class)+": "+plain.Line(e.Text))
	}
	return texts
}

func threshold(n int) string {
	if n == 0 {
		return "a rate"
	}
	return strconv.Itoa(n)
}

func bounded(n, limit int) string {
	if limit == 0 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%d of %d", n, limit)
}

// since says for how long something has been so.
func since(at, now time.Time) string {
	if at.IsZero() {
		return "from the start"
	}
	return "for " + max(0, now.Sub(at)).Round(time.Second).String()
}

// note is the line of questions, messages and the filter.
func (m *Model) note() string {
	switch {
	case m.asked != nil:
		return warning.style().Bold(true).Render(fit(" "+question(*m.asked), m.width))
	case m.typing:
		return fit(" filter: "+m.filter+"▏", m.width)
	case m.message != "" && m.failed:
		return bad.style().Render(fit(" ✖ "+m.message, m.width))
	case m.message != "":
		return fit(" "+m.message, m.width)
	case m.filter != "":
		return fit(" filter: "+m.filter+" (esc ends it)", m.width)
	}
	return ""
}

// question says what a change will do, before it is made.
func question(c Change) string {
	name := plain.Line(c.Service)
	if c.Provider != "" {
		name += "/" + plain.Line(c.Provider)
	}
	switch c.Verb {
	case Reset:
		if c.Provider == "" {
			return "Reset all of " + name + "? Its breakers close, cooldowns end, and calls are given to them at once. [y/n]"
		}
		return "Reset " + name + "? Its breaker closes, its cooldown ends, and calls are given to it at once. [y/n]"
	case Drain:
		return "Drain " + name + "? It gets no new calls; those in progress go on. [y/n]"
	default:
		return "Undrain " + name + "? It gets calls again, by the weight that it had. [y/n]"
	}
}

func (m *Model) keys() string {
	text := " ↑↓ jk move  / filter  enter details  e explain  r reset  d drain/undrain  f fleet  q quit"
	switch {
	case m.asked != nil:
		text = " y yes  n no"
	case m.typing:
		text = " enter keeps the filter  esc ends it"
	case m.page == nodes:
		text = " esc back  ↑↓ jk scroll  q quit"
	case m.page != list:
		text = " esc back  ↑↓ jk scroll  e explain  r reset  d drain/undrain  q quit"
	}
	return idle.style().Render(fit(text, m.width))
}

// Table writes services and providers as plain text, worst first.
func Table(w io.Writer, s *Snapshot, now time.Time) error {
	text := strings.Builder{}
	text.WriteString(heads() + "\n")
	for _, l := range linesOf(s, "") {
		_, one := l.text(now)
		text.WriteString(strings.TrimRight(one, " ") + "\n")
	}
	_, err := io.WriteString(w, text.String())
	return err
}
