//go:build unix

package process_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/startup/process"
)

// ask asks a process that answers each line.
func ask(s process.Streams, question string) (string, error) {
	if _, err := io.WriteString(s.In, question+"\n"); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(s.Out).ReadString('\n')
	return strings.TrimSuffix(answer, "\n"), err
}

func TestTalk_SpeaksWithEachLifeOfTheProcess(t *testing.T) {
	t.Parallel()
	answers := make(chan string, 2)
	options := script(t, "server", "complain:here", "answer", "exit:3")
	options.Component.Restart = startup.Restart{Mode: startup.OnFailure, FirstDelay: time.Millisecond}
	options.Ready.Line = regexp.MustCompile("here")
	logs := watched(&options)
	options.Talk = func(ctx context.Context, s process.Streams) error {
		answer, err := ask(s, fmt.Sprint("life ", s.Life))
		answers <- answer
		if s.Life == 1 || err != nil {
			return err // it has no more questions, and the process ends
		}
		<-ctx.Done()
		return ctx.Err()
	}
	o := started(t, options)
	require.Equal(t, "re: life 1", <-answers)
	require.Equal(t, "re: life 2", <-answers)
	require.NoError(t, o.Stop(t.Context()))
	for _, entry := range logs.All() {
		require.NotEqual(t, "stdout", entry.ContextMap()["stream"])
	}
	require.NotZero(t, logs.FilterMessage("here").Len())
}

func TestTalk_ThatFailsEndsTheLife(t *testing.T) {
	t.Parallel()
	broken := errors.New("it speaks another protocol")
	for name, test := range map[string]struct {
		fail func() error
		text string
	}{
		"an error": {func() error { return broken }, "it speaks another protocol"},
		"a panic":  {func() error { panic("odd") }, "odd"},
		"an exit":  {func() error { runtime.Goexit(); return nil }, "goroutine"},
	} {
		options := script(t, "server", "fork:sleep 1000", "deaf", "answer", "hang")
		pids := make(chan int, 1)
		options.Talk = func(_ context.Context, s process.Streams) error {
			pids <- s.PID
			if answer, err := ask(s, "hello"); err != nil || answer != "re: hello" {
				return fmt.Errorf("%q: %w", answer, err)
			}
			return test.fail()
		}
		err := failedLater(t, options)
		require.ErrorContains(t, err, "(process.test, life 1) was killed: ", name)
		require.ErrorContains(t, err, test.text, name)
		if name == "an error" {
			require.ErrorIs(t, err, broken)
		}
		requireGone(t, <-pids)
	}
}

func TestTalk_ThatIsOverLetsTheProcessGoOn(t *testing.T) {
	t.Parallel()
	options := script(t, "server", "answer", "flood:1", "complain:done", "wait")
	options.Ready.Line = regexp.MustCompile("done")
	options.Talk = func(context.Context, process.Streams) error { return nil }
	o := started(t, options)
	require.NoError(t, syscall.Kill(pidOf(t, o, "server"), 0))
	require.NoError(t, o.Stop(t.Context()))
}

func TestTalk_EndsWithTheComponentWhateverItWaitsFor(t *testing.T) {
	t.Parallel()
	for name, wait := range map[string]func(ctx context.Context, s process.Streams) error{
		"its context": func(ctx context.Context, _ process.Streams) error { <-ctx.Done(); return ctx.Err() },
		"output":      func(_ context.Context, s process.Streams) error { _, err := io.ReadAll(s.Out); return err },
		"a process that reads nothing": func(_ context.Context, s process.Streams) error {
			_, err := s.In.Write(make([]byte, 1<<20))
			return err
		},
	} {
		options := script(t, "server", "complain:ready", "wait")
		options.Ready.Line = regexp.MustCompile("ready")
		options.Component.Restart.Mode = startup.Always
		returned := make(chan struct{})
		options.Talk = func(ctx context.Context, s process.Streams) error {
			defer close(returned)
			return wait(ctx, s)
		}
		o := started(t, options)
		require.NoError(t, o.Stop(t.Context()), name)
		<-returned
	}
}

func TestTalk_IsToldOfTheEndOfTheProcess(t *testing.T) {
	t.Parallel()
	options := script(t, "server", "say:bye", "exit:4")
	told := make(chan error, 1)
	options.Talk = func(ctx context.Context, s process.Streams) error {
		<-ctx.Done()
		text, _ := io.ReadAll(s.Out)
		told <- fmt.Errorf("%w: %s", context.Cause(ctx), text)
		return errors.New("of no interest any more")
	}
	err := failedLater(t, options)
	var exit *process.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 4, exit.Code)
	require.NotContains(t, err.Error(), "of no interest")
	require.EqualError(t, <-told, "the process has ended: bye\n")
}

func TestTalk_ThatMeetsTheEndOfTheProcessIsNotWhyItFails(t *testing.T) {
	t.Parallel()
	options := script(t, "server", "complain:out of memory", "exit:5")
	options.Talk = func(_ context.Context, s process.Streams) error {
		_, err := bufio.NewReader(s.Out).ReadString('\n')
		return err
	}
	err := failedLater(t, options)
	var exit *process.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 5, exit.Code)
	require.Equal(t, []string{"out of memory"}, exit.Lines)
}

func TestTalk_ThatDoesNotReturnIsNamedByTheStop(t *testing.T) {
	t.Parallel()
	free, returned := make(chan struct{}), make(chan struct{})
	options := script(t, "server", "complain:ready", "wait")
	options.Ready.Line = regexp.MustCompile("ready")
	options.Talk = func(context.Context, process.Streams) error { defer close(returned); <-free; return nil }
	o := started(t, options)
	pid := pidOf(t, o, "server")
	err := o.Stop(t.Context())
	require.ErrorIs(t, err, registry.ErrStuck)
	require.ErrorContains(t, err, fmt.Sprintf("Talk of process %d does not return", pid))
	requireGone(t, pid)
	close(free)
	<-returned
}

func TestTalk_APathThatCannotBeStartedLeavesNoPipes(t *testing.T) {
	t.Parallel()
	options := script(t, "server", "wait")
	options.Command = t.TempDir()
	options.Talk = func(context.Context, process.Streams) error { t.Error("it is called without a process"); return nil }
	require.ErrorContains(t, failed(t, options), "command")
}
