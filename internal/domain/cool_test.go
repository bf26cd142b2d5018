package domain_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/cooldown"
	"github.com/capreg/registry/internal/domain"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/verdict"
)

// cooler is a member that notes what cooldowns do to it.
type cooler struct {
	name   string
	house  *house // nil: none
	own    cooldown.Timed
	shared *domain.Domain[*cooler]
	grown  bool
	away   bool
	ends   int
	events []event.Kind
}

func (c *cooler) Cooldowns() (own *cooldown.Timed, shared *domain.Domain[*cooler]) {
	return &c.own, c.shared
}

func (c *cooler) NoteEnd()                     { c.ends++ }
func (c *cooler) SetGrown(grown bool)          { c.grown = grown }
func (c *cooler) KeptAway() bool               { return c.away }
func (c *cooler) KeepAway(change *event.Event) { c.note(true, change) }

func (c *cooler) LetIn(change *event.Event) { c.note(false, change) }

func (c *cooler) note(away bool, change *event.Event) {
	c.away = away
	if change != nil {
		c.events = append(c.events, change.Kind)
		if c.house != nil {
			c.house.log = append(c.house.log, c.name+" "+string(change.Kind))
		}
	}
}

// house has the members of one domain, and the events of all of them in order.
type house struct {
	owner   domain.Owner[*cooler]
	lock    gate
	members []*cooler
	log     []string
}

// sleep lets time pass without the lock, which a house is made with.
func (h *house) sleep(d time.Duration) {
	h.lock.Unlock()
	time.Sleep(d)
	synctest.Wait()
	h.lock.Lock()
}

// gate is a lock that a bubble waits for durably.
type gate chan struct{}

func (g gate) Lock()   { g <- struct{}{} }
func (g gate) Unlock() { <-g }

// newHouse returns a house with these members, whose order is that of their names, of one domain of the key.
func newHouse(t *testing.T, key string, names ...string) *house {
	t.Helper()
	h := &house{lock: make(gate, 1)}
	h.lock.Lock()
	timers := schedule.New()
	t.Cleanup(timers.Close)
	h.owner = domain.Owner[*cooler]{Lock: h.lock, Schedule: timers, Sort: func(all []*cooler) {
		slices.SortFunc(all, func(a, b *cooler) int { return strings.Compare(a.name, b.name) })
	}}
	set := make(domain.Set[*cooler])
	if len(names) == 0 {
		names = []string{"a"}
	}
	for _, name := range names {
		m := &cooler{name: name, house: h}
		m.shared = set.Join(key, m)
		h.members = append(h.members, m)
	}
	return h
}

// limited is the request of a rate limit that ends after that time.
func limited(after time.Duration) cooldown.Request {
	return cooldown.Request{Class: verdict.ClassRateLimited, Kind: verdict.CooldownAsked, After: after}
}

// refused is the request of a call whose credentials were refused.
func refused(call uint64) cooldown.Request {
	return cooldown.Request{Class: verdict.ClassUnauthenticated, Kind: verdict.CooldownThird, Call: call}
}

func TestCool_KeepsTheMemberOrItsDomainAwayUntilItsTimeIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		timers := schedule.New()
		defer timers.Close()
		owner := domain.Owner[*cooler]{Lock: &mu, Schedule: timers, Sort: func(all []*cooler) {
			slices.SortFunc(all, func(a, b *cooler) int { return strings.Compare(a.name, b.name) })
		}}
		a, b := &cooler{name: "a"}, &cooler{name: "b"}
		set := make(domain.Set[*cooler])
		a.shared = set.Join("key", a)
		b.shared = set.Join("key", b)
		ask := func(scope verdict.Scope, after time.Duration) {
			domain.Cool(owner, a, scope, cooldown.Request{Class: verdict.ClassRateLimited, Kind: verdict.CooldownAsked, After: after})
		}
		mu.Lock()
		ask(verdict.ScopeProvider, time.Hour)
		require.True(t, a.away && a.grown && !b.away)
		ask(verdict.ScopeDomain, time.Minute)
		require.True(t, b.away && b.grown)
		require.Equal(t, []event.Kind{event.Cooling}, a.events, "it cools down already")
		require.Equal(t, a.own.Until(), domain.Now(a).Until(), "the longer one")
		mu.Unlock()

		time.Sleep(2 * time.Minute)
		synctest.Wait()
		mu.Lock()
		require.True(t, a.away && !b.away)
		require.Equal(t, 1, a.ends, "that of its domain")
		require.Equal(t, []event.Kind{event.Cooling, event.CooldownEnded}, b.events)
		domain.EndGrowth(a)
		require.False(t, a.grown || b.grown)
		require.True(t, a.away, "growth alone has ended")
		domain.Reset(owner, a)
		require.False(t, a.away)
		mu.Unlock()
	})
}

func TestForgiveKey_EndsWhatIsHeldAgainstCredentials(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, "")
		a := h.members[0]
		domain.Cool(h.owner, a, verdict.ScopeDomain, cooldown.Request{Class: verdict.ClassFatal, Kind: verdict.CooldownLong})
		require.Equal(t, []event.Kind{event.Parked}, a.events)
		domain.ForgiveKey(h.owner, a)
		require.Equal(t, []event.Kind{event.Parked, event.CooldownEnded}, a.events)
		domain.Cool(h.owner, a, verdict.ScopeDomain, limited(time.Hour))
		domain.ForgiveKey(h.owner, a)
		require.True(t, a.away, "a rate limit says nothing about the key")
		domain.Reset(h.owner, a)
	})
}

