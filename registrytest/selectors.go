package registrytest

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/verdict"
)

// TestSelector checks that a strategy fulfils the contract of [selection.Selector]. newSelector
// makes a selector; two of them must be equivalent. The selector
//
//   - picks an eligible candidate among one or hundreds, measured or not, with a key or
//     without, also when the same call picks again; when all candidates leave during a pick, it
//     neither panics nor loops for ever;
//   - predicts the next pick while peeking ([selection.View.Peeking]);
//   - keeps its state in the cursor: picks for one group depend on no others;
//   - is safe for concurrent use, which the race detector checks;
//   - describes candidates, if at all, with numbers and without changing anything;
//   - takes less than a millisecond, at least in one of some picks, as a busy machine makes no
//     selector slow;
//   - works in a registry without a reported fault.
//
// The quality of its picks is for tests of its own, with [NewView].
func TestSelector(tb testing.TB, newSelector func() selection.Selector) {
	tb.Helper()
	s := &selecting{tb: tb, make: newSelector, said: make(map[string]bool)}
	for _, check := range []func(){
		s.picksTheEligible, s.survivesThatAllLeave, s.foretells, s.remembersByGroup, s.isSafeForConcurrentUse, s.describes, s.isQuick, s.isWelcome,
	} {
		check()
	}
}

// selecting is one selector under test.
type selecting struct {
	tb   testing.TB
	make func() selection.Selector

	mu   sync.Mutex // guards said
	said map[string]bool
}

// fail reports each fault once.
func (s *selecting) fail(format string, args ...any) {
	s.tb.Helper()
	text := fmt.Sprintf(format, args...)
	s.mu.Lock()
	said := s.said[text]
	s.said[text] = true
	s.mu.Unlock()
	if !said {
		s.tb.Errorf("registrytest: selector: %s", text)
	}
}

// field is a group with at least one eligible candidate.
type field struct {
	set    selection.View
	cursor *choice.Cursor
	is     []bool // eligible
	key    string // the caller's; most have none
}

// Has and Next implement [choice.Eligible].
func (f *field) Has(i int) bool { return i >= 0 && i < len(f.is) && f.is[i] }

func (f *field) Next(i int) int {
	for i = max(i, 0); i < len(f.is); i++ {
		if f.is[i] {
			return i
		}
	}
	return -1
}

func (f *field) String() string {
	eligible := 0
	for _, is := range f.is {
		if is {
			eligible++
		}
	}
	return fmt.Sprintf("%d of %d eligible", eligible, len(f.is))
}

// look returns the input of a pick at a fixed time.
func (f *field) look(peek bool, asked int) choice.Input {
	const mostBits = 64
	look := choice.Input{
		Cursor: f.cursor, Peek: peek, Asked: asked, Now: moment, Context: context.Background(), Key: f.key, Caller: "caller",
	}
	if len(f.is) > mostBits {
		look.Large = f
		return look
	}
	for i, is := range f.is {
		if is {
			look.Mask |= 1 << i
		}
	}
	return look
}

// moment is the time of all picks.
const moment = time.Hour

// newField returns a group of size candidates of all kinds.
func newField(size int, seed uint64) *field {
	random := rand.New(rand.NewPCG(seed, uint64(size))) //nolint:gosec // to be repeated
	members := make([]choice.Member, size)
	outcomes := []choice.Outcome{choice.Answered, choice.Failed, choice.Neutral, choice.Refused, choice.Unanswered}
	for i := range members {
		members[i].Profile = choice.Profile{
			Service: "suite", Name: fmt.Sprintf("p%d", i), Weight: float64(random.IntN(4)), Cost: random.Float64(),
			Region: []string{"", "eu-west-1", "us-east-1"}[i%3], Version: fmt.Sprintf("v1.%d", i), Tags: []string{"a"}, Capabilities: []string{"b"},
		}
		if i%4 == 3 {
			continue // without measurements
		}
		vitals := choice.NewVitals(time.Duration(random.Int64N(int64(moment))), 0)
		vitals.SetHealth(random.Float64(), health.Trend(i%3))
		for range random.IntN(3) {
			vitals.Begin()
		}
		for range random.IntN(4) {
			vitals.Begin()
			took := time.Duration(math.Exp2(random.Float64() * 35)) // up to half a minute
			vitals.End(moment-time.Duration(random.Int64N(int64(time.Minute))), took, outcomes[random.IntN(len(outcomes))], nil)
		}
		members[i].Vitals = vitals
	}
	f := &field{
		set:    selection.Request{Service: "suite", Near: "eu-west-2", Prefer: []string{"a"}}.View(selection.Policy{SlowStart: time.Duration(seed%2) * time.Minute}, members),
		cursor: choice.NewCursor(seed), is: make([]bool, size),
	}
	for i := range f.is {
		f.is[i] = random.IntN(3) > 0
	}
	f.is[random.IntN(size)] = true
	if seed%3 == 0 {
		f.key = "key"
	}
	return f
}

