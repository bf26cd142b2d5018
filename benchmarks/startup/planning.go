package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/samber/do/v2"
	"go.uber.org/fx"
	"golang.org/x/sync/errgroup"

	"github.com/capreg/registry"
	"github.com/capreg/registry/startup"
)

// largestForContainers is the largest graph that dependency injection containers
// are given.
const largestForContainers = 1_000

// contender starts a graph, in a way of its own. What it returns undoes that, which
// is not measured.
type contender struct {
	name  string
	start func(context.Context) (stop func(context.Context) error, err error)
}

// result is the median time of one contender, and its memory.
type result struct {
	took  time.Duration
	bytes uint64
}

// roomyHeap is the memory held in addition to the graph, so that no collection falls
// into a start. Without it, ten thousand components are most of the heap
// and a start ends in one.
const roomyHeap = 128 << 20

// race lets the contenders start in turn, each time with a heap that was just
// collected, and that has so many bytes on it.
func race(ctx context.Context, contenders []contender, rounds, held int) ([]result, error) {
	heap := make([]byte, held)
	defer runtime.KeepAlive(heap)
	taken := make([][]time.Duration, len(contenders))
	results := make([]result, len(contenders))
	const warmUps = 3
	for round := range warmUps + rounds {
		for i, c := range contenders {
			took, bytes, err := c.measure(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			if round >= warmUps {
				taken[i], results[i].bytes = append(taken[i], took), bytes
			}
		}
	}
	for i := range results {
		slices.Sort(taken[i])
		results[i].took = taken[i][len(taken[i])/2]
	}
	return results, nil
}

func (c contender) measure(ctx context.Context) (took time.Duration, bytes uint64, err error) {
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	stop, err := c.start(ctx)
	took = time.Since(began)
	if err != nil {
		return 0, 0, err
	}
	runtime.ReadMemStats(&after)
	return took, after.TotalAlloc - before.TotalAlloc, stop(ctx)
}

func nothing(context.Context) error { return nil }

// orchestrated plans, starts and reports.
func orchestrated(g graph) contender {
	components := make([]registry.Component, len(g.names))
	for i := range components {
		components[i] = g.component(i, nothing)
	}
	return contender{"orchestrator", func(ctx context.Context) (func(context.Context) error, error) {
		o, err := registry.NewOrchestrator(nil, startup.Options{}, components...)
		if err != nil {
			return nil, err
		}
		report, err := o.Start(ctx)
		if err == nil && len(report.Components) != len(components) {
			err = fmt.Errorf("a report of %d components", len(report.Components))
		}
		return o.Stop, err
	}}
}

// task is a component of the sort written by hand.
type task struct {
	name  string
	needs []string
	start func(context.Context) error
}

// byHand sorts and starts batch by batch, without anything that makes a start robust:
// the minimal hand-written version.
func byHand(g graph) contender {
	tasks := make([]task, len(g.names))
	for i := range tasks {
		tasks[i] = task{name: g.names[i], start: nothing}
		for _, need := range g.needs[i] {
			tasks[i].needs = append(tasks[i].needs, g.names[need])
		}
	}
	return contender{"by hand, with errgroup", func(ctx context.Context) (func(context.Context) error, error) {
		return nothing, startByHand(ctx, tasks)
	}}
}

func startByHand(ctx context.Context, tasks []task) error {
	index := make(map[string]int, len(tasks))
	for i, t := range tasks {
		if _, taken := index[t.name]; taken {
			return fmt.Errorf("there are two of %q", t.name)
		}
		index[t.name] = i
	}
	pending := make([]int, len(tasks))
	users := make([][]int, len(tasks))
	for i, t := range tasks {
		pending[i] = len(t.needs)
		for _, need := range t.needs {
			at, ok := index[need]
			if !ok {
				return fmt.Errorf("%q needs %q, which there is not", t.name, need)
			}
			users[at] = append(users[at], i)
		}
	}
	var batches [][]int
	var batch []int
	for i := range tasks {
		if pending[i] == 0 {
			batch = append(batch, i)
		}
	}
	sorted := 0
	for len(batch) > 0 {
		sorted += len(batch)
		batches = append(batches, batch)
		var next []int
		for _, i := range batch {
			for _, user := range users[i] {
				if pending[user]--; pending[user] == 0 {
					next = append(next, user)
				}
			}
		}
		batch = next
	}
	if sorted < len(tasks) {
		return fmt.Errorf("%d wait for each other", len(tasks)-sorted)
	}
	for _, batch := range batches {
		group, ctx := errgroup.WithContext(ctx)
		for _, i := range batch {
			group.Go(func() error { return tasks[i].start(ctx) })
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// part is a component in the form of the containers.
type part struct{ name string }

// inFx makes a named value of each component, which takes those that it needs and
// appends a hook: hooks start one after another, in the order of needs.
func inFx(g graph) contender {
	return contender{"fx, one hook each", func(ctx context.Context) (func(context.Context) error, error) {
		options := []fx.Option{fx.NopLogger}
		for i, name := range g.names {
			tags := make([]string, 1, 1+mostNeeds) // the lifecycle has none
			for _, need := range g.needs[i] {
				tags = append(tags, tag(g.names[need]))
			}
			appendHook := func(life fx.Lifecycle) *part {
				life.Append(fx.Hook{OnStart: nothing})
				return &part{name}
			}
			constructor := []any{
				appendHook,
				func(life fx.Lifecycle, _ *part) *part { return appendHook(life) },
				func(life fx.Lifecycle, _, _ *part) *part { return appendHook(life) },
				func(life fx.Lifecycle, _, _, _ *part) *part { return appendHook(life) },
			}[len(g.needs[i])]
			options = append(options,
				fx.Provide(fx.Annotate(constructor, fx.ParamTags(tags...), fx.ResultTags(tag(name)))),
				fx.Invoke(fx.Annotate(func(*part) {}, fx.ParamTags(tag(name)))))
		}
		app := fx.New(options...)
		return app.Stop, app.Start(ctx)
	}}
}

func tag(name string) string { return fmt.Sprintf("name:%q", name) }

// inDo makes a lazy named service of each component, which invokes those that it
// needs: they start one after another.
func inDo(g graph) contender {
	return contender{"samber/do, lazy services", func(ctx context.Context) (func(context.Context) error, error) {
		injector := do.New()
		for i, name := range g.names {
			do.ProvideNamed(injector, name, func(injector do.Injector) (*part, error) {
				for _, need := range g.needs[i] {
					if _, err := do.InvokeNamed[*part](injector, g.names[need]); err != nil {
						return nil, err
					}
				}
				return &part{name}, nothing(ctx)
			})
		}
		for _, name := range g.names {
			if _, err := do.InvokeNamed[*part](injector, name); err != nil {
				return nil, err
			}
		}
		return shutDown(injector), nil
	}}
}

func shutDown(injector *do.RootScope) func(context.Context) error {
	return func(ctx context.Context) error {
		if report := injector.ShutdownWithContext(ctx); !report.Succeed {
			return report
		}
		return nil
	}
}
