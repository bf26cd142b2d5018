package probe_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/probe"
)

// naive is the model of a machine: it keeps all results and counts from the end of them each time.
type naive struct {
	policy  health.Policy
	state   health.State
	began   time.Duration
	results []probe.Result
	good    []bool          // whether the score after each result was
	turns   []time.Duration // when it fell, came back, fell again, and so on
}

// flaps counts the falls soon after a return, less those that the time has forgiven.
func (n *naive) flaps() (count int) {
	for i := 2; i < len(n.turns); i += 2 {
		if spells := int((n.turns[i] - n.turns[i-1]) / (40 * n.policy.Interval)); spells == 0 {
			count = min(count+1, 6)
		} else {
			count = max(count-spells, 0)
		}
	}
	return count
}

// heldDown reports whether it has to prove itself for longer, after so many answers in a row.
func (n *naive) heldDown(now time.Duration, answers int) bool {
	factor := 1 << n.flaps()
	return answers < n.policy.Rise*factor && now-n.turns[len(n.turns)-1] < n.policy.Interval*time.Duration(factor)
}

func (n *naive) trailing(is func(i int) bool) (count int) {
	for i := len(n.results) - 1; i >= 0 && is(i); i-- {
		count++
	}
	return count
}

func (n *naive) observe(now time.Duration, r probe.Result) {
	if r.Outcome == probe.Suspected {
		return
	}
	n.results = append(n.results, r)
	failures := n.trailing(func(i int) bool { return n.results[i].Outcome == probe.Failed })
	answers := n.trailing(func(i int) bool { return n.results[i].Outcome != probe.Failed })
	usage := 0.0
	for _, share := range r.Usage {
		usage = max(usage, share)
	}
	score := health.Score(health.Facts{
		Known: true, Failures: failures, Fall: n.policy.Fall, Limps: r.Outcome == probe.Degraded, Took: r.Took, Expected: n.policy.Expected, Usage: usage,
	})
	n.good = append(n.good, score >= health.DegradedBelow)
	byScore := map[bool]health.State{true: healthy, false: degraded}[score >= health.DegradedBelow]
	goodInARow := n.trailing(func(i int) bool { return n.good[i] })
	down := failures >= n.policy.Fall
	switch n.state {
	case unknown, starting:
		n.state = starting
		if answers > 0 {
			n.state = byScore
		} else if down && now-n.began >= n.policy.StartTime {
			n.state, n.turns = unhealthy, append(n.turns, now)
		}
		return
	case healthy:
		n.state = byScore
	case degraded:
		if goodInARow >= n.policy.Rise {
			n.state = healthy
		}
	case unhealthy:
		if answers >= n.policy.Rise && !n.heldDown(now, answers) {
			n.state, n.turns = byScore, append(n.turns, now)
		}
		return
	case health.Draining:
	}
	if down {
		n.state, n.turns = unhealthy, append(n.turns, now)
	}
}

func FuzzMachine_MatchesTheNaiveModel(f *testing.F) {
	f.Add(uint8(3), uint8(2), uint8(0), []byte{0, 1, 2, 2, 2, 0, 0, 2, 3, 4, 5, 0, 0})
	f.Add(uint8(1), uint8(1), uint8(9), []byte{2, 2, 2, 2, 2, 0, 1, 0, 2, 0})
	f.Add(uint8(0), uint8(0), uint8(0), []byte{2, 0, 2, 0, 0, 2, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0})
	f.Add(uint8(0), uint8(0), uint8(0), slices.Concat([]byte{0, 2, 0, 2, 0, 0, 2, 0, 0, 0, 0}, make([]byte, 100), []byte{2, 0, 0, 0, 0, 2, 0, 2}))
	f.Add(uint8(10), uint8(4), uint8(1), []byte{0, 2, 2, 2, 0, 2, 0, 4, 0, 0, 0, 0, 5, 5, 0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 0, 0, 1, 0, 0})
	f.Fuzz(func(t *testing.T, fall, rise, start uint8, script []byte) {
		p := policy()
		p.Fall, p.Rise, p.StartTime, p.Expected = int(fall%12)+1, int(rise%6)+1, time.Duration(start%10)*time.Second, 100*time.Millisecond
		p.Interval = time.Duration(start/10%4+1) * time.Second // so that results come sooner than one is calm, and later
		m := probe.NewMachine(p, true, unknown, 0)
		model := naive{policy: p, state: unknown}
		for i, step := range script[:min(len(script), 300)] {
			r := answer()
			switch step % 6 {
			case 1:
				r = weak()
			case 2:
				r = failure()
			case 3:
				r = suspected()
			case 4:
				r.Took = time.Duration(step) * time.Millisecond
			case 5:
				r.Usage = map[string]float64{"cpu": float64(step) / 255}
			}
			now := time.Duration(i) * time.Second
			m.Observe(now, r)
			model.observe(now, r)
			state, _, _ := m.State()
			require.Equal(t, model.state, state, "after %d results", i+1)
		}
	})
}
