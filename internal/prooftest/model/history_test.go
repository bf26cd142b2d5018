package model_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/selection"
)

// Operations of a history.
const (
	opRegister   = "register"
	opReplace    = "replace"
	opUnregister = "unregister"
	opMark       = "mark"
	opUnmark     = "unmark"
	opRest       = "rest" // a weight of 0
	opWork       = "work"
	opGet        = "get"
	opCall       = "call"
	opFind       = "find"
	opList       = "list"
	opTotal      = "total"
)

// asking is an operation with its arguments: a name, or the number of an instance.
type asking struct {
	what   string
	name   string
	number int
	rank   int // of the priority
}

// reply is the result of an operation.
type reply struct {
	number  int // of an instance; 0: none
	numbers string
	refused bool
}

// present is a provider of the sequential registry, which has them in the order in which
// they are picked.
type present struct {
	name         string
	number, rank int
	order        int // among equals: that of the one that it replaced
	sick, idle   bool
}

func (p present) well() bool { return !p.sick && !p.idle }

// sequential is a registry that does one thing at a time. Its states are texts, which
// porcupine compares.
func sequential() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return "" },
		Step: func(state, input, output any) (bool, any) {
			providers := parseState(state.(string))                         //nolint:forcetypeassert // made here
			legal, after := step(providers, input.(asking), output.(reply)) //nolint:forcetypeassert // made by live
			return legal, formatState(after)
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v: %+v", input, output) },
	}
}

func formatState(providers []present) string {
	lines := make([]string, len(providers))
	for i, p := range providers {
		lines[i] = fmt.Sprintf("%s %d %d %d %t %t", p.name, p.number, p.rank, p.order, p.sick, p.idle)
	}
	return strings.Join(lines, "\n")
}

func parseState(state string) (providers []present) {
	for line := range strings.Lines(state) {
		var p present
		if _, err := fmt.Sscanf(strings.TrimSpace(line), "%s %d %d %d %t %t", &p.name, &p.number, &p.rank, &p.order, &p.sick, &p.idle); err != nil {
			panic(err)
		}
		providers = append(providers, p)
	}
	return providers
}

// step says whether the reply is what a registry with these providers may give, and what
// it has afterwards.
func step(providers []present, in asking, out reply) (legal bool, after []present) {
	byName := slices.IndexFunc(providers, func(p present) bool { return p.name == in.name })
	byNumber := slices.IndexFunc(providers, func(p present) bool { return p.number == in.number })
	firstWell := slices.IndexFunc(providers, present.well)
	after = slices.Clone(providers)
	switch in.what {
	case opRegister, opReplace:
		joined := present{name: in.name, number: in.number, rank: in.rank}
		for _, p := range providers {
			joined.order = max(joined.order, p.order+1)
		}
		if byName >= 0 {
			if in.what == opRegister {
				return out.refused, providers
			}
			joined.order = providers[byName].order
			after = slices.Delete(after, byName, byName+1)
		}
		behind := slices.IndexFunc(after, func(p present) bool { return p.rank > in.rank || p.rank == in.rank && p.order > joined.order })
		if behind < 0 {
			behind = len(after)
		}
		return !out.refused, slices.Insert(after, behind, joined)
	case opUnregister:
		if byNumber >= 0 {
			after = slices.Delete(after, byNumber, byNumber+1)
		}
		return !out.refused, after // also when it had left
	case opMark, opUnmark, opRest, opWork:
		if byNumber < 0 {
			return out.refused, providers
		}
		switch changed := &after[byNumber]; in.what {
		case opMark, opUnmark:
			changed.sick = in.what == opMark
		case opRest, opWork:
			changed.idle = in.what == opRest
		}
		return !out.refused, after
	case opGet:
		if firstWell < 0 {
			return out.number == 0, providers
		}
		return out.number == providers[firstWell].number, providers
	case opCall:
		// A call iterates over the members at its begin: a better one may join while the
		// best one leaves. The provider it enters is a healthy member at that moment.
		if out.number == 0 {
			return firstWell < 0, providers
		}
		return slices.ContainsFunc(providers, func(p present) bool { return p.number == out.number && p.well() }), providers
	case opFind:
		return out.refused == (byName < 0), providers
	case opList:
		numbers := make([]string, len(providers))
		for i, p := range providers {
			numbers[i] = strconv.Itoa(p.number)
		}
		return out.numbers == strings.Join(numbers, " "), providers
	case opTotal:
		return out.number == len(providers), providers
	}
	return false, providers
}

var (
	numbered  = registry.NewService[int]("history")
	errMarked = errors.New("marked")
)

// client performs random operations and notes when each began and ended.
type client struct {
	id      int
	reg     *registry.Registry
	all     *handles
	random  *rand.Rand
	began   time.Time
	history []porcupine.Operation
}

