package console

import (
	"cmp"
	"maps"
	"net/http"
	"slices"

	"github.com/capreg/registry/admin/internal/control"
)

const (
	nodesOfPage  = 40
	offersOfPage = 100
	mostRefused  = 20
)

// fleetView is the page of the processes that offer providers to each other.
type fleetView struct {
	control.FleetView

	Shown []*control.FleetNode
	// Suspected counts the nodes that are suspected, here or elsewhere.
	Suspected int
	Pager     pager
	Ill       []illRecord
	MoreIll   int
}

// illRecord is a record that was refused.
type illRecord struct{ Key, Why string }

// nodeView is the page of one node with what it announces.
type nodeView struct {
	*control.FleetNode

	Shown []control.FleetOffer
	Pager pager
}

// nodeMark returns the mark of a node, and its rank: lower is worse.
func nodeMark(n *control.FleetNode) (m mark, rank int) {
	m.Word = n.State
	switch {
	case n.Suspect:
		m.Glyph, m.Class, rank = marks.degraded.Glyph, marks.degraded.Class, 0
	case len(n.SuspectedBy) > 0:
		m = mark{marks.degraded.Glyph, n.State + ", suspected elsewhere", marks.degraded.Class}
		rank = 1
	case n.State == "present" || n.This:
		m.Glyph, m.Class, rank = marks.healthy.Glyph, marks.healthy.Class, 5
	default:
		m.Glyph, m.Class, rank = marks.notReady.Glyph, marks.notReady.Class, 3
	}
	return m, rank
}

func (c *Console) fleet(w http.ResponseWriter, r *http.Request) {
	seen, err := c.Control.Fleet()
	if err != nil {
		c.fail(w, r, err)
		return
	}
	if name := r.URL.Query().Get("node"); name != "" {
		c.node(w, r, &seen, name)
		return
	}
	v := &fleetView{FleetView: seen}
	all := ordered(seen.Nodes, func(n *control.FleetNode) int { _, rank := nodeMark(n); return rank })
	for _, n := range all {
		if n.Suspected() {
			v.Suspected++
		}
	}
	v.Shown, v.Pager = paged(r, all, nodesOfPage)
	for key, why := range seen.Refused {
		v.Ill = append(v.Ill, illRecord{key, why})
	}
	if a := seen.Announcement; a != nil {
		for _, key := range slices.Sorted(maps.Keys(a.Refused)) {
			v.Ill = append(v.Ill, illRecord{key, "not announced: " + a.Refused[key]})
		}
	}
	slices.SortFunc(v.Ill, func(a, b illRecord) int { return cmp.Compare(a.Key, b.Key) })
	if more := len(v.Ill) - mostRefused; more > 0 {
		v.Ill, v.MoreIll = v.Ill[:mostRefused], more
	}
	c.write(w, r, http.StatusOK, "fleet", &page{Title: "Fleet", Here: "fleet", Live: true, Body: v})
}

func (c *Console) node(w http.ResponseWriter, r *http.Request, seen *control.FleetView, name string) {
	at := slices.IndexFunc(seen.Nodes, func(n control.FleetNode) bool { return n.Name == name })
	if at < 0 {
		c.Refuse(w, r, http.StatusNotFound, "There is no node of that name.", link{"fleet", "Fleet"})
		return
	}
	v := &nodeView{FleetNode: &seen.Nodes[at]}
	v.Shown, v.Pager = paged(r, v.Offers, offersOfPage)
	v.Pager.Query = map[string]string{"node": name}
	c.write(w, r, http.StatusOK, "node", &page{Title: show(name), Here: "node", Live: true, Body: v})
}
