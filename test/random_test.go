package test_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/verdict"
)

// piece is a random sequence of calls and changes. Each step has minutes of its own, so that the registry's
// own random delays decide nothing.
type piece struct {
	*testing.T

	rand    *rand.Rand
	reg     *registry.Registry
	options []registry.CallOption
	root    context.Context //nolint:containedctx // ends all calls
	calls   int
	hangs   atomic.Int64 // calls that wait for the end of their context
	undo    []func(context.Context) error
	stop    []func()

	mu  sync.Mutex // guards log
	log []string
}

func (s *piece) notef(format string, values ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, fmt.Sprintf(format, values...))
}

func (s *piece) one() *registry.Registration {
	name := pieceNames[s.rand.IntN(len(pieceNames))]
	found, ok := s.reg.Provider("chat", name)
	if !ok {
		return s.join(name)
	}
	return found
}

func (s *piece) join(name string) *registry.Registration {
	p := testkit.Provider{Name: name, Replace: true, AttemptTimeout: 3 * time.Hour}
	if name != "c" {
		p.Domain = "d"
	}
	return testkit.Add(s.T, s.reg, p)
}

// call begins a call that takes some time on its first provider.
func (s *piece) call() {
	s.calls++
	number, kind, takes := s.calls, s.rand.IntN(12), []time.Duration{0, 29 * time.Minute, 58 * time.Minute, 91 * time.Minute}[s.rand.IntN(4)]
	if kind == 11 && s.hangs.Load() > 0 {
		kind = 0
	}
	if kind == 11 {
		s.hangs.Add(1)
	}
	ctx, cancel := s.root, context.CancelFunc(func() {})
	if s.rand.IntN(3) == 0 {
		ctx, cancel = context.WithTimeout(ctx, []time.Duration{
			50*time.Minute + 20*time.Second, 100*time.Minute + 25*time.Second, 150*time.Minute + 27*time.Second, 200*time.Minute + 35*time.Second,
		}[s.rand.IntN(4)])
	}
	going := true
	var told []string
	end := func(how any) {
		if kind == 11 {
			s.hangs.Add(-1)
		}
		going = false
		s.notef("%d: %v: %v", number, told, how)
	}
	go func() {
		defer cancel()
		defer func() {
			if value := recover(); value != nil {
				end(value)
			} else if going {
				end("exit")
			}
		}()
		answer, err := registry.Call(ctx, testkit.Bind(s.reg), func(ctx context.Context, m testkit.ChatModel) (string, error) {
			name, err := m.Chat(ctx, "?")
			told = append(told, name)
			if len(told) == 1 {
				if kind == 11 {
					<-ctx.Done()
					return "", ctx.Err()
				}
				time.Sleep(takes)
			}
			switch kind {
			case 6, 7:
				return "", testkit.ErrDown
			case 8:
				if len(told) == 1 {
					return "", verdict.As(testkit.ErrDown, verdict.Verdict{Class: verdict.ClassOverloaded})
				}
			case 9:
				if len(told) == 1 {
					return "", verdict.As(testkit.ErrDown, verdict.Verdict{Class: verdict.ClassRateLimited, After: 10 * time.Second})
				}
			case 10:
				switch number % 3 {
				case 0:
					panic("boom")
				case 1:
					runtime.Goexit()
				default:
					return "", verdict.As(testkit.ErrDown, verdict.Verdict{Class: verdict.ClassServerError})
				}
			}
			return name, err
		}, s.options...)
		how := []string{answer}
		for _, is := range []error{registry.ErrUnavailable, testkit.ErrDown, context.Canceled, context.DeadlineExceeded, registry.ErrAttemptTimeout, registry.ErrBreakerOpen, registry.ErrAtCapacity} {
			if errors.Is(err, is) {
				how = append(how, is.Error())
			}
		}
		end(how)
	}()
}