// handles are the registrations of all clients.
type handles struct {
	mu     sync.Mutex
	of     map[int]*registry.Registration
	number int
}

func (h *handles) next() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.number++
	return h.number
}

func (h *handles) add(number int, handle *registry.Registration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.of[number] = handle
}

// one returns the handle of a provider that was registered and may have left since.
func (h *handles) one(random *rand.Rand) (number int, handle *registry.Registration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	newest := make([]int, 0, len(h.of))
	for number := range h.of {
		newest = append(newest, number)
	}
	slices.Sort(newest)
	if len(newest) == 0 {
		return 0, nil
	}
	newest = newest[max(0, len(newest)-6):]
	number = newest[random.IntN(len(newest))]
	return number, h.of[number]
}

func (c *client) live(ctx context.Context, operations int) {
	resolver := numbered.Bind(c.reg, registry.Query{})
	for range operations {
		in := asking{what: []string{
			opRegister, opReplace, opReplace, opUnregister, opMark, opUnmark, opRest, opWork, opWork, opGet, opGet, opGet, opCall, opCall, opFind, opList, opTotal,
		}[c.random.IntN(17)], name: string(rune('a' + c.random.IntN(3)))}
		var handle *registry.Registration
		switch in.what {
		case opRegister, opReplace:
			in.number, in.rank = c.all.next(), []int{0, 2}[c.random.IntN(2)]
		case opUnregister, opMark, opUnmark, opRest, opWork:
			if in.number, handle = c.all.one(c.random); handle == nil {
				continue
			}
		}
		call := time.Since(c.began)
		out := c.perform(ctx, resolver, in, handle)
		c.history = append(c.history, porcupine.Operation{
			ClientId: c.id, Input: in, Call: int64(call), Output: out, Return: int64(time.Since(c.began)),
		})
	}
}

func (c *client) perform(ctx context.Context, resolver *registry.Resolver[int], in asking, handle *registry.Registration) (out reply) {
	switch in.what {
	case opRegister, opReplace:
		priority := registry.PriorityNormal
		if in.rank == 0 {
			priority = registry.PriorityCritical
		}
		made, err := numbered.Register(ctx, c.reg, registry.Provider[int]{
			Name: in.name, Instance: in.number, Priority: priority, Replace: in.what == opReplace,
			Version: strconv.Itoa(in.number),
		})
		if err == nil {
			c.all.add(in.number, made)
		}
		out.refused = err != nil
	case opUnregister:
		out.refused = handle.Unregister(ctx) != nil
	case opMark:
		out.refused = handle.MarkUnhealthy(errMarked) != nil
	case opUnmark:
		out.refused = handle.MarkHealthy() != nil
	case opRest:
		_, err := handle.SetWeight(0)
		out.refused = err != nil
	case opWork:
		_, err := handle.SetWeight(1)
		out.refused = err != nil
	case opGet:
		out.number, _ = resolver.Get(ctx)
	case opCall:
		out.number, _ = registry.Call(ctx, resolver, func(_ context.Context, number int) (int, error) { return number, nil })
	case opFind:
		_, found := c.reg.Provider(numbered.Name(), in.name)
		out.refused = !found
	case opList:
		events := c.reg.Subscribe(1)
		var numbers []string
		for _, info := range events.Snapshot() {
			numbers = append(numbers, info.Version)
		}
		events.Close()
		out.numbers = strings.Join(numbers, " ")
	case opTotal:
		out.number = c.reg.Stats().Providers
	}
	return out
}

// record lets some clients live side by side and returns what they saw.
func record(t *testing.T, seed uint64, clients, operations int) (history []porcupine.Operation) {
	t.Helper()
	reg, err := registry.New(registry.Options{Selection: selection.Policy{Seed: 1}})
	require.NoError(t, err)
	all := &handles{of: make(map[int]*registry.Registration)}
	began := time.Now()
	side := make([]*client, clients)
	var living sync.WaitGroup
	for i := range side {
		side[i] = &client{id: i, reg: reg, all: all, random: rand.New(rand.NewPCG(seed, uint64(i))), began: began}
		living.Go(func() { side[i].live(t.Context(), operations) })
	}
	living.Wait()
	require.NoError(t, reg.Close(t.Context()))
	for _, c := range side {
		history = append(history, c.history...)
	}
	return history
}

func TestHistories_AreLinearizable(t *testing.T) {
	t.Parallel()
	overlapping := 0
	for seed := range uint64(300) {
		history := record(t, seed, 4, 40)
		for i, one := range history {
			for _, other := range history[i+1:] {
				overlapping += number(one.Call < other.Return && other.Call < one.Return)
			}
		}
		result := porcupine.CheckOperationsTimeout(sequential(), history, time.Minute)
		require.Equal(t, porcupine.Ok, result, "history %d:\n%s", seed, printed(history))
	}
	t.Logf("%d pairs of operations overlapped", overlapping)
	require.Positive(t, overlapping, "else there was nothing to find")
}

