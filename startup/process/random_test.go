//go:build unix

package process_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
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

// A run starts a graph of processes, lets something go wrong with it, and stops it. Nothing may be left.
type trial struct {
	random *rand.Rand
	mark   string // in the environment of every process of the run, with its seed
	logs   *observer.ObservedLogs
	logger *zap.Logger
}

// markOfRun is the variable with the mark.
const markOfRun = "PROCESS_TEST_RUN"

func newTrial(kind string, seed uint64) *trial {
	core, logs := observer.New(zapcore.InfoLevel)
	return &trial{
		random: rand.New(rand.NewPCG(seed, 7)), mark: fmt.Sprintf("%s=%s-%d-%d", markOfRun, kind, os.Getpid(), seed), logs: logs, logger: zap.New(core),
	}
}

// play returns what is wrong.
func (r *trial) play(all []process.Options) error {
	components := make([]registry.Component, len(all))
	for i := range all {
		all[i].Env, all[i].Logger = append(all[i].Env, r.mark), r.logger
		var err error
		if components[i], err = process.Component(all[i]); err != nil {
			return err
		}
	}
	o, err := registry.NewOrchestrator(nil, startup.Options{OnFailure: startup.Policy(r.random.IntN(3))}, components...)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if r.random.IntN(5) == 0 {
		time.AfterFunc(time.Duration(r.random.IntN(300))*time.Millisecond, cancel)
	}
	if _, err := o.Start(ctx); err == nil {
		for range r.random.IntN(3) {
			r.harm(o)
		}
	}
	if err := stopped(o); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	return r.nothingIsLeft()
}

// stopped stops everything. What a busy machine has not started within its time is told to be stuck, until it is started.
func stopped(o *registry.Orchestrator) error {
	for deadline := time.Now().Add(time.Minute); ; <-time.After(10 * time.Millisecond) {
		err := o.Stop(context.Background())
		if !errors.Is(err, registry.ErrStuck) || time.Now().After(deadline) {
			return err
		}
	}
}

// groups returns the groups that the run had.
func (r *trial) groups() (groups []int) {
	for _, entry := range r.logs.FilterMessage("process started").All() {
		groups = append(groups, int(entry.ContextMap()["pid"].(int64)))
	}
	return groups
}

// harm lets something happen to the processes.
func (r *trial) harm(o *registry.Orchestrator) {
	groups := r.groups()
	if len(groups) == 0 { // of programs that a start can do without, none may have started
		return
	}
	group := groups[r.random.IntN(len(groups))]
	switch r.random.IntN(6) {
	case 0:
		_ = syscall.Kill(group, syscall.SIGKILL)
	case 1:
		_ = syscall.Kill(-group, syscall.SIGKILL)
	case 2:
		_ = syscall.Kill(group, syscall.SIGSTOP)
	case 3:
		_ = syscall.Kill(group, syscall.SIGTERM)
	case 4:
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.random.IntN(300))*time.Millisecond)
		defer cancel()
		components := o.Report().Components
		_ = o.Restart(ctx, components[r.random.IntN(len(components))].Name)
	}
	<-time.After(time.Duration(r.random.IntN(100)) * time.Millisecond)
}

// nothingIsLeft returns what is left of the groups. Some systems show what has ended for a moment.
func (r *trial) nothingIsLeft() error { return nothingLeft(r.groups(), "") }

func nothingLeft(groups []int, mark string) error {
	left := leftOf(groups, mark)
	for deadline := time.Now().Add(10 * time.Second); len(left) > 0 && time.Now().Before(deadline); left = leftOf(groups, mark) {
		<-time.After(10 * time.Millisecond)
	}
	if len(left) > 0 {
		return fmt.Errorf("%v are left", left)
	}
	return nil
}

// shellServer returns a server of a few lines of shell, which something is the matter with at times.
func (r *trial) shellServer(name string, needs ...string) process.Options {
	body := "echo ready; sleep 1000 & wait"
	switch r.random.IntN(10) {
	case 0:
		body = "trap '' TERM; sleep 1000 & echo ready; exec sleep 1001"
	case 1:
		body = "sleep 1000 & sleep 1001 & echo ready; sleep 0.1; exit 3"
	case 2:
		body = "echo broken >&2; exit 1"
	case 3:
		body = "sleep 1000" // and is never ready
	case 4:
		body = "sleep 0.1; echo ready; exec sleep 1000"
	case 5:
		body = "(trap '' TERM; exec sleep 1000) & echo ready; exit 0"
	}
	o := process.Options{
		Component: registry.Component{
			Name: name, Provides: []string{name}, Needs: startup.Capabilities(needs...), StartTimeout: 400 * time.Millisecond, NonCritical: r.random.IntN(3) == 0,
			Restart: startup.Restart{
				Mode: startup.RestartMode(r.random.IntN(3)), MaxRestarts: 1 + r.random.IntN(3), FirstDelay: time.Millisecond,
				MaxDelay: 50 * time.Millisecond, Dependants: r.random.IntN(2) == 0,
			},
		},
		Command: "/bin/sh", Args: []string{"-c", body}, Grace: time.Duration(1+r.random.IntN(150)) * time.Millisecond,
		SignalLeader: r.random.IntN(5) == 0,
	}
	o.Ready.Line = regexp.MustCompile("ready")
	return o
}

// shellJob returns a job that others wait for.
func (r *trial) shellJob(name string, needs ...string) process.Options {
	o := r.shellServer(name, needs...)
	o.Ready, o.Component.Completes = process.Ready{}, true
	o.Args = []string{"-c", []string{"sleep 0.02", "sleep 1000 & exit 0", "exit 1", "sleep 1000"}[max(0, r.random.IntN(12)-8)]}
	return o
}

// graphOf returns the graph of a run. In some, one of them is this program.
func graphOf(r *trial, program string) []process.Options {
	graph := []process.Options{
		r.shellServer("db"), r.shellJob("migration", "db"), r.shellServer("cache", "migration"),
		r.shellServer("web", "migration"), r.shellServer("app", "cache", "web"),
	}
	if r.random.IntN(3) == 0 {
		graph[0].Command, graph[0].Args = program, []string{"fork:sleep 1000", "say:ready", "wait"}
		graph[0].Env = []string{helperMark + "=script"}
	}
	return graph
}

func TestRandom_NothingIsLeftOfAnyRun(t *testing.T) {
	t.Parallel()
	const runs, atOnce = 190, 20
	program, err := os.Executable()
	require.NoError(t, err)
	seeds, wrong := make(chan uint64), make(chan error, runs)
	var players sync.WaitGroup
	for range atOnce {
		players.Go(func() {
			for seed := range seeds {
				r := newTrial("shells", seed)
				graph := graphOf(r, program)
				if err := r.play(graph); err != nil {
					wrong <- fmt.Errorf("seed %d: %w", seed, err)
				}
			}
		})
	}
	for seed := range uint64(runs) {
		seeds <- seed
	}
	close(seeds)
	players.Wait()
	close(wrong)
	for err := range wrong {
		t.Error(err)
	}
	require.NoError(t, nothingLeft(nil, fmt.Sprintf("%s=shells-%d-", markOfRun, os.Getpid())), "what has left its group")
}

func TestRandom_NothingIsLeftOfPostgresRedisAndNginx(t *testing.T) {
	t.Parallel()
	p := installed(t)
	for seed := range uint64(10) {
		r := newTrial("programs", 1000+seed)
		sql := migrate
		if r.random.IntN(4) == 0 {
			sql = "no sql"
		}
		require.NoError(t, r.play(p.graph(t, sql)), "seed %d: %v", seed, r.logs.All())
	}
}
