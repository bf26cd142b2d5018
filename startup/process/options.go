package process

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/probes"
)

// Options configure [Component]. Only the Component's Name and Command have to be set. They are copied.
type Options struct {
	// Component has what is not about the process: the name, the needs, what it provides and registers, its timeouts and
	// its restart policy. With Completes, what needs it waits for the end of the process with status 0, within
	// StartTimeout. A Ready of its own is asked after those of [Options.Ready]. Start, Stop and Notifies are the
	// package's. Kind is "process" by default, and StopTimeout Grace and 15 s more, so that the stop says what does not end although it was killed.
	Component registry.Component

	// Command is the program: a path, or a name that is searched for in PATH at each start. Args are its
	// arguments. Neither arguments nor environment appear in errors and logs, since they may hold secrets.
	Command string
	Args    []string
	// Env has entries key=value, which are added to the environment of this program, or replace what is there.
	// OnlyEnv gives the process nothing else.
	Env     []string
	OnlyEnv bool
	// Dir is the working directory. Default: that of this program.
	Dir string
	// User runs the process as another user, which only root may do: "name" or "name:group", or numbers. It gets the
	// groups of that user, and HOME, USER and LOGNAME where Env does not have them. Default: the user of this
	// program.
	User string

	// Ready says when the process is ready. Default: at once.
	Ready Ready

	// Signal asks the process to end. It goes to the whole group, or with SignalLeader only to the process
	// itself. Default: SIGTERM.
	Signal       os.Signal
	SignalLeader bool
	// Grace bounds the time of the group to end after the signal, before it gets SIGKILL; at most the Component's
	// StopTimeout. Default: 5 s.
	Grace time.Duration

	// Logger gets the output line by line, and the start and the end of each life, all as information. Default: none.
	Logger *zap.Logger
	// Stdout and Stderr get the output as it is, instead of the logger. Each is called by one goroutine at a time,
	// which are different ones for the two. One that blocks makes the process wait; one that fails gets no more of that
	// life. Default: the logger.
	Stdout, Stderr io.Writer
	// Talk speaks with the process through its standard input and output, such as in a protocol of requests and answers.
	// It is called once for each life, in a goroutine of its own, when the process has started. ctx ends when the
	// component stops and when the process has ended; Talk has to return then, and what it reads and writes ends by
	// itself. When it returns earlier, the process gets the end of its input, and its output is dropped; with an error or a
	// panic, the group is killed and the component fails with that error, or restarts by its policy. Default: the process
	// has no input.
	Talk func(ctx context.Context, with Streams) error
	// Lines is the number of lines in [ExitError.Lines], the last ones of the output; at most 1000. Default: 20.
	Lines int
}

// Streams are the standard input and output of one life of a process. They are closed after [Options.Talk] has returned.
// Each of the two may be used by one goroutine at a time, and closed by any.
type Streams struct {
	// In is the input of the process, which ends when it is closed. A Write blocks while the process reads nothing
	// and the pipe is full, until In is closed.
	In io.WriteCloser
	// Out has the output of the process. A Read blocks until there is some, until what may write has ended, and until Out is
	// closed.
	Out io.ReadCloser
	// PID is the number of the process, and Life that of its life, from 1 on.
	PID, Life int
}

// Ready says when a process is ready: when everything holds that is set.
type Ready struct {
	// Port is an address host:port that accepts connections. Before the process starts it must not: another program
	// would be taken for this one.
	Port string
	// HTTP is a URL of the process that answers as [probes.HTTP] wants it, with HTTPOptions. Its port must be free before,
	// too.
	HTTP        string
	HTTPOptions probes.HTTPOptions
	// Line matches a line of output, of either stream; with [Options.Talk], of the standard error.
	Line *regexp.Regexp
	// Notify waits for READY=1 at the datagram socket that the variable NOTIFY_SOCKET names, as systemd does. A
	// STATUS goes into the report.
	Notify bool
	// File is a path that exists, and was made or changed since the start, such as that of a socket or a PID file. It is
	// relative to Dir.
	File string
	// Up is a time for which the process has to have run: for programs that tell nothing, and fail early if at all.
	Up time.Duration
}

// isZero reports whether nothing is set.
func (r *Ready) isZero() bool {
	return r.Port == "" && r.HTTP == "" && r.Line == nil && !r.Notify && r.File == "" && r.Up == 0
}

const (
	longestArgument = 128 << 10 // what Linux takes
	mostArguments   = 1 << 16
	longestTime     = 24 * time.Hour
	stopReserve     = 15 * time.Second // of a stop, after the grace: what was killed has ten, the code of users the rest
)

// program is a checked [Options] with what its probes need.
type program struct {
	Options

	awaited []health.Probe // of its ready port and URL
	taken   []string       // addresses that must be free before the process starts
}

// newProgram returns the options as they are used, or the first field that is out of bounds.
func newProgram(o Options) (*program, error) {
	p := &program{Options: o}
	p.Args, p.Env = slices.Clone(o.Args), slices.Clone(o.Env)
	if v := cmp.Or(p.checkCommand(), p.checkComponent(), p.checkTimes(), p.checkReady()); v != nil {
		return nil, &registry.FieldError{Field: "Options." + v.Field, Value: v.Value, Bound: v.Bound, Err: registry.ErrInvalid}
	}
	return p, nil
}

