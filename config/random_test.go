package config_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/capreg/registry"
	"github.com/capreg/registry/config"
	"github.com/capreg/registry/registrytest"
)

// planned is a provider of a random document, as the naive model knows it.
type planned struct {
	Model    string
	Behave   string // of its factory or probe: "", "fail", "panic", "hang", "ill"
	Group    int
	Weight   int
	Tag      string
	Domain   string
	Priority string
}

func (p planned) sound() bool { return p.Behave == "" }

// draft is a random document: providers by name, strategies by group, limits of its domain, and what is wrong with it.
type draft struct {
	providers  map[string]planned
	strategies map[int]string
	limit      int
	wrong      string // a line that makes it invalid
}

func drawDraft(t *rapid.T) draft {
	d := draft{providers: make(map[string]planned), strategies: make(map[int]string), limit: rapid.IntRange(1, 3).Draw(t, "limit")}
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}), 1, 5, rapid.ID).Draw(t, "names") {
		d.providers[name] = planned{
			Model:    rapid.SampledFrom([]string{"x", "y"}).Draw(t, "model"),
			Behave:   rapid.SampledFrom([]string{"", "", "", "", "", "", "", "", "", "fail", "panic", "hang", "ill"}).Draw(t, "behave"),
			Group:    rapid.IntRange(0, 1).Draw(t, "group"),
			Weight:   rapid.IntRange(1, 3).Draw(t, "weight"),
			Tag:      rapid.SampledFrom([]string{"t", "u"}).Draw(t, "tag"),
			Domain:   rapid.SampledFrom([]string{"", "key"}).Draw(t, "domain"),
			Priority: rapid.SampledFrom([]string{"HIGH", "NORMAL"}).Draw(t, "priority"),
		}
	}
	for _, p := range d.providers {
		d.strategies[p.Group] = rapid.SampledFrom([]string{"FALLBACK", "ROUND_ROBIN"}).Draw(t, "strategy")
	}
	d.wrong = rapid.SampledFrom([]string{"", "", "", "", "required: [nothing]", "colour: red", "domains: 7"}).Draw(t, "wrong")
	return d
}

func (d draft) text() string {
	var b strings.Builder
	fmt.Fprintln(&b, d.wrong)
	if d.wrong != "domains: 7" {
		fmt.Fprintf(&b, "domains: {key: {limits: {max_concurrent: %d}}}\n", 100*d.limit)
	}
	b.WriteString("services:\n  llm:\n    groups:\n")
	for _, number := range slices.Sorted(maps.Keys(d.strategies)) {
		fmt.Fprintf(&b, "      %d: {strategy: %s}\n", number, d.strategies[number])
	}
	b.WriteString("    providers:\n")
	for _, name := range slices.Sorted(maps.Keys(d.providers)) {
		p := d.providers[name]
		fmt.Fprintf(&b, "    - {name: %s, kind: random, settings: {model: %s-%s, fail: %q}, group: %d, weight: %d, tags: [%s], priority: %s, prove_within: 2s, health: {fall: 1}",
			name, name, p.Model, p.Behave, p.Group, p.Weight, p.Tag, p.Priority)
		if p.Domain != "" {
			fmt.Fprintf(&b, ", domain: %s", p.Domain)
		}
		b.WriteString("}\n")
	}
	return b.String()
}

// accepted returns whether the model applies the document after another one: whatever has to be made must be sound.
func (d draft) accepted(before draft) bool {
	if d.wrong != "" {
		return false
	}
	for name, p := range d.providers {
		old, there := before.providers[name]
		same := there && old.Model == p.Model && old.Behave == p.Behave && old.Tag == p.Tag && old.Domain == p.Domain
		if !same && !p.sound() {
			return false
		}
	}
	return true
}

// seen is what the registry is to show of a provider.
type seen struct {
	Name, Model, Strategy, Tag, Domain, Priority string
	Group, Limit                                 int
	Weight                                       float64
}

