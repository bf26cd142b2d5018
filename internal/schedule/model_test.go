package schedule_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/schedule"
)

// modelTimer is a timer of the naive model: a list searched from end to end.
type modelTimer struct {
	id       int
	deadline time.Duration
	child    time.Duration // the delay of the timer its run creates; 0 for none
	victim   int           // the timer its run stops; -1 for none
	over     bool
}

type model struct {
	now    time.Duration
	timers []*modelTimer
	log    []string
}

func (m *model) after(d, child time.Duration, victim int) {
	m.timers = append(m.timers, &modelTimer{
		id: len(m.timers), deadline: m.now + d, child: child, victim: victim,
	})
}

func (m *model) stop(id int) bool {
	stopped := !m.timers[id].over
	m.timers[id].over = true

	return stopped
}

func (m *model) advance(d time.Duration) {
	end := m.now + d
	for {
		var next *modelTimer
		for _, timer := range m.timers {
			if !timer.over && timer.deadline <= end && (next == nil || timer.deadline < next.deadline) {
				next = timer
			}
		}
		if next == nil {
			m.now = end

			return
		}
		next.over = true
		m.now = next.deadline
		line := fmt.Sprint(next.id, " at ", m.now)
		if next.victim >= 0 {
			line += fmt.Sprint(" stops ", next.victim, ": ", m.stop(next.victim))
		}
		m.log = append(m.log, line)
		if next.child > 0 {
			m.after(next.child, 0, -1)
		}
	}
}

// actual does the same with a scheduler.
type actual struct {
	scheduler *schedule.Scheduler
	start     time.Time

	mu     sync.Mutex // guards the fields below
	timers []*schedule.Timer
	log    []string
}

func (r *actual) after(d, child time.Duration, victim int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := len(r.timers)
	r.timers = append(r.timers, r.scheduler.After(d, func() {
		line := fmt.Sprint(id, " at ", time.Since(r.start))
		if victim >= 0 {
			line += fmt.Sprint(" stops ", victim, ": ", r.stop(victim))
		}
		r.mu.Lock()
		r.log = append(r.log, line)
		r.mu.Unlock()
		if child > 0 {
			r.after(child, 0, -1)
		}
	}))
}

func (r *actual) stop(id int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()

	return r.timers[id].Stop()
}

func (r *actual) fired() []string {
	r.mu.Lock()
	defer r.mu.Unlock()

	return slices.Clone(r.log)
}

func FuzzSchedulerMatchesANaiveModel(f *testing.F) {
	f.Add([]byte{0, 5, 0, 5, 0, 3, 3, 2, 2, 1, 3, 10})
	f.Add([]byte{1, 4, 1, 4, 0, 0, 3, 3, 4, 1, 4, 2, 3, 50})
	f.Add([]byte{4, 0, 4, 1, 4, 2, 2, 0, 2, 1, 3, 255, 5, 0, 0, 1, 3, 1})
	f.Fuzz(func(t *testing.T, ops []byte) {
		ops = ops[:min(len(ops), 400)]
		inBubble(t, func(t *testing.T, s *schedule.Scheduler) {
			want := &model{}
			got := &actual{scheduler: s, start: time.Now()}
			after := func(d, child time.Duration, victim int) {
				want.after(d, child, victim)
				got.after(d, child, victim)
			}
			for ; len(ops) >= 2; ops = ops[2:] {
				arg := time.Duration(ops[1])
				switch known := len(want.timers); {
				case ops[0]%5 == 0:
					after(arg, 0, -1)
				case ops[0]%5 == 1:
					after(arg/4, arg%4, -1)
				case ops[0]%5 == 2 && known > 0:
					id := int(arg) % known
					require.Equal(t, want.stop(id), got.stop(id))
				case ops[0]%5 == 4 && known > 0:
					after(arg%8, 0, int(arg)%known)
				default:
					want.advance(arg / 8)
					elapse(arg / 8)
				}
				// Whatever has no delay fires now.
				want.advance(0)
				synctest.Wait()
				require.Equal(t, want.log, got.fired())
			}
			want.advance(1000)
			elapse(1000)
			require.Equal(t, want.log, got.fired())
		})
	})
}
