//go:build unix

package process

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// theGuard guards the groups of all components of this program: one guard costs one process, however many they are.
var theGuard guard //nolint:gochecknoglobals // there is one program to guard

// guard kills process groups when this program has been killed. It is a shell that reads which groups there are from a
// pipe; the end of the pipe without a farewell is the end of this program.
//
// It exists while there are groups. One that is killed itself is started again.
type guard struct {
	// mu guards the fields below. While it is held the pipe may be written to, for up to guardPatience.
	mu     sync.Mutex
	groups map[int]struct{}
	shell  *guardShell // nil without groups, and without a shell in this system
}

// guardShell is one life of the shell.
type guardShell struct {
	pipe  *os.File
	leave chan struct{} // closed when it is no longer wanted
	ended chan struct{} // closed when it has ended and was waited for
	cmd   *exec.Cmd
}

// guardScript keeps the groups in a list. It heeds no signal that a terminal or a service manager sends to all.
const guardScript = `trap '' HUP INT QUIT TERM
groups=
while read -r what group; do
	case $what in
	add) groups="$groups $group" ;;
	drop)
		left=
		for other in $groups; do [ "$other" = "$group" ] || left="$left $other"; done
		groups=$left
		;;
	esac
done
for group in $groups; do kill -KILL "-$group"; done`

const (
	// guardPatience bounds a write to the pipe, which takes thousands of lines without a reader.
	guardPatience = time.Second
	// guardPause is the least age of a shell that was killed and is replaced.
	guardPause = time.Second
)

// add guards a group from now on. Without a shell it does nothing.
func (g *guard) add(group int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.groups == nil {
		g.groups = make(map[int]struct{})
	}
	g.groups[group] = struct{}{}
	if g.shell == nil || !g.shell.tell("add", group) {
		g.renew()
	}
}

// drop ends the guard of a group. The last one takes the shell with it, which it waits for.
func (g *guard) drop(group int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.groups, group)
	switch shell := g.shell; {
	case shell == nil:
	case !shell.tell("drop", group):
		g.renew()
	case len(g.groups) == 0:
		g.shell = nil
		shell.end()
	}
}

// renew replaces the shell by one that knows all groups; mu is held.
func (g *guard) renew() {
	if g.shell != nil {
		g.shell.kill()
		g.shell = nil
	}
	if len(g.groups) == 0 {
		return
	}
	shell, err := startShell()
	if err != nil {
		return // without a shell the kernel is the only guard
	}
	go g.watch(shell, time.Now())
	for group := range g.groups {
		if !shell.tell("add", group) {
			shell.kill()
			return
		}
	}
	g.shell = shell
}

// watch waits for the end of a shell, and replaces one that was killed: not in a loop, where that is what happens to each.
func (g *guard) watch(shell *guardShell, began time.Time) {
	_ = shell.cmd.Wait()
	close(shell.ended)
	if within(shell.leave, guardPause-time.Since(began)) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shell == shell {
		g.renew()
	}
}

func startShell() (*guardShell, error) {
	from, into, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = from.Close() }()
	shell := &guardShell{pipe: into, leave: make(chan struct{}), ended: make(chan struct{})}
	shell.cmd = exec.Command("/bin/sh", "-c", guardScript) //nolint:noctx // it outlives every context
	shell.cmd.Stdin, shell.cmd.Dir, shell.cmd.Env = from, "/", []string{}
	shell.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := shell.cmd.Start(); err != nil {
		_ = into.Close()
		return nil, err
	}
	return shell, nil
}

// tell reports whether the shell can be told something. The pipe alone does not say that the shell has ended: a process that
// is just being started has a copy of its other end.
func (s *guardShell) tell(what string, group int) bool {
	select {
	case <-s.ended:
		return false
	default:
	}
	_ = s.pipe.SetWriteDeadline(time.Now().Add(guardPatience))
	_, err := fmt.Fprintf(s.pipe, "%s %d\n", what, group)
	return err == nil
}

// end lets the shell end, which guards nothing any more, and waits for it.
func (s *guardShell) end() {
	close(s.leave)
	_ = s.pipe.Close()
	if !within(s.ended, guardPatience) {
		_ = s.cmd.Process.Kill() // such as one that is suspended
		<-s.ended
	}
}

// kill kills the shell, which must not take the end of its pipe for that of the program.
func (s *guardShell) kill() {
	close(s.leave)
	_ = s.cmd.Process.Kill()
	_ = s.pipe.Close()
}