func (d draft) expected() (all []seen) {
	for name, p := range d.providers {
		s := seen{name, name + "-" + p.Model, d.strategies[p.Group], p.Tag, p.Domain, p.Priority, p.Group, 0, float64(p.Weight)}
		if p.Domain != "" {
			s.Limit = 100 * d.limit
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b seen) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func shown(t *testing.T, reg *registry.Registry) (all []seen) {
	t.Helper()
	for info := range reg.All() {
		instance, err := llm.Get(t.Context(), reg, registry.Query{Only: []string{info.Name}})
		require.NoError(t, err)
		all = append(all, seen{
			info.Name, instance.Answer(), info.Strategy.String(), info.Tags[0], info.Domain, info.Priority.String(), info.Group,
			info.Limits.MaxConcurrent, info.Weight,
		})
	}
	slices.SortFunc(all, func(a, b seen) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// random returns the kind of the random documents, whose factories and probes misbehave as the settings say.
func (w *workshop) random() config.Kind {
	return config.BindImplementation(llm, "random", func(s modelSettings) (config.Implementation[model], error) {
		return config.Implementation[model]{
			Factory: func(ctx context.Context) (model, error) {
				switch s.Fail {
				case "fail":
					return nil, errors.New("down")
				case "panic":
					panic("oh")
				case "hang":
					<-ctx.Done()
					return nil, ctx.Err()
				}
				sound := s
				sound.Fail = ""
				return w.make(ctx, sound)
			},
			Probe: func(context.Context) error {
				if s.Fail == "ill" {
					return errors.New("ill")
				}
				return nil
			},
		}, nil
	})
}

// Documents come in any order, valid or not, while calls go on. One that is refused leaves everything as it was, one
// that is accepted is complete at one moment, and no call is lost.
func TestRandom_HistoriesOfDocumentsFollowANaiveModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		drafts := rapid.SliceOfN(rapid.Custom(drawDraft), 1, 6).Draw(rt, "documents")
		synctest.Test(t, func(t *testing.T) { playHistory(t, drafts) })
	})
}

func playHistory(t *testing.T, drafts []draft) {
	t.Helper()
	w := &workshop{}
	reg := registrytest.New(t, registry.Options{})
	m, err := config.New(reg, config.Options{Kinds: []config.Kind{w.random()}})
	require.NoError(t, err)
	var now draft
	var load sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	defer load.Wait()
	defer stop()
	var lost atomic.Int64
	for _, next := range drafts {
		was := generations(reg)
		d, err := config.Parse("r.yaml", []byte(next.text()))
		if err == nil {
			_, err = m.Apply(ctx, d)
		}
		require.Equal(t, next.accepted(now), err == nil, "%v\n%s", err, next.text())
		synctest.Wait()
		if err != nil {
			require.Equal(t, was, generations(reg))
			require.Equal(t, now.expected(), shown(t, reg))
			continue
		}
		first := len(now.providers) == 0
		now = next
		require.Equal(t, now.expected(), shown(t, reg))
		require.Equal(t, slices.Sorted(maps.Keys(now.providers)), names(m.Current(), "llm"))
		if first {
			for range 4 {
				load.Go(func() { callAlways(ctx, reg, &lost) })
			}
		}
		time.Sleep(31 * time.Second) // the drains of those that have left
		synctest.Wait()
		require.EqualValues(t, len(now.providers), w.open.Load(), "instances that are not closed")
	}
	stop()
	load.Wait()
	require.Zero(t, lost.Load())
}

// generations tells the registrations of a registry apart.
func generations(reg *registry.Registry) (all []uint64) {
	for _, info := range listing(reg) {
		all = append(all, info.Generation)
	}
	return all
}

// callAlways calls the service until ctx ends, and counts calls that get no answer.
func callAlways(ctx context.Context, reg *registry.Registry, lost *atomic.Int64) {
	resolver := llm.Bind(reg, registry.Query{})
	for ctx.Err() == nil {
		_, err := registry.Call(ctx, resolver, func(ctx context.Context, m model) (string, error) {
			time.Sleep(50 * time.Millisecond)
			if f := m.(*fakeModel); f.closed.Load() { //nolint:forcetypeassert // of the kind
				lost.Add(1)
			}
			return m.Answer(), nil
		})
		if err != nil && ctx.Err() == nil {
			lost.Add(1)
		}
	}
}

// Documents of several programs race, some of them wrong, while calls go on: one after the other is applied, each as a
// whole, and the last one that was is what the registry has.
func TestRandom_RacingDocumentsAreAppliedOneAfterTheOther(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		drafts := rapid.SliceOfN(rapid.Custom(drawDraft), 2, 6).Draw(rt, "documents")
		for i := range drafts {
			for name, p := range drafts[i].providers { // so that acceptance does not depend on the order
				p.Behave = ""
				drafts[i].providers[name] = p
			}
		}
		synctest.Test(t, func(t *testing.T) { race(t, drafts) })
	})
}

func race(t *testing.T, drafts []draft) {
	t.Helper()
	w := &workshop{}
	reg := registrytest.New(t, registry.Options{})
	m, err := config.New(reg, config.Options{Kinds: []config.Kind{w.random()}})
	require.NoError(t, err)
	var racing sync.WaitGroup
	errs := make([]error, len(drafts))
	documents := make([]*config.Document, len(drafts))
	for i, d := range drafts {
		racing.Go(func() {
			documents[i], errs[i] = config.Parse("r.yaml", []byte(d.text()))
			if errs[i] == nil {
				_, errs[i] = m.Apply(t.Context(), documents[i])
			}
		})
	}
	racing.Wait()
	var last *draft
	for i := range drafts {
		require.Equal(t, drafts[i].wrong == "", errs[i] == nil, "%v\n%s", errs[i], drafts[i].text())
		if documents[i] != nil && documents[i] == m.Current() {
			last = &drafts[i]
		}
	}
	if last == nil {
		require.Empty(t, listing(reg), "none was right")
		return
	}
	require.Equal(t, last.expected(), shown(t, reg))
	time.Sleep(31 * time.Second) // the drains of those that have left
	synctest.Wait()
	require.EqualValues(t, len(last.providers), w.open.Load(), "instances that are not closed")
}
