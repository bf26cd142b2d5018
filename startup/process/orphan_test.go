//go:build unix

package process_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/startup/process"
)

// runParent is a program that starts processes, says what their numbers are and waits to be killed. What it starts is a
// deaf process with a deaf shell in its group each.
func runParent(args []string) {
	program, err := os.Executable()
	if err != nil {
		panic(err)
	}
	count, _ := strconv.Atoi(args[0])
	var components []registry.Component
	for i := range count {
		c, err := process.Component(process.Options{
			Component: registry.Component{Name: strconv.Itoa(i)}, Command: program, Env: []string{helperMark + "=script"},
			Args:  []string{"deaf", "fork:trap '' TERM; exec sleep 1000", "say:ready", "hang"},
			Ready: process.Ready{Line: regexp.MustCompile("ready")},
		})
		if err != nil {
			panic(err)
		}
		components = append(components, c)
	}
	o, err := registry.NewOrchestrator(nil, startup.Options{}, components...)
	if err != nil {
		panic(err)
	}
	report, err := o.Start(context.Background())
	if err != nil {
		panic(err)
	}
	for _, c := range report.Components {
		fmt.Println(c.Detail)
	}
	fmt.Println("all")
	select {}
}

// parent starts a program that starts processes, and returns it and their numbers.
func parent(t *testing.T, count int) (*exec.Cmd, []int) {
	t.Helper()
	program, err := os.Executable()
	require.NoError(t, err)
	command := exec.CommandContext(context.Background(), program, strconv.Itoa(count))
	command.Env = append(os.Environ(), helperMark+"=parent")
	command.Stderr = os.Stderr
	out, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	t.Cleanup(func() { _ = command.Process.Kill() })
	var groups []int
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "all"; {
		group, err := strconv.Atoi(strings.TrimPrefix(lines.Text(), "process "))
		require.NoError(t, err)
		groups = append(groups, group)
	}
	require.Len(t, groups, count)
	return command, groups
}

func TestComponent_NoProcessIsLeftWhenThisProgramIsKilled(t *testing.T) {
	t.Parallel()
	command, groups := parent(t, 5)
	for _, group := range groups {
		require.NoError(t, syscall.Kill(-group, 0))
	}
	require.NoError(t, command.Process.Kill())
	require.Error(t, command.Wait())
	for _, group := range groups {
		requireGone(t, group)
	}
}

// guardOf returns the guard of a program: its child that leads a session.
func guardOf(t *testing.T, program int) int {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), testkit.Program(t, "ps"), "-A", "-o", "pid=", "-o", "ppid=", "-o", "stat=", "-o", "args=").Output()
	require.NoError(t, err)
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if fields[1] == strconv.Itoa(program) && strings.Contains(line, "trap") && !strings.HasPrefix(fields[2], "Z") {
			guard, err := strconv.Atoi(fields[0])
			require.NoError(t, err)
			return guard
		}
	}
	return 0
}

func TestComponent_AGuardThatIsKilledIsReplaced(t *testing.T) {
	t.Parallel()
	command, groups := parent(t, 2)
	first := guardOf(t, command.Process.Pid)
	require.NotZero(t, first)
	require.NoError(t, syscall.Kill(first, syscall.SIGKILL))
	eventually(t, func() bool { guard := guardOf(t, command.Process.Pid); return guard != 0 && guard != first }, "another guard")
	require.NoError(t, command.Process.Kill())
	require.Error(t, command.Wait())
	for _, group := range groups {
		requireGone(t, group)
	}
}

// The kernel kills a process when the thread ends that has started it, not the program.
func TestComponent_AProcessSurvivesTheThreadsOfThisProgram(t *testing.T) {
	t.Parallel()
	endThreads := func() {
		for range 50 {
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				runtime.LockOSThread() // the thread ends with the goroutine
			}()
			<-ended
		}
	}
	options := script(t, "a", "wait")
	options.Logger = zap.New(zapcore.NewNopCore()).WithOptions(zap.WrapCore(func(zapcore.Core) zapcore.Core {
		core, _ := observer.New(zapcore.InfoLevel)
		return zapcore.RegisterHooks(core, func(entry zapcore.Entry) error {
			if entry.Message == "process started" {
				endThreads() // in the goroutine that has started it
			}
			return nil
		})
	}))
	o := started(t, options)
	endThreads()
	require.NoError(t, syscall.Kill(pidOf(t, o, "a"), 0))
	<-time.After(50 * time.Millisecond) // the end of a process would be a moment later
	state, _ := o.State("a")
	require.Equal(t, startup.Ready, state)
	require.NoError(t, o.Stop(t.Context()))
}
