//go:build unix

package process_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/startup/process"
)

// sleeper is a process that leads a group.
type sleeper struct {
	group int
	ended <-chan struct{}
}

func newSleeper(t *testing.T) sleeper {
	t.Helper()
	command := exec.CommandContext(context.Background(), "sleep", "1000")
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, command.Start())
	ended := make(chan struct{})
	go func() { _ = command.Wait(); close(ended) }()
	t.Cleanup(func() { _ = command.Process.Kill(); <-ended })
	return sleeper{command.Process.Pid, ended}
}

func (s sleeper) lives() bool {
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// requireEnd waits for the end of the process.
func (s sleeper) requireEnd(t *testing.T) {
	t.Helper()
	eventually(t, func() bool { return !s.lives() }, "group %d is killed", s.group)
}

// ignoresSignals waits until a shell ignores signals, where the system shows that.
func ignoresSignals(t *testing.T, shell int) bool {
	t.Helper()
	path := fmt.Sprintf("/proc/%d/status", shell)
	if _, err := os.Stat(path); err != nil {
		return false
	}
	eventually(t, func() bool {
		text, err := os.ReadFile(path)
		return err == nil && regexp.MustCompile(`SigIgn:\s+0*4007\b`).Match(text)
	}, "the shell has begun")
	return true
}

func TestGuard_KillsTheGroupsThatItHasWhenTheProgramEnds(t *testing.T) {
	t.Parallel()
	var g process.Guard
	kept, dropped, late := newSleeper(t), newSleeper(t), newSleeper(t)
	g.Add(kept.group)
	shell := g.Shell()
	require.NotZero(t, shell)
	g.Add(dropped.group)
	g.Add(late.group)
	require.Equal(t, shell, g.Shell(), "one for all")
	g.Drop(dropped.group)
	if ignoresSignals(t, shell) {
		for _, signal := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM} { // of a terminal
			require.NoError(t, syscall.Kill(shell, signal))
		}
	}
	g.Abandon()
	kept.requireEnd(t)
	late.requireEnd(t)
	require.True(t, dropped.lives())
}

func TestGuard_IsGoneWithTheLastGroup(t *testing.T) {
	t.Parallel()
	var g process.Guard
	a, b := newSleeper(t), newSleeper(t)
	g.Add(a.group)
	g.Add(b.group)
	shell := g.Shell()
	g.Drop(a.group)
	require.Equal(t, shell, g.Shell())
	g.Drop(b.group)
	require.Zero(t, g.Shell())
	require.Equal(t, syscall.ESRCH, syscall.Kill(shell, 0))
	require.True(t, a.lives() && b.lives())
	g.Add(a.group)
	require.NotZero(t, g.Shell())
	g.Drop(a.group)
}

func TestGuard_ThatWasKilledIsReplaced(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(g *process.Guard, other int){
		"one more": func(g *process.Guard, other int) { g.Add(other) },
		"one less": func(g *process.Guard, other int) { g.Drop(other) },
		"no other": func(*process.Guard, int) {},
	} {
		var g process.Guard
		a, b := newSleeper(t), newSleeper(t)
		g.Add(a.group)
		if name == "one less" {
			g.Add(b.group)
		}
		keepsOther := name == "one more"
		shell := g.Shell()
		require.NoError(t, syscall.Kill(shell, syscall.SIGKILL))
		eventually(t, func() bool { return syscall.Kill(shell, 0) != nil }, "the shell is gone")
		change(&g, b.group)
		eventually(t, func() bool { return g.Shell() != shell && g.Shell() != 0 }, "another shell: %s", name)
		require.True(t, a.lives() && b.lives(), name)
		g.Abandon()
		a.requireEnd(t)
		if keepsOther {
			b.requireEnd(t)
		} else {
			require.True(t, b.lives(), name)
		}
	}
}

func TestGuard_ThatIsSuspendedIsKilledAtTheEnd(t *testing.T) {
	t.Parallel()
	var g process.Guard
	a := newSleeper(t)
	g.Add(a.group)
	shell := g.Shell()
	require.NoError(t, syscall.Kill(shell, syscall.SIGSTOP))
	began := time.Now()
	g.Drop(a.group)
	require.Less(t, time.Since(began), 10*time.Second)
	require.Equal(t, syscall.ESRCH, syscall.Kill(shell, 0))
	require.True(t, a.lives())
}
