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
	}
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
		timers := schedule.New()
		defer timers.Close()
		owner := domain.Owner[*cooler]{Lock: &sync.Mutex{}, Schedule: timers, Sort: func([]*cooler) {}}
		a := &cooler{name: "a"}
		a.shared = make(domain.Set[*cooler]).Join("", a)
		domain.Cool(owner, a, verdict.ScopeDomain, cooldown.Request{Class: verdict.ClassFatal, Kind: verdict.CooldownLong})
		require.Equal(t, []event.Kind{event.Parked}, a.events)
		domain.ForgiveKey(owner, a)
		require.Equal(t, []event.Kind{event.Parked, event.CooldownEnded}, a.events)
		domain.Cool(owner, a, verdict.ScopeDomain, cooldown.Request{Class: verdict.ClassRateLimited, Kind: verdict.CooldownAsked, After: time.Hour})
		domain.ForgiveKey(owner, a)
		require.True(t, a.away, "a rate limit says nothing about the key")
		domain.Reset(owner, a)
	})
}