// eachField gives fields of all sizes.
func eachField(yield func(*field) bool) {
	for _, size := range []int{1, 2, 3, 5, 8, 63, 64, 65, 200} {
		for seed := range uint64(4) {
			if !yield(newField(size, seed)) {
				return
			}
		}
	}
}

// pick makes one pick, and reports a panic, an exit or a timeout.
func (s *selecting) pick(selector selection.Selector, f *field, peek bool, asked int) (at int, ok bool) {
	s.tb.Helper()
	picks := make(chan int, 1)
	is := within(func() error { picks <- selector.Pick(f.set.With(f.look(peek, asked))); return nil })
	if is.wrong != nil {
		s.fail("with %v %v", f, is.wrong)
		return 0, false
	}
	return <-picks, true
}

// picked makes one pick and checks that it is eligible.
func (s *selecting) picked(selector selection.Selector, f *field, peek bool, asked int) (at int, ok bool) {
	s.tb.Helper()
	at, ok = s.pick(selector, f, peek, asked)
	if ok && !f.Has(at) {
		s.fail("with %v it picked %d, which is not eligible", f, at)
		return at, false
	}
	return at, ok
}

func (s *selecting) picksTheEligible() {
	s.tb.Helper()
	const mostAsked = 16
	for f := range eachField {
		selector := s.make()
		for asked := range mostAsked { // as a call does that fails everywhere
			at, ok := s.picked(selector, f, false, asked)
			if !ok {
				return
			}
			f.is[at] = false
			if f.Next(0) < 0 {
				break
			}
		}
	}
}

// leaving is a large group whose members leave during a pick.
type leaving struct {
	*field

	left int
}

func (l *leaving) Has(i int) bool { l.left--; return l.left > 0 && l.field.Has(i) }

func (l *leaving) Next(i int) int {
	if l.left--; l.left <= 0 {
		return -1
	}
	return l.field.Next(i)
}

func (s *selecting) survivesThatAllLeave() {
	s.tb.Helper()
	const size = 100
	for looks := range 20 {
		f := newField(size, uint64(looks))
		look := f.look(false, 0)
		look.Large = &leaving{field: f, left: looks}
		is := within(func() error { _ = s.make().Pick(f.set.With(look)); return nil })
		if is.wrong != nil {
			s.fail("when all leave during a pick %v", is.wrong)
			return
		}
	}
}

func (s *selecting) foretells() {
	s.tb.Helper()
	const picks = 5
	for f := range eachField {
		selector := s.make()
		for range picks {
			turns := f.cursor.Turns()
			first, ok1 := s.picked(selector, f, true, 0)
			second, ok2 := s.picked(selector, f, true, 0)
			if f.cursor.Turns() != turns {
				s.fail("a peek took a turn")
			}
			third, ok3 := s.picked(selector, f, false, 0)
			switch {
			case !ok1 || !ok2 || !ok3:
				return
			case first != second:
				s.fail("two peeks gave different picks: its state and its randomness belong into the view")
				return
			case first != third:
				s.fail("a peek did not predict the pick: its state and its randomness belong into the view")
				return
			}
		}
	}
}

func (s *selecting) remembersByGroup() {
	s.tb.Helper()
	const size, picks = 8, 30
	run := func(others bool) (picked []int) {
		selector := s.make()
		f, other := newField(size, 1), newField(size-3, 2)
		for range picks {
			at, ok := s.picked(selector, f, false, 0)
			if !ok {
				return nil
			}
			picked = append(picked, at)
			if others {
				s.picked(selector, other, false, 0)
			}
		}
		return picked
	}
	if alone, beside := run(false), run(true); fmt.Sprint(alone) != fmt.Sprint(beside) {
		s.fail("picks for one group depend on those for another: its state and its randomness belong into the view")
	}
}

