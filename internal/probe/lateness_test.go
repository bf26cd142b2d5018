package probe_test

import (
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
