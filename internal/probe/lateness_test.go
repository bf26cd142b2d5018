package probe_test

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/probe"
)

// askedOnly returns a policy whose probes run only when a test asks for them. Its intervals are unequal, so that no
// probe is offset to an earlier time.
func askedOnly() health.Policy {
	p := policy()
	p.Interval, p.IdleInterval, p.FastInterval = 20*time.Hour, 10*time.Hour, 10*time.Hour
	return p
}

// checkAll makes the probes of all subjects due at once and waits for their results.
func (h *host) checkAll(subjects []*subject) {
	var results []<-chan struct{}
	h.locked(func() {
		for _, s := range subjects {
			results = append(results, s.watch.CheckNow()...)
		}
	})
	for _, result := range results {
		<-result
	}
}

func TestLateness_ComparesResultsUpToThirtySecondsOld(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		later   time.Duration
		suspect bool
	}{
		"at the end of the window": {30 * time.Second, true},
		"after the window":         {30*time.Second + 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, 100, func(t *testing.T, h *host) {
				targets := make([]target, 5)
				var providers []*subject
				for i := range targets {
					providers = append(providers, h.watched(strconv.Itoa(i), askedOnly(), targets[i].probe))
					targets[i].set(nil, time.Hour)
				}
				h.checkAll(providers[:4])
				for _, a := range providers[:4] {
					require.False(t, a.status().Suspected, "four are too few")
				}
				time.Sleep(row.later - askedOnly().Timeout)
				last := providers[4]
				last.check()
				require.Equal(t, row.suspect, last.status().Suspected)
			})
		})
	}
}

func TestLateness_OfATimerCountsForAWindowAndATimeout(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		later   time.Duration
		suspect bool
	}{
		"at the end of that time": {35 * time.Second, true},
		"after that time":         {35*time.Second + 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, 1, func(t *testing.T, h *host) {
				h.locked(func() { h.lag = 2 * time.Second })
				var p target
				a := h.watched("a", askedOnly(), p.probe)
				for len(p.times()) < 2 {
					pass(time.Second)
				}
				timer := p.times()[1] // began by a late timer
				p.set(nil, time.Hour)
				time.Sleep(time.Until(timer.Add(row.later - askedOnly().Timeout)))
				a.check()
				require.Equal(t, timer.Add(row.later), time.Now())
				require.Equal(t, row.suspect, a.status().Suspected)
			})
		})
	}
}

func TestLateness_OfProvidersOfOneDomainCountsOnce(t *testing.T) {
	t.Parallel()
	inBubble(t, 100, func(t *testing.T, h *host) {
		targets := make([]target, 6)
		var providers []*subject
		for i := range targets {
			id := probe.Identity{Name: strconv.Itoa(i)}
			if i < 2 {
				id.Domain = "host"
			}
			providers = append(providers, h.provider(id))
			providers[i].configure(askedOnly(), targets[i].probe)
		}
		pass(0)
		for i := range targets {
			targets[i].set(nil, time.Hour)
		}
		h.checkAll(providers[:5])
		for _, a := range providers[:5] {
			require.False(t, a.status().Suspected, "they are four")
		}
		providers[5].check()
		require.True(t, providers[5].status().Suspected)
	})
}

func TestLateness_IsTheProvidersWhereOthersAnswerOrShareNoDelay(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		late, early, answer int
		probe               func(p *target) // of one that is late
		suspect             bool
	}{
		"five are late":                   {late: 5, suspect: true},
		"one answers meanwhile":           {late: 5, answer: 1, suspect: true},
		"two answer meanwhile":            {late: 5, answer: 2},
		"two of ten answer meanwhile":     {late: 8, answer: 2},
		"two of eleven answer meanwhile":  {late: 9, answer: 2, suspect: true},
		"as many have answered before":    {late: 5, early: 5, suspect: true},
		"more have answered before":       {late: 5, early: 6},
		"it refuses":                      {late: 5, probe: func(p *target) { p.set(errDown, 0) }},
		"it says that it is out, if late": {late: 5, probe: func(p *target) { p.set(health.Out(errDown), 0); p.wait = 5*time.Second + probe.StuckGrace/2 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, 100, func(t *testing.T, h *host) {
				targets := make([]target, row.late+row.early+row.answer)
				var providers []*subject
				for i := range targets {
					providers = append(providers, h.watched(strconv.Itoa(i), askedOnly(), targets[i].probe))
				}
				pass(time.Hour)
				late, early, answer := providers[:row.late], providers[row.late:row.late+row.early], providers[row.late+row.early:]
				h.checkAll(early)
				pass(time.Second)
				for i := range late {
					targets[i].set(nil, time.Hour)
					if row.probe != nil {
						row.probe(&targets[i])
					}
				}
				for i := range answer {
					targets[row.late+row.early+i].set(nil, time.Second)
				}
				h.checkAll(append(slices.Clone(answer), late...))
				suspects := 0
				for _, a := range late {
					if a.status().Suspected {
						suspects++
					}
				}
				require.Equal(t, row.suspect, suspects > 0, "%d", suspects)
			})
		})
	}
}

func TestLateness_SuspicionIsToldOfOnceUntilItEnds(t *testing.T) {
	t.Parallel()
	inBubble(t, 100, func(t *testing.T, h *host) {
		targets := make([]target, 20)
		var providers []*subject
		for i := range targets {
			providers = append(providers, h.watched(strconv.Itoa(i), askedOnly(), targets[i].probe))
			targets[i].set(nil, time.Hour)
		}
		told := func() (count int) {
			h.locked(func() { count = len(h.published) })
			return count
		}
		pass(time.Hour)
		h.checkAll(providers[:5])
		require.Equal(t, 1, told())
		h.checkAll(providers[5:10])
		require.Equal(t, 1, told(), "it goes on")
		for i := 10; i < 16; i++ {
			targets[i].set(nil, 0)
		}
		h.checkAll(providers[10:17])
		require.False(t, providers[16].status().Suspected, "the others answer")
		for i := range targets {
			targets[i].set(nil, time.Hour)
		}
		pass(15 * time.Second)
		h.checkAll(providers[6:16])
		require.Equal(t, 2, told(), "it has ended meanwhile")
	})
}

func TestLateness_AfterAQuietTimeIsANewSuspicion(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		quiet time.Duration
		told  int
	}{"of thirty seconds": {30 * time.Second, 1}, "of more": {30*time.Second + 1, 2}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, 100, func(t *testing.T, h *host) {
				targets := make([]target, 10)
				var providers []*subject
				for i := range targets {
					providers = append(providers, h.watched(strconv.Itoa(i), askedOnly(), targets[i].probe))
					targets[i].set(nil, time.Hour)
				}
				pass(time.Hour)
				h.checkAll(providers[:5])
				pass(row.quiet - askedOnly().Timeout)
				h.checkAll(providers[5:])
				h.locked(func() { require.Len(t, h.published, row.told) })
			})
		})
	}
}

func TestLateness_OfATimerByASecondIsUsual(t *testing.T) {
	t.Parallel()
	inBubble(t, 1, func(t *testing.T, h *host) {
		h.locked(func() { h.lag = time.Second })
		var p target
		a := h.watched("a", policy(), p.probe)
		pass(2 * time.Minute)
		p.set(nil, time.Hour)
		pass(50 * time.Second)
		require.False(t, a.status().Suspected)
		require.Positive(t, a.status().Failures)
	})
}
