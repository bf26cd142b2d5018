package console_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/admin/internal/control"
)

// nodes is a fleet that does not change.
type nodes control.FleetView

func (n nodes) View() control.FleetView { return control.FleetView(n) }

func TestFleet_ShowsTheSuspectedNodesFirst(t *testing.T) {
	t.Parallel()
	s := newSite(t, control.Options{Fleet: nodes{
		Store: "bucket", Reachable: true, Beyond: 1,
		Announcement: &control.Announcement{Node: "control", State: "serving", Entries: 2, Pending: 1, Renewed: time.Now(), Refused: map[string]string{"llm/x": "too large"}},
		Nodes: []control.FleetNode{
			{Name: "zeta", State: "suspect", Suspect: true, Reason: "its lease was not renewed", SuspectedBy: []string{"beta", "gamma"}, TTL: "10s", Since: time.Now().Add(-time.Minute), Heard: time.Now().Add(-time.Minute)},
			{Name: "control", State: "present", This: true, Offers: []control.FleetOffer{{Service: "chat", Name: "p", Reason: "the node is this one"}}},
			{Name: "beta", State: "present", SuspectedBy: []string{"gamma"}, Offers: []control.FleetOffer{{Service: "chat", Name: "a", Visible: true, As: "beta/a"}, {Service: "x", Name: "y", Reason: "no binding"}}},
			{Name: "gone", State: "evicted"},
		},
		Refused: map[string]string{"entry.k": "no JSON"},
	}})
	text := s.page(http.StatusOK, "/fleet")
	shows(t, text, `<a href="fleet" aria-current="page">`, "4 nodes, 2 suspected", "reachable", "bucket", "This process is node", "control", "it announces 2 providers, 1 still to be written", "1 record was left out",
		">zeta<", "suspect", "its lease was not renewed", "this process, <bdi>beta, gamma</bdi>",
		">beta<", "present, suspected elsewhere", "<bdi>gamma</bdi>", "2 providers, 1 in use here",
		">gone<", "evicted", ">control<", "this process", "1 provider",
		"Records that are not accepted", "entry.k", "no JSON", "llm/x", "not announced: too large")

	text = s.page(http.StatusOK, "/fleet?node=beta")
	shows(t, text, `<a href="fleet">Fleet</a>`, ">beta<", "<dt>Suspected by</dt><dd><bdi>gamma</bdi>", "2 providers announced", `<a href="provider?service=chat&amp;provider=beta%2fa">`, "not in use:", "no binding")
	shows(t, s.page(http.StatusOK, "/fleet?node=zeta"), "its lease was not renewed", "Lease", "10s", "this process, <bdi>beta, gamma</bdi>", "It announces nothing")
	shows(t, s.page(http.StatusOK, "/fleet?node=control"), "this one; its own providers are not brought in again", "no node")
	shows(t, s.page(http.StatusNotFound, "/fleet?node=none"), "There is no node of that name", `<a href="fleet">`)
}

func TestFleet_SaysThatTheStoreIsAway(t *testing.T) {
	t.Parallel()
	s := newSite(t, control.Options{Fleet: nodes{Store: "bucket", Cause: "no servers", Announcement: &control.Announcement{Node: "n", State: "joining", Cause: "no servers"}}})
	shows(t, s.page(http.StatusOK, "/fleet"), "0 nodes, none suspected", "not reachable", "bucket", "no servers", "what follows was known before", "joining", "No node is known")
}

func TestFleet_IsPaged(t *testing.T) {
	t.Parallel()
	n := nodes{Refused: map[string]string{}}
	for i := range 100 {
		node := control.FleetNode{Name: fmt.Sprintf("node-%03d", i), State: "present"}
		for j := range 250 {
			node.Offers = append(node.Offers, control.FleetOffer{Service: "chat", Name: fmt.Sprintf("p%03d", j)})
		}
		n.Nodes = append(n.Nodes, node)
		n.Refused[fmt.Sprintf("key-%03d", i)] = "no JSON"
	}
	s := newSite(t, control.Options{Fleet: n})
	shows(t, s.page(http.StatusOK, "/fleet"), "node-000", "node-039", "page 1 of 3, 100 in all", "key-019", "and 80 others")
	require.NotContains(t, s.page(http.StatusOK, "/fleet"), "node-040")
	shows(t, s.page(http.StatusOK, "/fleet?page=3"), "node-099")
	shows(t, s.page(http.StatusOK, "/fleet?node=node-001&page=3"), "p249", "?node=node-001&amp;page=2")
}

func TestFleet_IsNotThereWithoutOne(t *testing.T) {
	t.Parallel()
	s := newSite(t, control.Options{})
	require.NotContains(t, s.page(http.StatusOK, "/"), `href="fleet"`)
	s.page(http.StatusNotFound, "/fleet")
}
