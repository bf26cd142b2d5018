package hosts

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/internal/oneline"
)

// slack is added to the times of federation and of calls, for a machine that is busy.
const slack = 10 * time.Second

// Member is a node, as the test sees it. Use [Host.Join] to create one.
type Member struct {
	*Process

	Host *Host
	Node Node

	offers map[string]bool
}

// Join starts a node on the host, which ends with the test. Others see its providers under its name.
func (h *Host) Join(node Node) *Member {
	h.network.tb.Helper()
	text, err := json.Marshal(node)
	require.NoError(h.network.tb, err)
	m := &Member{Process: h.Start(nodeVariable, string(text)), Host: h, Node: node, offers: map[string]bool{}}
	for _, name := range node.Providers {
		m.offers[name] = true
	}
	return m
}

// State returns what the node knows.
func (m *Member) State() (s State) {
	m.tb.Helper()
	m.ask("state", "", &s)
	return s
}

// Add has the node offer one more provider.
func (m *Member) Add(name string) {
	m.tb.Helper()
	m.Ask("add", name, nil)
	m.offers[name] = true
}

// Drop has the node offer one provider less.
func (m *Member) Drop(name string) {
	m.tb.Helper()
	m.Ask("drop", name, nil)
	delete(m.offers, name)
}

// Cool has the node leave the domain of [Keyed] alone, for longer than any test lasts.
func (m *Member) Cool() {
	m.tb.Helper()
	m.Ask("cool", "", nil)
}

// Ask gives the node a command of its [Parts], and reads the answer; nil: there is none.
func (m *Member) Ask(command, of string, into any) {
	m.tb.Helper()
	if into == nil {
		into = new(any)
	}
	m.ask(command, of, into)
}

// Answers calls the provider until it answers. Calls before that end as those of [Member.Fails].
func (m *Member) Answers(provider string) {
	m.tb.Helper()
	Eventually(m.tb, m.Node.Name+" is answered by "+provider, func() bool {
		called := m.call(provider)
		require.Contains(m.tb, []string{"", provider}, called.Answer)
		return called.Answer != ""
	})
}

// Fails checks that a call of the provider ends in an error that says what it is, within the deadline of the call.
func (m *Member) Fails(provider string) {
	m.tb.Helper()
	called := m.call(provider)
	require.NotEmpty(m.tb, called.Error, "%s calls %s", m.Node.Name, provider)
}

func (m *Member) call(provider string) (called Called) {
	m.tb.Helper()
	m.ask("call", provider, &called)
	if called.Error != "" {
		m.tb.Logf("%s calls %s: %s after %v: %s", m.Node.Name, provider, called.Class, called.Took.Round(time.Millisecond), oneline.Short(called.Error, 160))
		require.NotEmpty(m.tb, called.Class, called.Error)
	}
	require.LessOrEqual(m.tb, called.Took, within+slack)
	return called
}

// Sees waits until the node sees another one in the state.
func (m *Member) Sees(other *Member, state federation.NodeState) {
	m.tb.Helper()
	Eventually(m.tb, m.Node.Name+" sees that "+other.Node.Name+" is "+string(state), func() bool {
		return m.State().Nodes[other.Node.Name] == state
	})
}

// Eventually waits for a condition.
func Eventually(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	late := time.Now().Add(Soon)
	for !holds() {
		require.True(tb, time.Now().Before(late), "not within %v: %s", Soon, what)
		Pass(20 * time.Millisecond)
	}
}

// Pass lets time go by.
func Pass(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}

// Whole waits until each of the members sees exactly what the others offer, all of them present, and returns how long that took.
func Whole(tb testing.TB, members ...*Member) time.Duration {
	tb.Helper()
	begun := time.Now()
	for _, m := range members {
		want := m.sees(members)
		var s State
		whole := func() bool {
			s = m.State()
			present := 0
			for _, state := range s.Nodes {
				if state == federation.NodePresent {
					present++
				}
			}
			return s.Reachable && present == len(members)-1 && len(s.Nodes) == present && slices.Equal(slices.Sorted(maps.Keys(s.Seen)), want)
		}
		for !whole() {
			require.Less(tb, time.Since(begun), Soon, "%s wants %v and is in %+v", m.Node.Name, want, s)
			Pass(20 * time.Millisecond)
		}
	}
	return time.Since(begun)
}

// sees returns the names of what the member has to see, sorted.
func (m *Member) sees(members []*Member) (names []string) {
	for _, other := range members {
		if other == m {
			continue
		}
		for name := range other.offers {
			names = append(names, other.Node.Name+"/"+name)
		}
	}
	slices.Sort(names)
	return names
}

// Kept returns a function that checks that the member has lost no provider of the others since, nor registered one again, but for what those
// have dropped.
func (m *Member) Kept(others ...*Member) (check func()) {
	m.tb.Helper()
	before := m.State()
	return func() {
		m.tb.Helper()
		after := m.State()
		for _, lost := range after.Lost[len(before.Lost):] {
			require.False(m.tb, offered(lost, others), "%s has lost %s, which lives: %+v", m.Node.Name, lost, after)
		}
		for name, generation := range before.Seen {
			if offered(name, others) {
				require.Equal(m.tb, generation, after.Seen[name], "%s has lost %s, or registered it again", m.Node.Name, name)
			}
		}
	}
}

// offered reports whether the provider is one of those that the members offer.
func offered(provider string, members []*Member) bool {
	node, name, _ := strings.Cut(provider, "/")
	return slices.ContainsFunc(members, func(m *Member) bool { return m.Node.Name == node && m.offers[name] })
}
