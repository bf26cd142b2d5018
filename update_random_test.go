package registry_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/selection"
)

// history is a random sequence of updates under load, with the naive model of what is there: names and the answers of
// their instances. A provider that always stays keeps calls from failing.
type history struct {
	reg    *registry.Registry
	random *rand.Rand
	made   int
	now    map[string]string

	mu     sync.Mutex
	states []string // the sets of answers, oldest first
	seen   []sighting
}

// sighting is a look-up that found a set while there were from to to states.
type sighting struct {
	from, to int
	found    string
}

func (h *history) state() string {
	var answers []string
	for _, answer := range h.now {
		answers = append(answers, answer)
	}
	slices.Sort(answers)
	return strings.Join(answers, " ")
}

func (h *history) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.states)
}

// update makes a random set, and the model's next state; sound is false where the set must be refused.
func (h *history) update() (u *registry.Update, next map[string]string, sound bool) {
	u, next, sound = &registry.Update{}, maps.Clone(h.now), true
	touched := make(map[string]bool)
	for range 1 + h.random.IntN(6) {
		name := fmt.Sprint("p", h.random.IntN(8))
		if touched[name] {
			continue
		}
		touched[name] = true
		_, there := h.now[name]
		switch kind := h.random.IntN(10); {
		case kind < 3:
			u.Remove("chat", name)
			delete(next, name)
			sound = sound && there
		case kind == 3:
			u.SetGroup("chat", name, h.random.IntN(3))
			u.SetPriority("chat", name, registry.PriorityHigh)
			sound = sound && there
		case kind == 4:
			u.SetStrategy("chat", name, []selection.Strategy{registry.StrategyFallback, registry.StrategyRoundRobin}[h.random.IntN(2)])
			sound = sound && there
		default:
			p, well := h.provider(name)
			p.Replace = h.random.IntN(4) > 0
			testkit.Chat.AddTo(u, p)
			next[name] = fmt.Sprint(name, "-", h.made)
			sound = sound && well && (p.Replace || !there)
		}
	}
	return u, next, sound
}

// provider draws a provider; well is false for one that never proves itself.
func (h *history) provider(name string) (p testkit.Provider, well bool) {
	h.made++
	m := testkit.Says(fmt.Sprint(name, "-", h.made))
	p = testkit.Provider{
		Name: name, Group: h.random.IntN(3), ProveWithin: time.Second,
		Strategy: []selection.Strategy{{}, {}, {}, registry.StrategyFallback, registry.StrategyRoundRobin}[h.random.IntN(5)],
		Domain:   []string{"", "d"}[h.random.IntN(2)],
	}
	wait := time.Duration(h.random.IntN(50)) * time.Millisecond
	probe := func(context.Context) error { time.Sleep(wait); return nil }
	factory := func(context.Context) (testkit.ChatModel, error) { time.Sleep(wait); return m, nil }
	switch h.random.IntN(16) {
	case 0:
		p.Factory = func(context.Context) (testkit.ChatModel, error) { return nil, testkit.ErrDown }
		return p, false
	case 1:
		p.Factory = func(context.Context) (testkit.ChatModel, error) { panic("ill") }
		return p, false
	case 2:
		p.Factory = func(ctx context.Context) (testkit.ChatModel, error) { <-ctx.Done(); return nil, ctx.Err() }
		return p, false
	case 3:
		p.Instance, p.Health.Probe = m, func(context.Context) error { return health.Out(testkit.ErrDown) }
		return p, false
	case 4, 5, 6:
		p.Factory = factory
	case 7, 8:
		p.Instance, p.Health.Probe = m, probe
	case 9:
		p.Factory, p.Health.Probe = factory, probe
	default:
		p.Instance = m
	}
	return p, true
}

// look makes look-ups and calls until done.
func (h *history) look(t *testing.T, done *atomic.Bool) {
	t.Helper()
	for r := testkit.Bind(h.reg); !done.Load(); time.Sleep(time.Millisecond) {
		from := h.count()
		models, err := r.GetAll(t.Context(), 0)
		if err != nil {
			t.Errorf("found none: %v", err)
			return
		}
		var answers []string
		for _, m := range models {
			text, _ := m.Chat(t.Context(), "?")
			answers = append(answers, text)
		}
		slices.Sort(answers)
		h.mu.Lock()
		h.seen = append(h.seen, sighting{from, len(h.states), strings.Join(answers, " ")})
		h.mu.Unlock()
		if _, err := testkit.Ask(t.Context(), r); err != nil {
			t.Errorf("a call failed: %v", err)
			return
		}
	}
}

// settings returns what an update may change, of every provider.
func settings(reg *registry.Registry) (all []string) {
	for info := range reg.All() {
		all = append(all, fmt.Sprint(info.Name, info.Generation, info.Group, info.Strategy, info.Priority))
	}
	return all
}

// A refused update changes nothing, an accepted one is complete at one moment, no look-up finds less than the old or
// the new set, and no call is lost.
func TestUpdate_RandomHistoriesAgreeWithNaiveModel(t *testing.T) {
	t.Parallel()
	accepted, refused := 0, 0
	for seed := range uint64(40) {
		testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			h := &history{reg: reg, random: rand.New(rand.NewPCG(seed, 0)), now: map[string]string{"stays": "stays"}}
			testkit.Add(t, reg, testkit.Provider{Name: "stays", Group: 9})
			h.states = []string{h.state()}
			var done atomic.Bool
			var readers sync.WaitGroup
			for range 3 {
				readers.Go(func() { h.look(t, &done) })
			}
			for range 25 {
				before := settings(reg)
				u, next, sound := h.update()
				err := reg.Update(t.Context(), u)
				if err != nil {
					refused++
					require.Equal(t, before, settings(reg), "seed %d: %v", seed, err)
					continue
				}
				accepted++
				require.True(t, sound, "seed %d", seed)
				h.now = next
				require.Len(t, settings(reg), len(next))
				h.mu.Lock()
				h.states = append(h.states, h.state())
				h.mu.Unlock()
			}
			done.Store(true)
			readers.Wait()
			for _, s := range h.seen {
				require.Contains(t, h.states[s.from-1:min(s.to+1, len(h.states))], s.found, "seed %d", seed)
			}
		})
	}
	require.Greater(t, accepted, 100)
	require.Greater(t, refused, 100)
}
