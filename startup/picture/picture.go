// Package picture writes plans and reports of a start for drawing programs: Graphviz and the
// viewers of Chrome traces.
package picture

import (
	"bufio"
	"cmp"
	"container/heap"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/capreg/registry/startup"
)

// DOT writes the plan as a graph for Graphviz: a box for each component, those of one batch
// below each other, and an arrow from each provider to the component that needs it. A component
// of a kind, such as a process, has a box with a frame and its kind below its name; the box of
// one that completes is round.
//
// Arrows are solid for needs, dashed for optional ones and dotted where only the order matters;
// their heads are hollow where any one provider is enough. They are labelled with the
// capability where that is not the provider's name. Absent needs are not drawn. The error is
// that of w.
func DOT(w io.Writer, plan startup.Plan) error {
	out := bufio.NewWriter(w) // it keeps the first error for Flush
	_, _ = out.WriteString("digraph plan {\n\trankdir=LR;\n\tnode [shape=box];\n")
	for _, batch := range plan.Batches {
		_, _ = out.WriteString("\t{ rank=same;")
		for _, name := range batch {
			_, _ = fmt.Fprintf(out, " %s;", quote(name))
		}
		_, _ = out.WriteString(" }\n")
	}
	for _, step := range plan.Steps {
		if attributes := lookOf(step); len(attributes) > 0 {
			_, _ = fmt.Fprintf(out, "\t%s [%s];\n", quote(step.Name), strings.Join(attributes, ", "))
		}
	}
	for _, step := range plan.Steps {
		for _, link := range step.After {
			_, _ = fmt.Fprintf(out, "\t%s -> %s", quote(link.Name), quote(step.Name))
			if attributes := attributesOf(link); len(attributes) > 0 {
				_, _ = fmt.Fprintf(out, " [%s]", strings.Join(attributes, ", "))
			}
			_, _ = out.WriteString(";\n")
		}
	}
	_, _ = out.WriteString("}\n")
	return out.Flush()
}

// lookOf returns the attributes of the box of a component, none for a function that goes on.
func lookOf(step startup.Step) (attributes []string) {
	var below []string
	if step.Kind != "" {
		attributes = append(attributes, "peripheries=2")
		below = append(below, step.Kind)
	}
	if step.Completes {
		attributes = append(attributes, "style=rounded")
		below = append(below, "completes")
	}
	if len(below) > 0 {
		attributes = append(attributes, "label="+quote(step.Name+"\n"+strings.Join(below, ", ")))
	}
	return attributes
}

func attributesOf(link startup.Link) (attributes []string) {
	if capability := link.Need.Capability; capability != "" && capability != link.Name {
		attributes = append(attributes, "label="+quote(capability))
	}
	switch {
	case link.Need.OrderOnly:
		attributes = append(attributes, "style=dotted")
	case link.Need.Optional:
		attributes = append(attributes, "style=dashed")
	}
	if link.Need.Any {
		attributes = append(attributes, "arrowhead=empty")
	}
	return attributes
}

// quote returns the text as a string of DOT that is displayed unchanged: labels have escapes of
// their own, which begin with a backslash.
func quote(text string) string {
	var quoted strings.Builder
	quoted.WriteByte('"')
	for _, char := range text {
		switch {
		case char == '"' || char == '\\':
			quoted.WriteByte('\\')
			quoted.WriteRune(char)
		case char == '\n':
			quoted.WriteString(`\n`)
		case char < ' ':
			_, _ = fmt.Fprintf(&quoted, `\\x%02x`, char)
		default:
			quoted.WriteRune(char)
		}
	}
	quoted.WriteByte('"')
	return quoted.String()
}

