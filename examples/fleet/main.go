// Command fleet is a control plane with three agents, each a process of its own, over a server of NATS that it brings along.
//
//	go run ./examples/fleet
//
// Tasks wait in a work queue of JetStream. The control plane gives each to an agent that can do it: a provider of a registry like
// any other, found by its capability, wherever its process is. While it works an agent is killed and replaced, and the server is
// restarted. Its last line is "tasks 2000 done 2000 lost 0 twice 0".
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/capreg/registry"
)

// Task says one thing for an agent to do.
type Task struct {
	ID         string `json:"id"`
	Capability string `json:"capability"`
}

// Result says which agent has done a task.
type Result struct {
	ID    string `json:"id"`
	Agent string `json:"agent"`
}

// Agent does tasks.
type Agent interface {
	Do(ctx context.Context, task Task) (Result, error)
}

// Agents is the service of the agents.
var Agents = registry.NewService[Agent]("agent")

// skills are the capabilities of the agents by their names.
var skills = map[string][]string{ //nolint:gochecknoglobals // immutable data
	"red": {"build", "test"}, "green": {"test", "deploy"}, "blue": {"build", "deploy"},
}

const leaseTTL = time.Second

func main() {
	agent := flag.String("agent", "", "be an `agent` of that name; the control plane starts them so")
	node := flag.String("node", "", "the `node` that the agent is")
	url := flag.String("url", "", "the `URL` of the server that the agent uses")
	tasks := flag.Int("tasks", 2000, "the `number` of tasks")
	flag.Parse()
	var err error
	if *agent != "" {
		err = runAgent(context.Background(), *agent, *node, *url, os.Stdin)
	} else {
		var executable string
		if executable, err = os.Executable(); err == nil {
			err = run(context.Background(), executable, *tasks, os.Stdout)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

// process is the process of an agent.
type process struct {
	*exec.Cmd

	stdin io.Closer
}

// startAgent starts an agent in a process of its own, which ends when its standard input does.
func startAgent(ctx context.Context, executable, name, node, url string) (*process, error) {
	cmd := exec.CommandContext(ctx, executable, "-agent", name, "-node", node, "-url", url) //nolint:gosec // it is this program
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	return &process{cmd, stdin}, cmd.Start()
}

// stop lets the agent leave, and waits for it.
func (p *process) stop() error { return errors.Join(p.stdin.Close(), p.Wait()) }

// kill ends the agent as kill −9 does.
func (p *process) kill() {
	_ = p.Process.Kill() // it may have ended
	_ = p.Wait()         // that it was killed
	_ = p.stdin.Close()
}

// startServer starts a server of NATS; port -1 is any.
func startServer(dir string, port int) (*server.Server, error) {
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true,
	})
	if err != nil {
		return nil, err
	}
	s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		s.Shutdown()
		return nil, errors.New("the server of NATS does not start")
	}
	return s, nil
}

// percentile returns the value below which that share of the values is.
func percentile(values []time.Duration, share float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[min(int(share*float64(len(values))), len(values)-1)].Round(10 * time.Microsecond)
}