func TestCool_EventsOfADomainComeInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, "key", "h", "c", "f", "a", "e", "b", "g", "d")
		domain.Cool(h.owner, h.members[0], verdict.ScopeDomain, limited(time.Minute))
		domain.Reset(h.owner, h.members[0])
		var want []string
		for _, kind := range []event.Kind{event.Cooling, event.CooldownEnded} {
			for name := range strings.SplitSeq("abcdefgh", "") {
				want = append(want, name+" "+string(kind))
			}
		}
		require.Equal(t, want, h.log)
	})
}

func TestCool_EndOfAMembersOwnCooldownIsNotItsDomains(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, "key", "a", "b")
		a, b := h.members[0], h.members[1]
		domain.Cool(h.owner, a, verdict.ScopeProvider, limited(time.Minute))
		h.sleep(2 * time.Minute)
		require.False(t, a.away)
		require.Equal(t, 1, a.ends)
		require.Zero(t, b.ends)
		require.Empty(t, b.events)
	})
}

func TestCool_RequestForNoTimeChangesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, "")
		domain.Cool(h.owner, h.members[0], verdict.ScopeProvider, cooldown.Request{Class: verdict.ClassOverloaded})
		require.False(t, h.members[0].away)
		require.Empty(t, h.log)
	})
}

func TestCool_OnlyWhatASuccessHasToEndIsNoted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, "key", "a", "b")
		a, b := h.members[0], h.members[1]
		domain.Cool(h.owner, a, verdict.ScopeDomain, cooldown.Request{Class: verdict.ClassOverloaded, After: time.Minute})
		require.True(t, a.away && b.away)
		require.False(t, a.grown || b.grown, "the next one is as long as the server says")
		domain.Cool(h.owner, a, verdict.ScopeDomain, refused(1))
		require.True(t, a.grown && b.grown, "a refusal is counted")
		domain.Reset(h.owner, a)
	})
}

func TestCool_ProlongedWhileItsTimerWaitsForTheLockGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, "")
		a := h.members[0]
		domain.Cool(h.owner, a, verdict.ScopeProvider, limited(time.Minute))
		time.Sleep(2 * time.Minute) // with the lock
		domain.Cool(h.owner, a, verdict.ScopeProvider, limited(time.Hour))
		h.sleep(time.Minute)
		require.True(t, a.away)
		h.sleep(2 * time.Hour)
		require.False(t, a.away)
		require.Equal(t, []string{"a cooling", "a cooldown_ended"}, h.log)
	})
}

func TestCool_MemberThatIsParkedIsAnEventThoughItCoolsDownAlready(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, "")
		a := h.members[0]
		fatal := cooldown.Request{Class: verdict.ClassFatal, Kind: verdict.CooldownLong}
		domain.Cool(h.owner, a, verdict.ScopeProvider, limited(12*time.Hour))
		domain.Cool(h.owner, a, verdict.ScopeProvider, fatal)
		domain.Cool(h.owner, a, verdict.ScopeProvider, cooldown.Request{Class: verdict.ClassFatal, Kind: verdict.CooldownLong, After: 20 * time.Hour})
		require.Equal(t, []string{"a cooling", "a parked"}, h.log, "once")
		domain.Reset(h.owner, a)
	})
}

func TestReset_EndsBothCooldownsAndTheirGrowthInOneEvent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, "key", "a", "b")
		a, b := h.members[0], h.members[1]
		for _, scope := range []verdict.Scope{verdict.ScopeProvider, verdict.ScopeDomain} {
			domain.Cool(h.owner, a, scope, limited(time.Minute))
		}
		domain.Reset(h.owner, a)
		require.False(t, a.away || b.away || a.grown || b.grown)
		require.Zero(t, a.own.Growth())
		require.Zero(t, a.shared.Cooldown.Growth())
		require.Equal(t, []string{"a cooling", "b cooling", "a cooldown_ended", "b cooldown_ended"}, h.log)

		domain.Reset(h.owner, a)
		require.Equal(t, 2, a.ends, "there is none any more")
		require.Len(t, h.log, 4)
	})
}

func TestEndGrowth_LeavesAMembersOwnToItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, "key", "a", "b")
		a, b := h.members[0], h.members[1]
		domain.Cool(h.owner, a, verdict.ScopeDomain, limited(time.Minute))
		domain.Cool(h.owner, b, verdict.ScopeProvider, limited(time.Minute))
		domain.EndGrowth(a)
		require.False(t, a.grown)
		require.Zero(t, a.shared.Cooldown.Growth())
		require.True(t, b.grown, "the success was not its own")
		domain.Reset(h.owner, a)
		domain.Reset(h.owner, b)
	})
}

func TestForgetRefusals_BeginsTheCountAnew(t *testing.T) {
	t.Parallel()
	for name, forget := range map[string]func(*house){
		"an answer":                func(h *house) { domain.ForgetRefusals(h.members[0]) },
		"a success":                func(h *house) { domain.EndGrowth(h.members[0]) },
		"other credentials":        func(h *house) { domain.ForgiveKey(h.owner, h.members[0]) },
		"the end of its cooldowns": func(h *house) { domain.Reset(h.owner, h.members[0]) },
	} {
		for _, scope := range []verdict.Scope{verdict.ScopeProvider, verdict.ScopeDomain} {
			if scope == verdict.ScopeProvider && name == "other credentials" {
				continue // those of the domain
			}
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, "")
				refuse := func(call uint64) { domain.Cool(h.owner, h.members[0], scope, refused(call)) }
				refuse(1)
				refuse(2)
				forget(h)
				refuse(3)
				refuse(4)
				require.Empty(t, h.log, name)
				refuse(5)
				require.Equal(t, []string{"a parked"}, h.log, name)
				domain.Reset(h.owner, h.members[0])
			})
		}
	}
}