func (s *piece) change() {
	r, pick := s.one(), s.rand.IntN
	switch pick(19) {
	case 0:
		_, err := r.SetBreakerPolicy([]registry.BreakerPolicy{
			{FailureThreshold: 2, RecoveryTimeout: 30 * time.Second},
			{FailureThreshold: 3, SlowRate: 0.5, SlowAfter: time.Hour, MinimumCalls: 3, Window: 5 * time.Hour},
			{FailureRate: 0.5, MinimumCalls: 4, Window: 3 * time.Hour},
			{},
		}[pick(4)])
		s.note(err)
	case 1:
		_, err := r.SetRetry(registry.RetryPolicy{Retries: pick(3), FirstDelay: 1, MaxDelay: 1, Budget: 2 + pick(2), Refund: 1, Floor: 1e-9})
		s.note(err)
	case 2:
		_, err := r.SetLimits([]registry.LimitPolicy{{}, {}, {}, {MaxConcurrent: 1 + pick(2), NoQueue: true}}[pick(4)])
		s.note(err)
	case 3:
		_, err := r.SetStrategy(testkit.StrategyNumber(1 + pick(3)))
		s.note(err)
	case 4:
		_, err := r.SetAttemptTimeout([]time.Duration{registry.NoTimeout, time.Hour + time.Second, 4 * time.Hour}[pick(3)])
		s.note(err)
	case 5:
		s.note(r.ForceOpen(time.Duration(1+pick(5))*30*time.Minute+time.Second, "script"))
	case 6, 7:
		s.note(r.Reset())
	case 8:
		s.note(r.MarkUnhealthy(testkit.ErrDown))
	case 9, 10:
		s.note(r.MarkHealthy())
	case 11:
		undo, err := testkit.Chat.Testing(s.reg).Swap(s.Name(), r.Name(), testkit.Says(r.Name()+"'"))
		s.note(err)
		if err == nil {
			s.undo = append(s.undo, undo)
		}
	case 12:
		undo, err := testkit.Chat.Testing(s.reg).Override(s.Name(), testkit.Provider{Name: "o", Handler: "", Instance: testkit.Says("o"), AttemptTimeout: 3 * time.Hour})
		s.note(err)
		if err == nil {
			s.undo = append(s.undo, undo)
		}
	case 13, 16, 17, 18:
		switch last := len(s.undo) - 1; {
		case last >= 0:
			undo := s.undo[last]
			s.undo = s.undo[:last]
			go func() { _ = undo(s.root) }()
		case pick(2) == 0:
			go func() { _ = r.Unregister(s.root) }()
		default:
			s.join(r.Name())
		}
	case 14:
		remove, err := s.reg.AddHooks(registry.Hooks{AfterCall: func(_ context.Context, r registry.CallReport) {
			s.notef("observed %d", len(r.Attempts))
		}})
		s.note(err)
		s.stop = append(s.stop, remove)
	case 15:
		for _, stop := range s.stop {
			stop()
		}
		s.stop = nil
	}
}

func (s *piece) note(err error) {
	if err != nil {
		s.notef("%v", err)
	}
}

// look records everything that can be observed.
func (s *piece) look() {
	for info := range s.reg.All() {
		b, cooling := info.Breaker, 0
		for _, longer := range []time.Duration{0, 5 * time.Second, 12 * time.Second, 20 * time.Second} { // apart by more than what is random of a cooldown
			if time.Until(info.Cooldown.Until) > longer {
				cooling++
			}
		}
		s.notef("%s: %d=%d+%d+%d+%d+%d mean %v, %v %d %d/%d %d %d %d, cooling %d, eligible %v", info.Name,
			info.Attempts, info.Successes, info.Failures, info.Ignored, info.Limited, info.InFlight, info.MeanLatency.Truncate(time.Second),
			b.State, b.ConsecutiveFailures, b.TrialSuccesses, b.TrialsInFlight, b.Opened, b.HalfOpened, b.Closed, cooling, info.Eligible)
	}
	stats := s.reg.Stats()
	s.notef("%d hits, %d misses", stats.Hits, stats.Misses)
}

var pieceNames = []string{"a", "b", "c"}

// perform runs the script of a seed and returns what was observed.
func perform(t *testing.T, seed uint64, options ...registry.CallOption) (log []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		reg := testkit.New(t, registry.Options{})
		events := reg.Subscribe(1 << 12)
		root, cancel := context.WithCancel(t.Context())
		s := &piece{T: t, rand: rand.New(rand.NewPCG(seed, 7)), reg: reg, options: options, root: root}
		for _, name := range pieceNames {
			s.join(name)
		}
		for range 100 {
			if s.rand.IntN(3) == 0 {
				s.change()
			} else {
				s.call()
			}
			testkit.Pass(time.Second) // retries have delays
			s.look()
			testkit.Pass(4*time.Minute - time.Second)
		}
		testkit.Pass(6 * time.Hour)
		s.look()
		cancel() // else calls without a timeout may hang for ever
		for _, undo := range slices.Backward(s.undo) {
			synctest.Wait() // what drains would race with the undo to the bus
			s.note(undo(t.Context()))
		}
		testkit.Pass(time.Minute)
		s.look()
		for info := range reg.All() {
			require.Zero(t, info.InFlight)
			require.Equal(t, info.Attempts, info.Successes+info.Failures+info.Ignored+info.Limited)
		}
		for _, kind := range testkit.Kinds(t, events) {
			s.notef("%s", kind)
		}
		events.Close()
		require.NoError(t, reg.Close(t.Context()))
		log = s.log
	})
	return log
}

// An option that changes nothing makes a call take the slow path.
func TestRandom_ScriptsLeaveTheSameOnEveryPath(t *testing.T) {
	t.Parallel()
	for seed := range uint64(pieces) {
		short, long := perform(t, seed), perform(t, seed, registry.Caller(""))
		if slices.Equal(short, long) {
			continue
		}
		at := 0
		for at < min(len(short), len(long)) && short[at] == long[at] {
			at++
		}
		assert.Fail(t, "not the same", "seed %d\n%s\n--- short\n%s\n--- long\n%s", seed, strings.Join(short[max(at-12, 0):at], "\n"),
			strings.Join(short[at:min(at+6, len(short))], "\n"), strings.Join(long[at:min(at+6, len(long))], "\n"))
	}
}

const pieces = 30