func (s *selecting) isSafeForConcurrentUse() {
	s.tb.Helper()
	const size, goroutines, picks = 8, 4, 100
	f := newField(size, 1)
	selector := s.make()
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			for i := range picks {
				at := -1
				is := within(func() error { at = selector.Pick(f.set.With(f.look(i%10 == 9, 0))); return nil })
				if is.wrong != nil {
					s.fail("in several goroutines %v", is.wrong)
					return
				}
				if !f.Has(at) {
					s.fail("in several goroutines it picked %d, which is not eligible", at)
					return
				}
			}
		})
	}
	all.Wait()
}

func (s *selecting) describes() {
	s.tb.Helper()
	for f := range eachField {
		selector := s.make()
		describer, ok := selector.(selection.Describer)
		if !ok {
			return
		}
		before, ok := s.picked(selector, f, true, 0)
		if !ok {
			return
		}
		turns := f.cursor.Turns()
		is := within(func() error {
			for i := range f.is {
				s.checkDetail(describer.Describe(f.set.With(f.look(true, 0)), i))
			}
			return nil
		})
		if is.wrong != nil {
			s.fail("describing %v", is.wrong)
			return
		}
		if after, ok := s.picked(selector, f, true, 0); ok && after != before || f.cursor.Turns() != turns {
			s.fail("describing candidates changed the pick")
		}
	}
}

func (s *selecting) checkDetail(d selection.Detail) {
	s.tb.Helper()
	if math.IsNaN(d.Score) || math.IsInf(d.Score, 0) {
		s.fail("the score of a candidate is %v", d.Score)
	}
	for _, factor := range d.Factors {
		if !(factor.Value >= 0 && factor.Value <= 1) || math.IsNaN(factor.Weight) {
			s.fail("factor %q of a candidate is %v with weight %v, want 0 to 1", factor.Name, factor.Value, factor.Weight)
		}
	}
}

func (s *selecting) isQuick() {
	s.tb.Helper()
	const size, picks, tooLong = 200, 20, time.Millisecond // the last is the registry's limit for slow picks
	f := newField(size, 1)
	selector := s.make()
	var took time.Duration
	for range picks {
		began := time.Now()
		if _, ok := s.picked(selector, f, false, 0); !ok {
			return
		}
		if took = time.Since(began); took < tooLong {
			return
		}
	}
	s.fail("with %v every pick took %v or longer, the last one %v", f, tooLong, took)
}

// isWelcome checks that a registry reports no fault of the selector.
func (s *selecting) isWelcome() {
	s.tb.Helper()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		s.tb.Fatalf("registrytest: %v", err)
	}
	defer closeRegistry(s.tb, reg)
	service := registry.NewService[*Script]("suite")
	strategy := selection.New("registrytest", s.make())
	for i := range 5 {
		_, err := service.Register(context.Background(), reg, registry.Provider[*Script]{
			Strategy: strategy, Instance: NewScript().Sometimes(uint64(i), 0.2, Fail(verdict.ClassServerError)),
		})
		if err != nil {
			s.fail("a registry refuses it: %v", err)
			return
		}
	}
	scripts := service.Bind(reg, registry.Query{})
	const calls = 200
	for i := range calls {
		ctx := context.Background()
		if i%7 > 0 {
			ctx = selection.WithKey(ctx, strconv.Itoa(i%7))
		}
		is := within(func() error {
			_ = scripts.Explain()
			_, err := registry.Call(ctx, scripts, func(ctx context.Context, script *Script) (any, error) {
				return nil, script.Play(ctx)
			})
			return err
		})
		if is.wrong != nil {
			s.fail("a call by it: %v", is.wrong)
			return
		}
	}
	analytics, _ := reg.Analytics("suite")
	for _, is := range analytics.Groups {
		if is.Panics+is.Exits+is.OutOfRange > 0 {
			s.fail("a registry counts %d panics, %d exits, %d answers out of range", is.Panics, is.Exits, is.OutOfRange)
		}
	}
}
