//go:build unix

package process_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/startup/process"
)

func TestComponent_IsReadyByWhatItsProcessShows(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	file := filepath.Join(folder, "ready")
	port, web, both := freePort(t), freePort(t), freePort(t)
	for name, test := range map[string]struct {
		steps []string // after a pause
		ready process.Ready
	}{
		"port":           {[]string{"serve:" + port}, process.Ready{Port: port}},
		"HTTP":           {[]string{"http:" + web}, process.Ready{HTTP: "http://" + web + "/healthz"}},
		"line":           {[]string{"say:now ready to serve"}, process.Ready{Line: regexp.MustCompile(`ready to \w+$`)}},
		"line of errors": {[]string{"complain:ready"}, process.Ready{Line: regexp.MustCompile(`^ready$`)}},
		"notification":   {[]string{"notify:STATUS=warm,READY=1"}, process.Ready{Notify: true}},
		"file":           {[]string{"make:" + file}, process.Ready{File: file}},
		"line and port":  {[]string{"say:ready", "pause:100ms", "serve:" + both}, process.Ready{Line: regexp.MustCompile("ready"), Port: both}},
		"line and notification": {
			[]string{"notify:READY=1", "pause:100ms", "say:ready"}, process.Ready{Line: regexp.MustCompile("ready"), Notify: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := script(t, "server", append([]string{"pause:150ms"}, append(test.steps, "wait")...)...)
			options.Ready = test.ready
			o := started(t, options)
			r := o.Report()
			require.GreaterOrEqual(t, r.Wall, 150*time.Millisecond)
			if strings.Contains(name, "and") {
				require.GreaterOrEqual(t, r.Wall, 250*time.Millisecond)
			}
			pid := pidOf(t, o, "server")
			require.NoError(t, o.Stop(t.Context()))
			requireGone(t, pid)
		})
	}
}

func TestComponent_WithoutASignIsReadyAtOnceOrWhenItHasRunForATime(t *testing.T) {
	t.Parallel()
	o := started(t, script(t, "a", "wait"))
	require.Less(t, o.Report().Wall, 5*time.Second)
	options := script(t, "b", "wait")
	options.Ready.Up = 300 * time.Millisecond
	require.GreaterOrEqual(t, started(t, options).Report().Wall, 300*time.Millisecond)
}

func TestComponent_ItsOwnProbeIsAskedToo(t *testing.T) {
	t.Parallel()
	options := script(t, "a", "say:ready", "wait")
	options.Ready.Line = regexp.MustCompile("ready")
	asked := 0
	options.Component.Ready = func(context.Context) error {
		if asked++; asked < 3 {
			return errors.New("not yet")
		}
		return nil
	}
	require.Equal(t, 3, started(t, options).Report().Components[0].Probes)
	require.Equal(t, 3, asked)
}

// A file that an earlier life or another program has left would make the process ready before it is.
func TestReady_FileFromBeforeTheStartIsNotTheFileOfTheProcess(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(folder, "pid"), []byte("1"), 0o600))
	options := script(t, "server", "wait")
	options.Dir, options.Ready.File = folder, "pid"
	options.Component.StartTimeout = 300 * time.Millisecond
	require.ErrorContains(t, failed(t, options), `pid" is from before the start`)
	options.Args = []string{"pause:50ms", "make:pid", "wait"}
	options.Component.StartTimeout = 0
	started(t, options)
}

func TestReady_ThatNeverComesNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	for want, ready := range map[string]process.Ready{
		"TCP 127.0.0.1:":         {Port: freePort(t)},
		"no such file":           {File: filepath.Join(t.TempDir(), "none")},
		"not ready within":       {Line: regexp.MustCompile("never")},
		"not ready within 300ms": {Notify: true},
		"it has run for":         {Up: time.Hour},
		"GET http://127.0.0.1":   {HTTP: "http://" + freePort(t)},
	} {
		options := script(t, "server", "wait")
		options.Ready = ready
		options.Component.StartTimeout = 300 * time.Millisecond
		err := failed(t, options)
		require.ErrorIs(t, err, registry.ErrNotReady)
		require.ErrorContains(t, err, want)
	}
}

