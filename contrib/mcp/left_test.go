//go:build unix

package registrymcp_test

import (
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	registrymcp "github.com/capreg/registry/contrib/mcp"
)

// openFiles counts the file descriptors of this program; zero where the system does not say.
func openFiles() int {
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(files)
}

// children returns the processes that this program has.
func children(t *testing.T) (all []string) {
	t.Helper()
	files, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil
	}
	for _, task := range files {
		text, err := os.ReadFile("/proc/self/task/" + task.Name() + "/children")
		if err == nil {
			all = append(all, strings.Fields(string(text))...)
		}
	}
	return all
}

// It does not run beside others, so that what is left can be counted.
//
//nolint:paralleltest // see above
func TestNothing_IsLeftAndEachCallEndsWhateverHappensToTheServers(t *testing.T) {
	runtime.GC()
	files, goroutines := openFiles(), runtime.NumGoroutine()
	t.Run("run", func(t *testing.T) {
		s := with(t, registrymcp.ToolsOptions{Wait: 5 * time.Second})
		one, two := s.child("one", "noisy", "one"), s.child("two", "stdio", "two")
		web := s.remote("web", serve(s, "web").URL)
		one.Set, two.Set, one.Patience, two.Patience = "files", "files", 300*time.Millisecond, 300*time.Millisecond
		s.start(one, two, web)
		random := rand.New(rand.NewPCG(1, 2))
		done := make(chan []error)
		stop := make(chan struct{})
		go func() {
			done <- together(8, func(i int) error {
				for {
					select {
					case <-stop:
						return nil
					default:
					}
					began := time.Now()
					name := []string{"files/echo", "web/echo", "files/pid", "web/fail"}[i%4]
					if _, err := s.call(t.Context(), name, text("x"), registry.AttemptTimeout(time.Second)); err != nil {
						return err
					}
					if took := time.Since(began); took > 10*time.Second {
						return os.ErrDeadlineExceeded
					}
				}
			})
		}()
		for range 15 {
			signal := []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGTERM, syscall.SIGPIPE}[random.IntN(4)]
			answer, err := s.call(t.Context(), "files/pid", nil, registry.AttemptTimeout(time.Second))
			require.NoError(t, err)
			pid, err := strconv.Atoi(answer)
			require.NoError(t, err)
			_ = syscall.Kill(pid, signal)
			<-time.After(time.Duration(random.IntN(100)) * time.Millisecond)
		}
		close(stop)
		for _, err := range <-done {
			require.NoError(t, err)
		}
	})
	left := func() bool { return openFiles() > files || runtime.NumGoroutine() > goroutines || len(children(t)) > 0 }
	for deadline := time.Now().Add(10 * time.Second); left() && time.Now().Before(deadline); <-time.After(20 * time.Millisecond) {
		runtime.GC()
	}
	require.False(t, left(), "files %d → %d, goroutines %d → %d, processes %v", files, openFiles(), goroutines, runtime.NumGoroutine(), children(t))
}

func TestReconnection_TakesLessThanASecondAfterTheServerIsBack(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{Wait: 15 * time.Second})
	s.start(s.child("files", "stdio", "one"))
	const times = 40
	var took []time.Duration
	pid := s.pid("files")
	for range times {
		before := s.logs.FilterMessage("process started").Len()
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		for next := pid; next == pid; next = s.pid("files") {
		}
		answered := time.Now()
		s.eventually(func() bool { return s.logs.FilterMessage("process started").Len() > before }, "it is logged")
		started := s.logs.FilterMessage("process started").All()[before]
		took = append(took, answered.Sub(started.Time))
		pid = s.pid("files")
	}
	slices.Sort(took)
	t.Logf("from the start of the process to the first answer: median %v, longest %v", took[times/2], slices.Max(took))
	require.Less(t, took[times*99/100], time.Second)
}
