//go:build unix

package process

import "bytes"

// LinesOf returns the lines that a stream has in some chunks of output, and how many bytes of them were dropped.
func LinesOf(chunks [][]byte) (lines []string) {
	o := newOutput(1<<16, nil)
	s := &stream{output: o, name: "stdout"}
	for _, chunk := range chunks {
		s.take(bytes.Clone(chunk))
	}
	s.endLine()
	return o.lines()
}

// Guard is a guard of its own.
type Guard struct{ guard }

// Add and Drop are those of the guard.
func (g *Guard) Add(group int) { g.add(group) }

// Drop ends the guard of a group.
func (g *Guard) Drop(group int) { g.drop(group) }

// Shell returns the process of the shell; 0 when there is none.
func (g *Guard) Shell() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shell == nil {
		return 0
	}
	return g.shell.cmd.Process.Pid
}

// Abandon ends the pipe as the end of the program would, and waits for the shell.
func (g *Guard) Abandon() {
	g.mu.Lock()
	shell := g.shell
	g.shell = nil
	g.mu.Unlock()
	_ = shell.pipe.Close()
	<-shell.ended
	close(shell.leave)
}