func TestStart_FailsAtOnceWhenTheProcessEndsBeforeItIsReady(t *testing.T) {
	t.Parallel()
	options := script(t, "server", "say:reading\tthe configuration", "complain:no such file: server.conf", "exit:3")
	options.Ready.Port = freePort(t)
	err := failed(t, options)
	var exit *process.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 3, exit.Code)
	require.Equal(t, 1, exit.Life)
	require.Empty(t, exit.Signal)
	require.ElementsMatch(t, []string{"reading the configuration", "no such file: server.conf"}, exit.Lines)
	require.Regexp(t, `^registry: start of component "server": process \d+ \(process.test, life 1\): exit status 3 after \d+.*: .*no such file: server.conf`, err.Error())

	options.Args = []string{"exit:0"}
	require.ErrorContains(t, failed(t, options), "it ended before it was ready")
	options.Args = []string{"die"}
	require.ErrorAs(t, failed(t, options), &exit)
	require.Equal(t, -1, exit.Code)
	require.Equal(t, "killed", exit.Signal)
	require.ErrorContains(t, exit, "ended by signal: killed")
}

func TestComponent_ThatCompletesIsReadyWhenItsProcessHasEndedWell(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	schema := filepath.Join(folder, "schema")
	db := script(t, "db", "say:ready", "wait")
	db.Ready.Line = regexp.MustCompile("ready")
	migration := script(t, "migration", "pause:100ms", "make:"+schema)
	migration.Component.Completes = true
	migration.Component.Needs = startup.Capabilities("db")
	app := script(t, "app", "needs:"+schema, "say:ready", "wait")
	app.Ready.Line = regexp.MustCompile("ready")
	app.Component.Needs = startup.Capabilities("migration")
	o := started(t, db, migration, app)
	state, _ := o.State("migration")
	require.Equal(t, startup.Completed, state)
	require.Equal(t, []string{"db", "migration", "app"}, o.Report().Chain)
	require.NoError(t, o.Stop(t.Context()))

	migration.Args = []string{"complain:column exists", "exit:1"}
	err := failed(t, db, migration, app)
	require.ErrorContains(t, err, `"migration"`)
	require.ErrorContains(t, err, "column exists")
}

func TestComponent_ThatCompletesTriesAgainByItsPolicy(t *testing.T) {
	t.Parallel()
	marker := filepath.Join(t.TempDir(), "marker")
	migration := script(t, "migration", "needs:"+marker)
	migration.Component.Completes = true
	migration.Component.Restart = startup.Restart{Mode: startup.OnFailure, MaxRestarts: 50, FirstDelay: time.Millisecond, MaxDelay: 20 * time.Millisecond}
	logs := watched(&migration)
	o := orchestrate(t, startup.Options{}, migration)
	done := make(chan error, 1)
	go func() { _, err := o.Start(t.Context()); done <- err }()
	eventually(t, func() bool { return logs.FilterMessage("process ended").Len() > 1 }, "it is tried again")
	require.NoError(t, os.WriteFile(marker, nil, 0o600))
	require.NoError(t, <-done)
}

func TestStop_SignalsTheGroupAndKillsWhatDoesNotEndInTime(t *testing.T) {
	t.Parallel()
	const deafShell = "fork:trap '' TERM; echo deaf; exec sleep 1000"
	for name, test := range map[string]struct {
		steps  []string
		signal os.Signal
		leader bool
		grace  time.Duration
		killed bool
	}{
		"a process that heeds the signal":         {steps: []string{"wait"}},
		"another signal":                          {steps: []string{"wait"}, signal: syscall.SIGINT},
		"a signal to the process only":            {steps: []string{"wait"}, leader: true},
		"a process that does not":                 {steps: []string{"deaf", "hang"}, grace: 300 * time.Millisecond, killed: true},
		"a process that leaves a deaf one behind": {steps: []string{deafShell, "wait"}, grace: 800 * time.Millisecond, killed: true},
		"a group that heeds the signal":           {steps: []string{"fork:sleep 1000", "fork:sleep 2000", "wait"}},
		"a group of which the process is told":    {steps: []string{"fork:sleep 1000", "wait"}, leader: true, grace: 300 * time.Millisecond, killed: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := script(t, "server", slices.Insert(slices.Clone(test.steps), len(test.steps)-1, "say:ready")...)
			options.Ready.Line = regexp.MustCompile("ready")
			if slices.Contains(test.steps, deafShell) {
				options.Ready.Line = regexp.MustCompile("deaf")
			}
			options.Signal, options.SignalLeader, options.Grace = test.signal, test.leader, test.grace
			logs := watched(&options)
			o := started(t, options)
			pid := pidOf(t, o, "server")
			began := time.Now()
			require.NoError(t, o.Stop(t.Context()))
			requireGone(t, pid)
			require.Equal(t, test.killed, logs.FilterMessage("process is killed: it has not ended in time").Len() == 1, logs.All())
			if test.killed {
				require.GreaterOrEqual(t, time.Since(began), test.grace)
			}
		})
	}
}