func printed(history []porcupine.Operation) string {
	slices.SortFunc(history, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	var text strings.Builder
	for _, o := range history {
		fmt.Fprintf(&text, "%8d to %8d client %d: %+v: %+v\n", o.Call, o.Return, o.ClientId, o.Input, o.Output)
	}
	return text.String()
}

// Without this, a specification that allows everything would prove nothing.
func TestHistories_DetectsImpossibleOnes(t *testing.T) {
	t.Parallel()
	at := func(call, back int64, in asking, out reply) porcupine.Operation {
		return porcupine.Operation{Input: in, Call: call, Output: out, Return: back}
	}
	a := at(0, 1, asking{what: opRegister, name: "a", number: 1}, reply{})
	for name, history := range map[string][]porcupine.Operation{
		"a look-up of none":        {a, at(2, 3, asking{what: opGet}, reply{})},
		"one that has left":        {a, at(2, 3, asking{what: opUnregister, number: 1}, reply{}), at(4, 5, asking{what: opGet}, reply{number: 1})},
		"a name taken twice":       {a, at(2, 3, asking{what: opRegister, name: "a", number: 2}, reply{})},
		"the second best":          {a, at(2, 3, asking{what: opRegister, name: "b", number: 2}, reply{}), at(4, 5, asking{what: opGet}, reply{number: 2})},
		"a sick one":               {a, at(2, 3, asking{what: opMark, number: 1}, reply{}), at(4, 5, asking{what: opCall}, reply{number: 1})},
		"one without traffic":      {a, at(2, 3, asking{what: opRest, number: 1}, reply{}), at(4, 5, asking{what: opGet}, reply{number: 1})},
		"back and forth":           {a, at(2, 9, asking{what: opReplace, name: "a", number: 2}, reply{}), at(3, 4, asking{what: opGet}, reply{number: 2}), at(5, 6, asking{what: opGet}, reply{number: 1})},
		"a gap during replacement": {a, at(2, 9, asking{what: opReplace, name: "a", number: 2}, reply{}), at(3, 4, asking{what: opCall}, reply{})},
		"a wrong total":            {a, at(2, 3, asking{what: opTotal}, reply{number: 2})},
		"a listing in disorder":    {a, at(2, 3, asking{what: opRegister, name: "b", number: 2}, reply{}), at(4, 5, asking{what: opList}, reply{numbers: "2 1"})},
		"a name that is not there": {a, at(2, 3, asking{what: opFind, name: "b"}, reply{})},
	} {
		require.Equal(t, porcupine.Illegal, porcupine.CheckOperationsTimeout(sequential(), history, time.Minute), name)
	}
	require.Equal(t, porcupine.Ok, porcupine.CheckOperationsTimeout(sequential(), []porcupine.Operation{
		a, at(2, 9, asking{what: opReplace, name: "a", number: 2}, reply{}), at(3, 4, asking{what: opGet}, reply{number: 1}), at(5, 6, asking{what: opGet}, reply{number: 2}),
	}, time.Minute))
}

// A member of the first two groups, or of one group, is healthy at every moment.
func TestGet_NeverFindsAWorseOneWhileTheBestTakeTurnsInBeingHealthy(t *testing.T) {
	t.Parallel()
	for name, second := range map[string]registry.Provider[int]{
		"of one group": {Strategy: registry.StrategyRoundRobin}, "of two groups": {Group: 1, Strategy: registry.StrategyRoundRobin},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg, err := registry.New(registry.Options{Selection: selection.Policy{Seed: 1}})
			require.NoError(t, err)
			join := func(p registry.Provider[int]) *registry.Registration {
				joined, err := numbered.Register(t.Context(), reg, p)
				require.NoError(t, err)
				return joined
			}
			second.Name, second.Instance = "b", 1
			a, b := join(registry.Provider[int]{Name: "a", Instance: 1, Strategy: second.Strategy}), join(second)
			join(registry.Provider[int]{Name: "c", Instance: 2, Group: 2})
			require.NoError(t, a.MarkUnhealthy(errMarked))
			var over atomic.Bool
			var worse atomic.Int64
			var looking sync.WaitGroup
			resolver := numbered.Bind(reg, registry.Query{})
			for range 24 {
				looking.Go(func() {
					for !over.Load() {
						if number, err := resolver.Get(t.Context()); err != nil || number == 2 {
							worse.Add(1)
						}
					}
				})
			}
			for range 50_000 {
				_, _, _, _ = a.MarkHealthy(), b.MarkUnhealthy(errMarked), b.MarkHealthy(), a.MarkUnhealthy(errMarked)
			}
			over.Store(true)
			looking.Wait()
			require.Zero(t, worse.Load())
			require.NoError(t, reg.Close(t.Context()))
		})
	}
}
