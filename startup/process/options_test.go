//go:build unix

package process_test

import (
	"context"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/probes"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/startup/process"
)

// noSignal is a signal of another system.
type noSignal struct{}

func (noSignal) String() string { return "none" }
func (noSignal) Signal()        {}

func TestComponent_RefusesWhatIsOutOfBounds(t *testing.T) {
	t.Parallel()
	const ofProcess = "nothing: it is the process that starts, is ready and stops"
	for want, change := range map[string]func(o *process.Options){
		`Options.Command is "": want the path or name of a program`: func(o *process.Options) { o.Command = "" },
		`Options.Command is "a\x00": want the path or`:              func(o *process.Options) { o.Command = "a\x00" },
		`Options.Args[1] is of 2 bytes: want text`:                  func(o *process.Options) { o.Args = []string{"a", "b\x00"} },
		`Options.Args[0] is of 131072 bytes: want text`:             func(o *process.Options) { o.Args = []string{strings.Repeat("a", 1<<17)} },
		`Options.Args is 65537 and 0 in Env: want at most 65536`:    func(o *process.Options) { o.Args = make([]string, 1<<16+1) },
		`Options.Env[0] is of 6 bytes: want key=value`:              func(o *process.Options) { o.Env = []string{"secret"} },
		`Options.Env[0] is of 7 bytes: want key=value`:              func(o *process.Options) { o.Env = []string{"=secret"} },
		`Options.Env[0] is of 4 bytes: want key=value`:              func(o *process.Options) { o.Env = []string{"a=\x00b"} },
		`Options.Dir is "a\x00": want a path`:                       func(o *process.Options) { o.Dir = "a\x00" },
		`Options.User is ":a": want name or name:group`:             func(o *process.Options) { o.User = ":a" },
		`Options.User is "a:": want name or name:group`:             func(o *process.Options) { o.User = "a:" },
		`Options.Component.Start is set: want ` + ofProcess: func(o *process.Options) {
			o.Component.Start = func(context.Context, *startup.Run) error { return nil }
		},
		`Options.Component.Stop is set: want ` + ofProcess:      func(o *process.Options) { o.Component.Stop = func(context.Context) error { return nil } },
		`Options.Component.Notifies is true: want ` + ofProcess: func(o *process.Options) { o.Component.Notifies = true },
		`Options.Ready is set: want nothing where Component.Completes`: func(o *process.Options) {
			o.Component.Completes, o.Ready.Notify = true, true
		},
		`Options.Stdout is set: want nothing where Talk is`: func(o *process.Options) {
			o.Stdout, o.Talk = io.Discard, func(context.Context, process.Streams) error { return nil }
		},
		`Options.Grace is -1ns: want 0 (default 5s) to`:                func(o *process.Options) { o.Grace = -1 },
		`Options.Grace is 5s: want at most Component.StopTimeout (1s)`: func(o *process.Options) { o.Component.StopTimeout = time.Second },
		`Options.Lines is 1001: want 0 (default 20) to 1000`:           func(o *process.Options) { o.Lines = 1001 },
		`Options.Ready.Up is -1ns: want 0 to`:                          func(o *process.Options) { o.Ready.Up = -1 },
		`Options.Ready.Port is "80": want host:port with a port`:       func(o *process.Options) { o.Ready.Port = "80" },
		`Options.Ready.HTTP is refused: want`:                          func(o *process.Options) { o.Ready.HTTP = "ftp://secret@host" },
		`Options.Ready.HTTP is refused: want probes`: func(o *process.Options) {
			o.Ready.HTTP, o.Ready.HTTPOptions = "http://host", probes.HTTPOptions{Method: "PUT"}
		},
		`Options.Signal is none: want a signal of this system`:     func(o *process.Options) { o.Signal = noSignal{} },
		`Options.Signal is signal 0: want a signal of this system`: func(o *process.Options) { o.Signal = syscall.Signal(0) },
	} {
		options := process.Options{Component: registry.Component{Name: "a"}, Command: "a"}
		change(&options)
		_, err := process.Component(options)
		require.ErrorIs(t, err, registry.ErrInvalid)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "secret")
		require.NotContains(t, err.Error(), "\n")
		var field *registry.FieldError
		require.ErrorAs(t, err, &field)
	}
}

func TestComponent_KeepsWhatIsNotAboutTheProcess(t *testing.T) {
	t.Parallel()
	base := registry.Component{Name: "a", Version: "1", Provides: []string{"x"}, NonCritical: true, StartTimeout: time.Minute}
	c := made(t, process.Options{Component: base, Command: "a"})
	require.Equal(t, "process", c.Kind)
	require.Equal(t, 20*time.Second, c.StopTimeout)
	require.Nil(t, c.Ready)
	c.Start, c.Stop, c.Kind, c.StopTimeout = nil, nil, "", 0
	require.Equal(t, base, c)
	c = made(t, process.Options{Component: registry.Component{Kind: "database", StopTimeout: time.Hour}, Command: "a", Grace: time.Minute})
	require.Equal(t, "database", c.Kind)
	require.Equal(t, time.Hour, c.StopTimeout)
}

