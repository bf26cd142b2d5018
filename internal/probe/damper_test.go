package probe_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/probe"
)

// flapper is a provider, or a capability of one, that falls by one failure and is back after one answer.
type flapper struct {
	machine    probe.Machine
	capability string // empty: the provider itself
	now        time.Duration
}

// calm is the time without a fall that makes the next fall no flap.
const calm = 40 * 30 * time.Second

// flappers returns a flapper of each kind, by name.
func flappers() map[string]*flapper {
	p := policy()
	p.Fall, p.Rise = 1, 1
	p.Capabilities = map[string]health.Probe{"vision": nil}
	all := make(map[string]*flapper)
	for _, capability := range []string{"", "vision"} {
		f := &flapper{machine: probe.NewMachine(p, true, healthy, 0), capability: capability, now: time.Hour}
		f.observe(answer())
		all[fmt.Sprintf("probe of %q", capability)] = f
	}
	return all
}

// observe takes a result, and reports whether it is out then.
func (f *flapper) observe(r probe.Result) (out bool) {
	if f.capability != "" {
		f.machine.ObserveCapability(f.now, f.capability, r)
		return f.machine.Outage([]string{f.capability}) != nil
	}
	f.machine.Observe(f.now, r)
	state, _, _ := f.machine.State()
	return state == unhealthy
}

// answersToReturn counts the answers in a row that bring it back.
func (f *flapper) answersToReturn() (count int) {
	for count = 1; f.observe(answer()); count++ {
	}
	return count
}

func TestMachine_FlapsNeedTwiceTheAnswersEachTimeUpToABound(t *testing.T) {
	t.Parallel()
	for name, f := range flappers() {
		var needed []int
		for range 9 {
			require.True(t, f.observe(failure()))
			needed = append(needed, f.answersToReturn())
			f.now += calm - 1
		}
		require.Equal(t, []int{1, 2, 4, 8, 16, 32, 64, 64, 64}, needed, name)
	}
}

func TestMachine_FlapsEndByTimeToo(t *testing.T) {
	t.Parallel()
	for name, f := range flappers() {
		f.observe(failure())
		require.False(t, f.observe(answer()), name)
		for flaps := 1; flaps < 4; flaps++ {
			require.True(t, f.observe(failure()))
			f.now += 30*time.Second<<flaps - 1
			require.True(t, f.observe(answer()), "%s: it is held down", name)
			require.True(t, f.observe(failure()), name)
			f.now++
			require.False(t, f.observe(answer()), "%s: one answer is enough by then", name)
		}
	}
}

func TestMachine_FallThatTheTimeHasForgivenIsNoFlap(t *testing.T) {
	t.Parallel()
	for name, f := range flappers() {
		flap := func(after time.Duration) int {
			f.now += after
			f.observe(failure())
			return f.answersToReturn()
		}
		flap(0)
		for range 3 {
			flap(0)
		}
		require.Equal(t, 4, flap(calm), "%s: one of three is forgiven", name)
		require.Equal(t, 1, flap(3*calm), "%s: there is no less than none", name)
		require.Equal(t, 2, flap(0), name)
		for range 5 {
			flap(0)
		}
		require.Equal(t, 1, flap(1000*calm), name)
	}
}

func TestMachine_OnItsWayBackSaysHowFarItIs(t *testing.T) {
	t.Parallel()
	f := flappers()[`probe of ""`]
	for range 3 {
		f.observe(failure())
		f.answersToReturn()
	}
	f.observe(failure())
	f.observe(answer())
	_, reason, _ := f.machine.State()
	require.Equal(t, "on its way back: 1 of 8 answers", reason)
	f.observe(failure())
	f.observe(answer())
	_, reason, _ = f.machine.State()
	require.Equal(t, "on its way back: 1 of 8 answers", reason, "a failure meanwhile is no fall")

	f.machine.MarkHealthy()
	f.observe(failure())
	require.False(t, f.observe(answer()), "the mark forgets its flaps")
}
