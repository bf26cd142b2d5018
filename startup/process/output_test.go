//go:build unix

package process_test

import (
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/capreg/registry"
	"github.com/capreg/registry/startup/process"
)

func TestOutput_GoesToTheLoggerLineByLine(t *testing.T) {
	t.Parallel()
	options := script(t, "server", "say:one\r\ntwo\n\nthree\rfour", "complain:five", "say:done", "wait")
	options.Ready.Line = regexp.MustCompile("^done$")
	logs := watched(&options)
	o := started(t, options)
	require.NoError(t, o.Stop(t.Context()))
	var out, errs []string
	for _, entry := range logs.All() {
		fields := entry.ContextMap()
		require.Equal(t, "server", fields["component"])
		require.Equal(t, "process.test", fields["command"])
		switch fields["stream"] {
		case "stdout":
			out = append(out, entry.Message)
		case "stderr":
			errs = append(errs, entry.Message)
		}
	}
	require.Equal(t, []string{"one", "two", "three", "four", "done"}, out)
	require.Equal(t, []string{"five"}, errs)
	all := logs.All()
	require.Equal(t, "process started", all[0].Message)
	require.Equal(t, "process ended", all[len(all)-1].Message)
	require.Equal(t, "exit status 0", all[len(all)-1].ContextMap()["status"])
}

func TestOutput_WithoutAnEndOfLineNeedsNoMemory(t *testing.T) {
	t.Parallel()
	const mebibytes = 1024
	options := script(t, "server", fmt.Sprintf("flood:%d", mebibytes), "exit:1")
	logs := watched(&options)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := failedLater(t, options)
	runtime.ReadMemStats(&after)
	var exit *process.ExitError
	require.ErrorAs(t, err, &exit)
	require.Len(t, exit.Lines, 1)
	require.LessOrEqual(t, len(exit.Lines[0]), 1<<10)
	require.Less(t, len(err.Error()), 500)
	lines := logs.FilterField(zap.String("stream", "stdout")).All()
	require.Len(t, lines, 1)
	require.Len(t, lines[0].Message, 8<<10)
	require.EqualValues(t, mebibytes<<20-8<<10, lines[0].ContextMap()["cut_bytes"])
	require.Less(t, after.HeapAlloc, before.HeapAlloc+64<<20, "other tests run meanwhile")
}

func TestOutput_GoesToWritersAsItIs(t *testing.T) {
	t.Parallel()
	var out, errs text
	options := script(t, "server", "say:one\r\ntwo", "complain:\x01\xff", "say:ready", "wait")
	options.Stdout, options.Stderr = &out, &errs
	options.Ready.Line = regexp.MustCompile("ready")
	logs := watched(&options)
	o := started(t, options)
	require.NoError(t, o.Stop(t.Context()))
	require.Equal(t, "one\r\ntwo\nready\n", out.String())
	require.Equal(t, "\x01\xff\n", errs.String())
	require.Equal(t, 2, logs.Len(), "%v", logs.All())
}

// failingWriter fails in one way.
type failingWriter func(p []byte) (int, error)

func (f failingWriter) Write(p []byte) (int, error) { return f(p) }

func TestOutput_AWriterThatFailsDoesNotStopTheProcess(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]failingWriter{
		"an error": func([]byte) (int, error) { return 0, errors.New("disk is full") },
		"a panic":  func([]byte) (int, error) { panic("disk is full") },
		"too few":  func([]byte) (int, error) { return 0, nil },
	} {
		calls := 0
		options := script(t, "server", "say:one", "pause:50ms", "flood:10", "say:", "say:ready", "wait")
		options.Stdout = failingWriter(func(p []byte) (int, error) { calls++; return write(p) })
		options.Ready.Line = regexp.MustCompile("ready")
		logs := watched(&options)
		o := started(t, options)
		require.NoError(t, o.Stop(t.Context()), name)
		require.Equal(t, 1, calls, name)
		require.Equal(t, 1, logs.FilterMessage("output is not written any more").Len(), name)
	}
}

// panickingCore is the core of a logger that panics.
type panickingCore struct{ zapcore.Core }

func (panickingCore) Enabled(zapcore.Level) bool                 { return true }
func (c panickingCore) With([]zapcore.Field) zapcore.Core        { panic("in With") }
func (panickingCore) Write(zapcore.Entry, []zapcore.Field) error { panic("in Write") }

func (c panickingCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return checked.AddCore(entry, c)
}

func TestOutput_ALoggerThatPanicsHarmsNothing(t *testing.T) {
	t.Parallel()
	options := script(t, "server", "say:ready", "wait")
	options.Logger = zap.New(panickingCore{})
	options.Ready.Line = regexp.MustCompile("ready")
	o := started(t, options)
	require.NoError(t, o.Stop(t.Context()))
}

func TestStop_NamesAWriterThatDoesNotReturn(t *testing.T) {
	t.Parallel()
	free := make(chan struct{})
	returned := make(chan struct{})
	options := script(t, "server", "say:one", "wait")
	options.Ready.Up = 100 * time.Millisecond
	options.Stdout = failingWriter(func(p []byte) (int, error) { defer close(returned); <-free; return len(p), nil })
	o := started(t, options)
	pid := pidOf(t, o, "server")
	err := o.Stop(t.Context())
	require.ErrorIs(t, err, registry.ErrStuck)
	require.ErrorContains(t, err, "a writer or the logger of process")
	requireGone(t, pid)
	close(free)
	<-returned
}

// A daemon that has left the group keeps the pipe open.
func TestStop_DoesNotWaitForTheOutputOfADaemon(t *testing.T) {
	t.Parallel()
	options := script(t, "server", "fork:setsid sleep 7.5 & echo daemon", "say:ready", "wait")
	options.Ready.Line = regexp.MustCompile("daemon")
	o := started(t, options)
	began := time.Now()
	require.NoError(t, o.Stop(t.Context()))
	require.Less(t, time.Since(began), 5*time.Second)
}

func TestExitError_TextHasTheLastLinesThatFit(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 150)
	for _, test := range []struct {
		lines []string
		want  string
	}{
		{nil, "process 7 (pg, life 2): exit status 1 after 1.5s"},
		{[]string{"a", "b"}, "process 7 (pg, life 2): exit status 1 after 1.5s: a | b"},
		{[]string{"a", long, long}, "process 7 (pg, life 2): exit status 1 after 1.5s: " + long},
		{[]string{"a", long, "b", "c\n"}, "process 7 (pg, life 2): exit status 1 after 1.5s: a | " + long + " | b | c "},
		{[]string{"a", long + long}, "process 7 (pg, life 2): exit status 1 after 1.5s: " + strings.Repeat("x", 200) + "…"},
	} {
		err := &process.ExitError{Command: "pg", PID: 7, Life: 2, Code: 1, Took: 1500 * time.Millisecond, Lines: test.lines}
		require.EqualError(t, err, test.want)
	}
}