// ChromeTrace writes the report as a trace, which chrome://tracing and
// https://ui.perfetto.dev show: a bar from the start of each component until it was
// ready, of the category "start", and before it one of the category "queue" where it
// had to wait for its turn.
//
// Times are microseconds from the beginning of the start. Components that overlap are
// in different lanes, which are the threads of the trace. The arguments of a bar say
// how the component fared, and "critical" whether it is on the critical path. A
// component that did not become ready ends where its Start returned or, when its
// readiness was probed after that, where the whole start ended; those that never began
// are left out. The error is that of w.
func ChromeTrace(w io.Writer, report startup.Report) error {
	out := bufio.NewWriter(w) // it keeps the first error for Flush
	_, _ = out.WriteString(`{"displayTimeUnit":"ms","traceEvents":[`)
	for i, e := range eventsOf(report) {
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		_, _ = out.WriteString([]string{",\n", "\n"}[b2i(i == 0)])
		_, _ = out.Write(line)
	}
	_, _ = out.WriteString("\n]}\n")
	return out.Flush()
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// traceEvent is a bar: a complete event of the format.
type traceEvent struct {
	Name     string     `json:"name"`
	Category string     `json:"cat"`
	Phase    string     `json:"ph"`
	Time     float64    `json:"ts"`
	Duration float64    `json:"dur"`
	Process  int        `json:"pid"`
	Lane     int        `json:"tid"`
	Args     *arguments `json:"args,omitempty"`
}

type arguments struct {
	Version   string        `json:"version,omitempty"`
	Kind      string        `json:"kind,omitempty"`
	Detail    string        `json:"detail,omitempty"`
	State     startup.State `json:"state"`
	Batch     int           `json:"batch"`
	Critical  bool          `json:"critical"`
	BlockedBy string        `json:"blocked_by,omitempty"`
	Probes    int           `json:"probes,omitempty"`
	Absent    []string      `json:"absent,omitempty"`
	Reason    string        `json:"reason,omitempty"`
}

// span is a component with its times in the start.
type span struct {
	*startup.Component

	queued, began, end time.Duration
}

func eventsOf(report startup.Report) (events []traceEvent) {
	critical := make(map[string]bool, len(report.Chain))
	for _, name := range report.Chain {
		critical[name] = true
	}
	var free, busy lanes
	for _, s := range spansOf(report) {
		for len(busy) > 0 && busy[0].end <= s.queued {
			freed := heap.Pop(&busy).(lane) //nolint:forcetypeassert // nothing else is in it
			heap.Push(&free, lane{number: freed.number})
		}
		used := lane{number: len(busy) + 1}
		if len(free) > 0 {
			used = heap.Pop(&free).(lane) //nolint:forcetypeassert // nothing else is in it
		}
		used.end = s.end
		heap.Push(&busy, used)
		bar := func(category string, from, to time.Duration, args *arguments) {
			events = append(events, traceEvent{
				Name: s.Name, Category: category, Phase: "X", Time: microseconds(from), Duration: microseconds(to - from),
				Process: 1, Lane: used.number, Args: args,
			})
		}
		if s.queued < s.began {
			bar("queue", s.queued, s.began, nil)
		}
		bar("start", s.began, s.end, &arguments{
			Version: s.Version, Kind: s.Kind, Detail: s.Detail, State: s.State, Batch: s.Batch, Critical: critical[s.Name], BlockedBy: s.BlockedBy,
			Probes: s.Probes, Absent: s.Absent, Reason: s.Reason,
		})
	}
	return events
}

// lane is a row of the picture, and the end of its last bar.
type lane struct {
	end    time.Duration
	number int
}

// lanes is a heap ordered by end, and then by number.
type lanes []lane

func (l *lanes) Len() int { return len(*l) }

func (l *lanes) Less(i, j int) bool {
	a, b := (*l)[i], (*l)[j]
	return a.end < b.end || a.end == b.end && a.number < b.number
}

func (l *lanes) Swap(i, j int) { (*l)[i], (*l)[j] = (*l)[j], (*l)[i] }

func (l *lanes) Push(x any) { *l = append(*l, x.(lane)) } //nolint:forcetypeassert // nothing else is pushed

func (l *lanes) Pop() any {
	last := len(*l) - 1
	popped := (*l)[last]
	*l = (*l)[:last]
	return popped
}

// spansOf returns the components that began, in the order in which they did.
func spansOf(report startup.Report) (spans []span) {
	for i := range report.Components {
		c := &report.Components[i]
		if c.State == startup.Waiting || c.State == startup.Skipped {
			continue
		}
		end := c.Ready
		switch {
		case end > 0:
		case c.Returned > 0 && c.Probes == 0 || c.State == startup.Ready || c.State == startup.Completed:
			end = c.Returned
		default:
			end = report.Wall
		}
		spans = append(spans, span{Component: c, queued: min(c.Queued, c.Started), began: c.Started, end: max(end, c.Started)})
	}
	slices.SortStableFunc(spans, func(a, b span) int { return cmp.Compare(a.queued, b.queued) })
	return spans
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