func TestStart_SaysWhatIsWrongWithTheCommand(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	file := func(name, content string, mode fs.FileMode) string {
		path := filepath.Join(folder, name)
		require.NoError(t, os.WriteFile(path, []byte(content), mode))
		return path
	}
	plain := file("plain", "text", 0o600)
	for name, test := range map[string]struct {
		options process.Options
		is      error
		want    string
	}{
		"missing in PATH": {process.Options{Command: "no-such-program"}, exec.ErrNotFound, `command "no-such-program": executable file not found in $PATH`},
		"missing":         {process.Options{Command: folder + "/none"}, fs.ErrNotExist, `none": no such file or directory`},
		"a directory":     {process.Options{Command: folder}, syscall.EISDIR, `: is a directory`},
		"no permission":   {process.Options{Command: plain}, fs.ErrPermission, `plain": permission denied`},
		"no interpreter": {
			process.Options{Command: file("script", "#!/no/such/interpreter\n", 0o700)},
			fs.ErrNotExist,
			`script": it is there, but not the interpreter that its first line names, or its loader: no such file or directory`,
		},
		"no program":            {process.Options{Command: file("garbage", "\x00\x01garbage", 0o700)}, syscall.ENOEXEC, `garbage": exec format error`},
		"missing directory":     {process.Options{Command: "true", Dir: folder + "/none"}, fs.ErrNotExist, `directory "` + folder + `/none": no such file`},
		"a file as a directory": {process.Options{Command: "true", Dir: plain}, syscall.ENOTDIR, `plain": not a directory`},
		"unknown user":          {process.Options{Command: "true", User: "no-such-user"}, nil, `user "no-such-user": `},
		"unknown group":         {process.Options{Command: "true", User: "root:no-such-group"}, nil, `group "no-such-group": `},
	} {
		test.options.Component.Name = "server"
		test.options.Args, test.options.Env = []string{"secret"}, []string{"TOKEN=secret"}
		err := failed(t, test.options)
		if test.is != nil {
			require.ErrorIs(t, err, test.is, name)
		}
		require.ErrorContains(t, err, test.want, name)
		require.NotContains(t, err.Error(), "secret", name)
		require.NotContains(t, err.Error(), "\n", name)
	}
}

func TestStart_FailsWhereAnotherProgramHasThePort(t *testing.T) {
	t.Parallel()
	listener, err := listen("127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, listener.Close()) }()
	address := listener.Addr().String()
	for _, ready := range []process.Ready{{Port: address}, {HTTP: "http://" + address + "/x"}} {
		options := script(t, "server", "wait")
		options.Ready = ready
		require.ErrorContains(t, failed(t, options), "port "+address+" is in use before the process has started")
	}
	options := script(t, "server", "serve:"+address)
	require.ErrorContains(t, failedLater(t, options), "address already in use")
}

// failedLater returns the error of a component that was ready when its process ended.
func failedLater(t *testing.T, options process.Options) error {
	t.Helper()
	o := orchestrate(t, startup.Options{}, options)
	if _, err := o.Start(t.Context()); err != nil {
		return err
	}
	<-o.Failed()
	require.NoError(t, o.Stop(t.Context()))
	return o.Report().Err
}

func TestUser_RunsTheProcessAsThatUser(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		err := failed(t, process.Options{Component: registry.Component{Name: "a"}, Command: "true", User: "root"})
		require.ErrorIs(t, err, fs.ErrPermission)
		require.ErrorContains(t, err, "only root may start processes of other users")
		return
	}
	for user, want := range map[string]string{
		"nobody": "user is 65534 65534\nUSER is nobody true\n", "nobody:0": "user is 65534 0\nUSER is nobody true\n",
		"1234567": "user is 1234567 1234567\nUSER is 1234567 true\n", "65534:1234": "user is 65534 1234\nUSER is nobody true\n",
	} {
		// The test program is in a folder of its own user: a shell is in one of all.
		var out text
		o := started(t, process.Options{
			Component: registry.Component{Name: "a", Completes: true}, Command: "/bin/sh", Dir: "/", User: user, Stdout: &out,
			Args: []string{"-c", `echo user is $(id -u) $(id -g); echo USER is $USER true`},
		})
		require.Equal(t, want, out.String())
		require.NoError(t, o.Stop(t.Context()))
	}
	// It may use the socket of its notifications, which is of another user than this program.
	options := script(t, "a", "notify:READY=1", "wait")
	options.User, options.Ready.Notify = "root:nogroup", true
	started(t, options)
}
