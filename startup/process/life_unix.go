//go:build unix

package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/startup"
)

// life is one run of a process, from its start until nothing of its group is left.
type life struct {
	program *program
	number  int
	output  *output
	notices *notifySocket // nil without
	talk    *talk         // nil without
	file    readyFile

	// The start sets these; they are not changed afterwards.
	run     *startup.Run
	process *exec.Cmd
	pid     int
	began   time.Time

	// These are set before gone is closed.
	err  error // why it has ended by itself, if that is a failure
	left error // what could not be ended

	gone chan struct{} // closed when nothing is left

	// mu guards the fields below, and the number of the group: it is signalled only while a process has it. Nothing
	// else is locked, and no code of users runs, while it is held.
	mu       sync.Mutex
	empty    bool          // nothing of the group is left
	failure  error         // for which it was killed, if that was by itself
	stopping bool          // it was asked to end
	killed   bool          // all of the group is to be killed
	killing  chan struct{} // closed when it is
	noLine   bool          // the line that makes it ready is missing
	noNotice bool          // the notice that makes it ready is missing
}

func newLife(p *program, number int) *life {
	return &life{
		program: p, number: number, gone: make(chan struct{}), killing: make(chan struct{}),
		noLine: p.Ready.Line != nil, noNotice: p.Ready.Notify,
	}
}

func (l *life) isGone() bool {
	select {
	case <-l.gone:
		return true
	default:
		return false
	}
}

// start starts the process.
func (l *life) start(run *startup.Run) error {
	l.run = run
	started := make(chan error, 1)
	go l.serve(started)
	return <-started
}

// serve starts the process and waits for its end. It keeps its thread to itself, since the kernel kills the process when
// the thread ends that has started it.
func (l *life) serve(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(l.gone)
	if err := l.launch(); err != nil {
		started <- err
		return
	}
	started <- nil
	_ = l.process.Wait() // the state has more
	l.talk.processEnded()
	took := time.Since(l.began)
	l.left = l.clear()
	theGuard.drop(l.pid)
	if l.talk != nil && !l.talk.finish() {
		l.left = errors.Join(l.left, fault.Wrap(fmt.Sprintf("Talk of process %d does not return: ", l.pid), registry.ErrStuck))
	}
	if !l.output.finish() {
		l.left = errors.Join(l.left, fault.Wrap(fmt.Sprintf("a writer or the logger of process %d does not return: ", l.pid), registry.ErrStuck))
	}
	if l.notices != nil {
		l.notices.close(true)
	}
	l.err = l.outcome(took)
	l.log("process ended", zap.String("status", l.process.ProcessState.String()), zap.Duration("took", took))
}

// launch starts the process. On an error nothing is left.
func (l *life) launch() (err error) {
	p := l.program
	as, err := identityOf(p.User)
	if err != nil {
		return err
	}
	command, err := p.commandFor(as)
	if err != nil {
		return err
	}
	if p.Ready.Notify {
		if l.notices, err = newNotifySocket(as); err != nil {
			return fault.Wrap("socket of notifications: ", err)
		}
		command.Env = append(command.Env, "NOTIFY_SOCKET="+l.notices.path())
	}
	l.output = newOutput(p.Lines, p.Logger)
	if p.Ready.Line != nil {
		l.output.line, l.output.matched = p.Ready.Line, func() { l.sign(&l.noLine) }
	}
	l.file = newReadyFile(p.Ready.File)
	l.process, l.began = command, time.Now()
	if err := l.execute(); err != nil {
		if l.notices != nil {
			l.notices.close(false)
		}
		return err
	}
	l.pid = command.Process.Pid
	if p.Logger != nil {
		name := filepath.Base(p.Command)
		_ = fault.Run(func() error {
			l.output.logger = p.Logger.With(zap.String("component", p.Component.Name), zap.String("command", name), zap.Int("pid", l.pid), zap.Int("life", l.number))
			return nil
		})
	}
	theGuard.add(l.pid)
	l.log("process started") // before its first line
	l.output.read()
	l.run.Detail(l.title())
	if l.talk != nil {
		l.talk.begin(l.run, l.program.Talk, l.pid, l.number, l.fail)
	}
	if l.notices != nil {
		l.notices.receive(func() { l.sign(&l.noNotice) }, func(text string) { l.run.Detail(l.title() + ": " + text) })
	}
	return nil
}