func TestStop_WhatItLeavesBehindHasTheGraceToo(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "saved")
	options := script(t, "server", "fork:trap 'sleep 0.2; echo > "+file+"; exit' TERM; echo ready; while :; do sleep 0.01; done", "pause:100ms", "wait")
	options.Ready.Up = 500 * time.Millisecond
	o := started(t, options)
	pid := pidOf(t, o, "server")
	require.NoError(t, o.Stop(t.Context()))
	require.FileExists(t, file)
	requireGone(t, pid)
}

func TestStop_ASuspendedProcessEndsToo(t *testing.T) {
	t.Parallel()
	options := script(t, "server", "say:ready", "wait")
	options.Ready.Line = regexp.MustCompile("ready")
	logs := watched(&options)
	o := started(t, options)
	require.NoError(t, syscall.Kill(pidOf(t, o, "server"), syscall.SIGSTOP))
	require.NoError(t, o.Stop(t.Context()))
	require.Zero(t, logs.FilterMessage("process is killed: it has not ended in time").Len())
}

func TestRestart_EachLifeHasANumberAndNothingOfTheLastOneIsLeft(t *testing.T) {
	t.Parallel()
	address := freePort(t)
	options := script(t, "server", "fork:trap '' TERM; exec sleep 1000", "serve:"+address, "pause:100ms", "say:crash", "exit:7")
	options.Ready.Port = address
	options.Component.Restart = startup.Restart{Mode: startup.OnFailure, MaxRestarts: 3, Decay: time.Hour, FirstDelay: time.Millisecond}
	logs := watched(&options)
	o := started(t, options)
	<-o.Failed()
	var exit *process.ExitError
	require.ErrorAs(t, o.Report().Err, &exit)
	require.Equal(t, 7, exit.Code)
	require.Equal(t, 4, exit.Life)
	require.Equal(t, []string{"crash"}, exit.Lines)
	require.Contains(t, o.Report().Components[0].Detail, "life 4")
	require.NoError(t, o.Stop(t.Context()))
	require.Equal(t, 4, logs.FilterMessage("crash").Len())
	for life := 1; life <= 4; life++ {
		started := logs.FilterMessage("process started").All()[life-1].ContextMap()
		require.EqualValues(t, life, started["life"])
		require.Equal(t, "server", started["component"])
		pid := int(started["pid"].(int64))
		requireGone(t, pid)
	}
}

func TestComponent_OfTwoOrchestratorsRunsOnce(t *testing.T) {
	t.Parallel()
	c := made(t, script(t, "a", "wait"))
	first, err := registry.NewOrchestrator(nil, startup.Options{}, c)
	require.NoError(t, err)
	second, err := registry.NewOrchestrator(nil, startup.Options{}, c)
	require.NoError(t, err)
	_, err = first.Start(t.Context())
	require.NoError(t, err)
	_, err = second.Start(t.Context())
	require.ErrorIs(t, err, registry.ErrConflict)
	require.NoError(t, first.Stop(t.Context()))
}

func TestNotify_StatusIsInTheReport(t *testing.T) {
	t.Parallel()
	options := script(t, "server", "notify:STATUS=loading,X=", "notify:READY=0", "notify:READY=1,STATUS=serving 3 tools", "wait")
	options.Ready.Notify = true
	o := started(t, options)
	eventually(t, func() bool { return strings.HasSuffix(o.Report().Components[0].Detail, ": serving 3 tools") }, "status")
	require.Regexp(t, `^process \d+: serving 3 tools$`, o.Report().Components[0].Detail)
}

// A socket of this program is that of its own service manager.
func TestComponent_DoesNotPassItsOwnNotificationSocketOn(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/of/this/program")
	options := script(t, "a", "env:NOTIFY_SOCKET", "wait")
	options.Ready.Line = regexp.MustCompile("^NOTIFY_SOCKET is  false$")
	started(t, options)
}

func TestComponent_HasTheEnvironmentDirectoryAndInputThatWereAskedFor(t *testing.T) {
	t.Parallel()
	folder, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	var out text
	options := script(t, "a", "env:GREETING", "env:HOME", "dir", "input", "say:done", "wait")
	options.Env, options.OnlyEnv, options.Dir, options.Stdout = append(options.Env, "GREETING=hello"), true, folder, &out
	options.Ready.Line = regexp.MustCompile("done")
	started(t, options)
	require.Equal(t, "GREETING is hello true\nHOME is  false\ndir is "+folder+"\ninput is 0\ndone\n", out.String())
	options.OnlyEnv = false
	var more text
	options.Stdout = &more
	started(t, options)
	require.Contains(t, more.String(), "HOME is "+os.Getenv("HOME"))
}
