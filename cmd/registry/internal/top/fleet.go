package top

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/capreg/registry/cmd/registry/internal/plain"
)

// Fleet holds the processes that offer providers to each other, as a program sees them, in the JSON form of the control API.
type Fleet struct {
	Store        string        `json:"store"`
	Reachable    bool          `json:"reachable"`
	Cause        string        `json:"cause"`
	Announcement *Announcement `json:"announcement"`
	Nodes        []Node        `json:"nodes"`
}

// Announcement has the news of a program for the others.
type Announcement struct {
	Node    string `json:"node"`
	State   string `json:"state"`
	Entries int    `json:"entries"`
	Pending int    `json:"pending"`
	Cause   string `json:"cause"`
}

// Node is one process as the program sees it.
type Node struct {
	Name        string    `json:"name"`
	This        bool      `json:"this"`
	State       string    `json:"state"`
	Suspect     bool      `json:"suspect"`
	Since       time.Time `json:"since"`
	Heard       time.Time `json:"heard"`
	Reason      string    `json:"reason"`
	SuspectedBy []string  `json:"suspected_by"`
	Offers      []Offer   `json:"offers"`
}

// Offer is a provider that a node announces.
type Offer struct {
	Service string `json:"service"`
	Name    string `json:"name"`
	Visible bool   `json:"visible"`
	As      string `json:"as"`
	Reason  string `json:"reason"`
}

// mark returns the mark of a node.
func (n *Node) mark() mark {
	word := plain.Line(n.State)
	switch {
	case n.Suspect:
		return mark{"◆", word, warning, 0}
	case len(n.SuspectedBy) > 0:
		return mark{"◆", word, warning, 1}
	case n.State == "present" || n.This:
		return mark{"●", word, good, 5}
	}
	return mark{"○", word, idle, 3}
}

// suspectedBy names the nodes that suspect it.
func (n *Node) suspectedBy() string {
	by := slices.Clone(n.SuspectedBy)
	if n.Suspect {
		by = slices.Insert(by, 0, "this process")
	}
	return strings.Join(by, ", ")
}

const fleetCells = "%-16s %-26s %9s  %-28s %s"

// lines draws the fleet: the suspected nodes first, each with what it announces.
func (f *Fleet) lines(now time.Time) (texts []string) {
	switch {
	case f.Store == "":
	case f.Reachable:
		texts = append(texts, "store "+plain.Line(f.Store)+" is reachable")
	default:
		texts = append(texts, "✖ store "+plain.Line(f.Store)+" is not reachable; what follows was known before: "+plain.Line(f.Cause))
	}
	if a := f.Announcement; a != nil {
		text := fmt.Sprintf("this process is node %s, %s; it announces %d", plain.Line(a.Node), plain.Line(a.State), a.Entries)
		if a.Pending > 0 {
			text += fmt.Sprintf(", %d still to be written", a.Pending)
		}
		if a.Cause != "" {
			text += ": " + plain.Line(a.Cause)
		}
		texts = append(texts, text)
	}
	nodes := slices.Clone(f.Nodes)
	slices.SortStableFunc(nodes, func(a, b Node) int {
		return cmp.Or(cmp.Compare(a.mark().rank, b.mark().rank), cmp.Compare(a.Name, b.Name))
	})
	texts = append(texts, fmt.Sprintf(fleetCells, "  STATE", "NODE / PROVIDER", "HEARD", "SUSPECTED BY", "HERE"))
	for i := range nodes {
		texts = append(texts, nodes[i].lines(now)...)
	}
	if len(nodes) == 0 {
		texts = append(texts, "no node is known")
	}
	return texts
}

func (n *Node) lines(now time.Time) []string {
	state, heard, visible := n.mark(), "-", 0
	if !n.Heard.IsZero() {
		heard = max(0, now.Sub(n.Heard)).Round(time.Second).String()
	}
	for i := range n.Offers {
		if n.Offers[i].Visible {
			visible++
		}
	}
	here := fmt.Sprintf("%d of %d in use", visible, len(n.Offers))
	if n.This {
		here = fmt.Sprintf("this process, announces %d", len(n.Offers))
	}
	if n.Reason != "" {
		here += ": " + plain.Line(n.Reason)
	}
	texts := []string{fmt.Sprintf(fleetCells, cell(" "+state.glyph+" "+state.word, 16), cell(plain.Line(n.Name), 26), heard, cell(plain.Line(cmp.Or(n.suspectedBy(), "-")), 28), here)}
	for i := range n.Offers {
		o := &n.Offers[i]
		as := plain.Line(o.As)
		if !o.Visible {
			as = plain.Line(o.Reason)
		}
		texts = append(texts, fmt.Sprintf(fleetCells, "", cell("  "+plain.Line(o.Service)+"/"+plain.Line(o.Name), 26), "", cell("", 28), as))
	}
	return texts
}

// FleetTable writes the fleet as plain text.
func FleetTable(w io.Writer, f *Fleet, now time.Time) error {
	var text strings.Builder
	for _, line := range f.lines(now) {
		text.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(w, text.String())
	return err
}