// execute starts the process with pipes for its streams. On an error nothing is left of them.
func (l *life) execute() (err error) {
	var ofProcess []*os.File // the ends that it gets
	defer func() {
		for _, file := range ofProcess {
			_ = file.Close()
		}
		if err != nil {
			l.output.close()
			l.talk.close()
		}
	}()
	if l.program.Talk != nil {
		var in, out *os.File
		if l.talk, in, out, err = newTalk(); err != nil {
			return fault.Wrap("streams: ", err)
		}
		ofProcess = append(ofProcess, in, out)
		l.process.Stdin, l.process.Stdout = in, out
	} else {
		stdout, err := l.output.attach("stdout", l.program.Stdout)
		if err != nil {
			return fault.Wrap("output: ", err)
		}
		ofProcess = append(ofProcess, stdout)
		l.process.Stdout = stdout
	}
	stderr, err := l.output.attach("stderr", l.program.Stderr)
	if err != nil {
		return fault.Wrap("output: ", err)
	}
	ofProcess = append(ofProcess, stderr)
	l.process.Stderr = stderr
	if err := l.process.Start(); err != nil {
		return explain(l.program.Command, l.process.Path, err)
	}
	return nil
}

// title names the process in reports.
func (l *life) title() string {
	if l.number == 1 {
		return fmt.Sprintf("process %d", l.pid)
	}
	return fmt.Sprintf("process %d, life %d", l.pid, l.number)
}

func (l *life) log(text string, fields ...zap.Field) { l.output.log(text, fields...) }

// sign notes a sign of readiness that was missing; the last one makes the process ready.
func (l *life) sign(missing *bool) {
	l.mu.Lock()
	ready := *missing
	*missing = false
	ready = ready && !l.noLine && !l.noNotice
	l.mu.Unlock()
	if ready {
		l.run.Ready()
	}
}

// askToEnd asks the process, or all of its group, to end. What is suspended goes on, so that it can.
func (l *life) askToEnd(signal syscall.Signal, leaderOnly bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopping = true
	for _, each := range []syscall.Signal{signal, syscall.SIGCONT} {
		switch {
		case l.empty:
		case leaderOnly:
			_ = l.process.Process.Signal(each)
		default:
			_ = syscall.Kill(-l.pid, each)
		}
	}
}

// fail kills the group for a failure that is not the end of its process.
func (l *life) fail(why error) {
	l.mu.Lock()
	if l.stopping || l.empty {
		l.mu.Unlock()
		return
	}
	l.failure = why
	l.mu.Unlock()
	l.kill()
}

// kill kills all of the group.
func (l *life) kill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.killed {
		return
	}
	l.killed = true
	close(l.killing)
	if !l.empty {
		_ = syscall.Kill(-l.pid, syscall.SIGKILL)
	}
}

// The pauses between two looks at what is left of a group.
const (
	firstPause = time.Millisecond
	longPause  = 50 * time.Millisecond
)

// clear waits until nothing of the group is left, after the end of the process. What is left when the process ended by itself
// is killed; in a stop it has until the end of the grace.
func (l *life) clear() error {
	var since time.Time // of the first SIGKILL
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		killing := l.killing
		if l.isEmpty(pause == longPause) {
			return nil
		}
		if l.toBeKilled() {
			killing = nil
			switch {
			case since.IsZero():
				since = time.Now()
			case time.Since(since) > killTime:
				processes, _ := alive(l.pid)
				return fault.Wrap(fmt.Sprintf("group %d does not end although it was killed %v: ", l.pid, processes), registry.ErrStuck)
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-killing:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (l *life) toBeKilled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.killed || !l.stopping
}

// isEmpty reports whether nothing of the group is left, and kills what is to be killed. Whether what is left has only not
// been waited for is a question that takes time, and seldom has to be asked.
func (l *life) isEmpty(zombiesToo bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for reaped := 1; reaped > 0; { // where this program gets the processes that others have left
		reaped, _ = syscall.Wait4(-l.pid, nil, syscall.WNOHANG, nil)
	}
	signal := syscall.Signal(0)
	if l.killed || !l.stopping {
		signal = syscall.SIGKILL
	}
	l.empty = errors.Is(syscall.Kill(-l.pid, signal), syscall.ESRCH)
	if !l.empty && zombiesToo {
		processes, known := alive(l.pid)
		l.empty = known && len(processes) == 0
	}
	return l.empty
}

// outcome returns why the process has ended by itself, if that is a failure.
func (l *life) outcome(took time.Duration) error {
	l.mu.Lock()
	stopping, failure := l.stopping, l.failure
	l.mu.Unlock()
	state := l.process.ProcessState
	switch {
	case stopping:
		return nil
	case failure != nil:
		name := filepath.Base(l.program.Command)
		return fault.Join(fmt.Sprintf("process %d (%s, life %d) was killed: ", l.pid, name, l.number), append([]error{failure}, fault.List(l.left)...))
	case state.Success():
		return l.left
	}
	exit := &ExitError{
		Command: filepath.Base(l.program.Command), PID: l.pid, Life: l.number, Code: state.ExitCode(), Took: took, Lines: l.output.lines(),
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		exit.Signal = status.Signal().String()
	}
	if l.left != nil {
		return errors.Join(exit, l.left)
	}
	return exit
}