func (p *program) checkCommand() *check.Violation {
	if p.Command == "" || strings.ContainsRune(p.Command, 0) {
		return check.Refuse("Command", p.Command, "the path or name of a program")
	}
	if len(p.Args) > mostArguments || len(p.Env) > mostArguments {
		return check.Refuse("Args", check.Raw(fmt.Sprintf("%d and %d in Env", len(p.Args), len(p.Env))), fmt.Sprintf("at most %d", mostArguments))
	}
	if strings.ContainsRune(p.Dir, 0) {
		return check.Refuse("Dir", p.Dir, "a path")
	}
	if user, group, found := strings.Cut(p.User, ":"); p.User != "" && (user == "" || found && group == "") {
		return check.Refuse("User", p.User, "name or name:group")
	}
	return p.checkTexts()
}

// checkTexts checks arguments and environment, which may hold secrets.
func (p *program) checkTexts() *check.Violation {
	for i, arg := range p.Args {
		if strings.ContainsRune(arg, 0) || len(arg) >= longestArgument {
			return check.Refuse(check.Item("Args", i), check.Raw(fmt.Sprintf("of %d bytes", len(arg))), "text without a zero byte, shorter than 128 KiB")
		}
	}
	for i, entry := range p.Env {
		key, _, found := strings.Cut(entry, "=")
		if !found || key == "" || strings.ContainsRune(entry, 0) || len(entry) >= longestArgument {
			return check.Refuse(check.Item("Env", i), check.Raw(fmt.Sprintf("of %d bytes", len(entry))), "key=value without a zero byte, shorter than 128 KiB")
		}
	}
	return nil
}

// checkComponent refuses what the package sets itself.
func (p *program) checkComponent() *check.Violation {
	c := &p.Component
	bound := "nothing: it is the process that starts, is ready and stops"
	switch {
	case c.Start != nil:
		return check.Refuse("Component.Start", check.Raw("set"), bound)
	case c.Stop != nil:
		return check.Refuse("Component.Stop", check.Raw("set"), bound)
	case c.Notifies:
		return check.Refuse("Component.Notifies", true, bound)
	case c.Completes && !p.Ready.isZero():
		return check.Refuse("Ready", check.Raw("set"), "nothing where Component.Completes: the process is ready when it has ended")
	}
	if p.Talk != nil && p.Stdout != nil {
		return check.Refuse("Stdout", check.Raw("set"), "nothing where Talk is: it reads the standard output")
	}
	c.Kind = cmp.Or(c.Kind, "process")
	return nil
}

func (p *program) checkTimes() *check.Violation {
	if v := cmp.Or(
		check.Range[time.Duration]{Default: 5 * time.Second, Max: longestTime - stopReserve}.Fill("Grace", &p.Grace),
		check.Range[int]{Default: 20, Max: 1000}.Fill("Lines", &p.Lines),
		check.Range[time.Duration]{Max: longestTime}.Check("Ready.Up", p.Ready.Up),
	); v != nil {
		return v
	}
	switch timeout := p.Component.StopTimeout; {
	case timeout == 0:
		p.Component.StopTimeout = p.Grace + stopReserve
	case timeout > 0 && p.Grace > timeout:
		return check.Refuse("Grace", p.Grace, fmt.Sprintf("at most Component.StopTimeout (%v)", timeout))
	}
	return nil
}

// patience bounds one probe, so that a server that accepts connections and says nothing is asked again.
const patience = 2 * time.Second

// checkReady makes the probes of the port and the URL.
func (p *program) checkReady() *check.Violation {
	if address := p.Ready.Port; address != "" {
		probe, err := probes.TCP(address, probes.TCPOptions{})
		if err != nil {
			return check.Refuse("Ready.Port", address, "host:port with a port from 1 to 65535")
		}
		p.awaited = append(p.awaited, probes.WithTimeout(probe, patience))
		p.taken = append(p.taken, address)
	}
	if text := p.Ready.HTTP; text != "" {
		probe, err := probes.HTTP(text, p.Ready.HTTPOptions)
		if err != nil {
			return check.Refuse("Ready.HTTP", check.Raw("refused"), fault.Text(err))
		}
		p.awaited = append(p.awaited, probes.WithTimeout(probe, patience))
		if address := hostOf(text); !slices.Contains(p.taken, address) {
			p.taken = append(p.taken, address)
		}
	}
	if p.Ready.File != "" && !filepath.IsAbs(p.Ready.File) {
		p.Ready.File = filepath.Join(p.Dir, p.Ready.File)
	}
	return nil
}

// hostOf returns the address of a URL that a probe has accepted.
func hostOf(text string) string {
	parsed, err := url.Parse(text)
	if err != nil {
		return ""
	}
	port := cmp.Or(parsed.Port(), map[string]string{"https": "443"}[parsed.Scheme], "80")
	return net.JoinHostPort(parsed.Hostname(), port)
}
