package hosts

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Soon bounds waits for what has to come. It is generous, as machines are slow.
const Soon = 2 * time.Minute

// Process is a process on a host. Use [Host.Start] to create one. Its methods are safe for concurrent use.
type Process struct {
	tb  testing.TB
	cmd *exec.Cmd
	out chan struct{} // closed when its output has ended

	mu      sync.Mutex // guards what follows
	in      io.WriteCloser
	asked   int
	answers map[int]chan json.RawMessage
}

// question is a line that a process reads, and answer one that it writes.
type (
	question struct {
		ID      int    `json:"id"`
		Command string `json:"command"`
		Of      string `json:"of,omitempty"`
	}
	answer struct {
		ID     int             `json:"id"`
		Answer json.RawMessage `json:"answer"`
	}
)

// Start starts this program on the host, with a variable of the environment, and ends it with the test as kill −9 does. Its standard input
// stays open until then.
func (h *Host) Start(variable, value string) *Process {
	tb := h.network.tb
	tb.Helper()
	executable, err := os.Executable()
	require.NoError(tb, err)
	p := &Process{tb: tb, out: make(chan struct{}), answers: map[int]chan json.RawMessage{}}
	p.cmd = exec.CommandContext(context.Background(), "ip", "netns", "exec", h.name, executable)
	p.cmd.Env = append(os.Environ(), variable+"="+value, "GOMAXPROCS=2")
	p.cmd.Stderr = os.Stderr
	p.in, err = p.cmd.StdinPipe()
	require.NoError(tb, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(tb, err)
	require.NoError(tb, p.cmd.Start())
	go p.read(out)
	tb.Cleanup(p.kill)
	return p
}

func (p *Process) read(out io.Reader) {
	defer close(p.out)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var a answer
		if json.Unmarshal(lines.Bytes(), &a) != nil {
			continue // it is of another program's kind
		}
		p.mu.Lock()
		to := p.answers[a.ID]
		delete(p.answers, a.ID)
		p.mu.Unlock()
		if to != nil {
			to <- a.Answer
		}
	}
}

func (p *Process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.out
	_ = p.cmd.Wait() // that it was killed
}

// ask asks the process, and reads its answer.
func (p *Process) ask(command, of string, into any) {
	p.tb.Helper()
	p.mu.Lock()
	p.asked++
	q := question{p.asked, command, of}
	to := make(chan json.RawMessage, 1)
	p.answers[q.ID] = to
	text, err := json.Marshal(q)
	if err == nil {
		_, err = p.in.Write(append(text, '\n'))
	}
	p.mu.Unlock()
	require.NoError(p.tb, err)
	late := time.NewTimer(Soon)
	defer late.Stop()
	select {
	case text := <-to:
		require.NoError(p.tb, json.Unmarshal(text, into))
	case <-p.out:
		require.Fail(p.tb, "the process has ended")
	case <-late.C:
		require.Fail(p.tb, "the process does not answer", command)
	}
}
