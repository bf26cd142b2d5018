//go:build unix

package process_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/capreg/registry"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/startup/process"
)

// runScript is a program of steps, each "what:argument".
func runScript(steps []string) {
	asked := make(chan os.Signal, 8)
	signal.Notify(asked, syscall.SIGTERM, syscall.SIGINT)
	for _, step := range steps {
		what, argument, _ := strings.Cut(step, ":")
		if err := runStep(what, argument, asked); err != nil {
			fmt.Fprintln(os.Stderr, step+":", err)
			os.Exit(99)
		}
	}
	os.Exit(0)
}

func runStep(what, argument string, asked <-chan os.Signal) (err error) {
	switch what {
	case "say":
		_, err = fmt.Println(argument)
	case "complain":
		_, err = fmt.Fprintln(os.Stderr, argument)
	case "env":
		value, there := os.LookupEnv(argument)
		_, err = fmt.Println(argument, "is", value, there)
	case "dir":
		var dir string
		dir, err = os.Getwd()
		fmt.Println("dir is", dir)
	case "user":
		_, err = fmt.Println("user is", os.Getuid(), os.Getgid())
	case "input":
		var input []byte
		input, err = io.ReadAll(os.Stdin)
		fmt.Println("input is", len(input))
	case "answer": // each line, until the end of the input
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() && err == nil {
			_, err = fmt.Println("re:", lines.Text())
		}
	case "pause":
		var d time.Duration
		d, err = time.ParseDuration(argument)
		time.Sleep(d)
	case "serve":
		_, err = listen(argument)
	case "http":
		var listener net.Listener
		if listener, err = listen(argument); err == nil {
			go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"status":"ok"}`) })) //nolint:errcheck // it ends with the process
		}
	case "notify":
		var conn net.Conn
		if conn, err = new(net.Dialer).DialContext(context.Background(), "unixgram", os.Getenv("NOTIFY_SOCKET")); err == nil {
			_, err = io.WriteString(conn, strings.ReplaceAll(argument, ",", "\n"))
		}
	case "make":
		err = os.WriteFile(argument, []byte(strconv.Itoa(os.Getpid())), 0o600)
	case "once": // fails but for the first time
		if _, there := os.Stat(argument); there == nil {
			return errors.New("it is there")
		}
		err = os.WriteFile(argument, nil, 0o600)
	case "needs":
		_, err = os.Stat(argument)
	case "fork": // a shell in the same group
		shell := exec.CommandContext(context.Background(), "/bin/sh", "-c", argument)
		shell.Stdout, shell.Stderr = os.Stdout, os.Stderr
		err = shell.Start()
	case "flood": // so many MiB without an end of line
		n, _ := strconv.Atoi(argument)
		for chunk := bytes.Repeat([]byte("x"), 1<<20); n > 0 && err == nil; n-- {
			_, err = os.Stdout.Write(chunk)
		}
	case "deaf":
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
	case "wait":
		<-asked
	case "hang":
		select {}
	case "exit":
		code, _ := strconv.Atoi(argument)
		os.Exit(code)
	case "die":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	default:
		err = errors.New("unknown step")
	}
	return err
}

func listen(address string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(context.Background(), "tcp", address)
}

// script returns the options of a component that runs a script.
func script(tb testing.TB, name string, steps ...string) process.Options {
	tb.Helper()
	program, err := os.Executable()
	require.NoError(tb, err)
	return process.Options{
		Component: registry.Component{Name: name, Provides: []string{name}}, Command: program, Args: steps, Env: []string{helperMark + "=script"},
	}
}

// made returns the component of options that are right.
func made(tb testing.TB, o process.Options) registry.Component {
	tb.Helper()
	c, err := process.Component(o)
	require.NoError(tb, err)
	return c
}

// orchestrate returns an orchestrator of processes, which the test has stopped at its end.
func orchestrate(tb testing.TB, options startup.Options, all ...process.Options) *registry.Orchestrator {
	tb.Helper()
	components := make([]registry.Component, len(all))
	for i, o := range all {
		components[i] = made(tb, o)
	}
	o, err := registry.NewOrchestrator(nil, options, components...)
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = o.Stop(context.Background()) })
	return o
}

// started returns an orchestrator that has started the processes.
func started(tb testing.TB, all ...process.Options) *registry.Orchestrator {
	tb.Helper()
	o := orchestrate(tb, startup.Options{}, all...)
	_, err := o.Start(tb.Context())
	require.NoError(tb, err)
	return o
}

// failed returns the error of a start that fails.
func failed(tb testing.TB, all ...process.Options) error {
	tb.Helper()
	o := orchestrate(tb, startup.Options{}, all...)
	report, err := o.Start(tb.Context())
	require.Error(tb, err)
	require.Equal(tb, err, report.Err)
	require.NoError(tb, o.Stop(tb.Context()))
	return err
}

// watched lets a logger observe the component.
func watched(o *process.Options) *observer.ObservedLogs {
	core, logs := observer.New(zapcore.InfoLevel)
	o.Logger = zap.New(core)
	return logs
}

// pidOf returns the process of a component, of its given life.
func pidOf(tb testing.TB, o *registry.Orchestrator, name string) int {
	tb.Helper()
	for _, c := range o.Report().Components {
		if c.Name == name {
			number, _, _ := strings.Cut(strings.TrimPrefix(c.Detail, "process "), ",")
			number, _, _ = strings.Cut(number, ":")
			pid, err := strconv.Atoi(number)
			require.NoError(tb, err, c.Detail)
			return pid
		}
	}
	require.Fail(tb, "no component", name)
	return 0
}

// eventually waits for what another process does.
func eventually(tb testing.TB, condition func() bool, what string, values ...any) {
	tb.Helper()
	require.Eventually(tb, condition, 20*time.Second, 5*time.Millisecond, append([]any{what}, values...)...)
}

// requireGone waits until no process of that group is left.
func requireGone(tb testing.TB, group int) {
	tb.Helper()
	eventually(tb, func() bool { return len(leftOf([]int{group}, "")) == 0 }, "group %d is gone", group)
}

// freePort returns an address at which nothing listens.
func freePort(tb testing.TB) string {
	tb.Helper()
	listener, err := listen("127.0.0.1:0")
	require.NoError(tb, err)
	defer func() { require.NoError(tb, listener.Close()) }()
	return listener.Addr().String()
}

// text is a buffer that a process may write to.
type text struct {
	mu sync.Mutex
	bytes.Buffer
}

func (t *text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.Buffer.Write(p)
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.Buffer.String()
}
