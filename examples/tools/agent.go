//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	registrymcp "github.com/capreg/registry/contrib/mcp"
)

// agent makes its calls to all servers at the same time, one after the other to each.
type agent struct {
	tools *registrymcp.Tools
	calls int
	began time.Time

	made, answered atomic.Int64

	mu  sync.Mutex // guards out
	out io.Writer
}

// callTime bounds a call, waiting included.
const callTime = time.Minute

// work makes the calls and prints what became of them.
func (a *agent) work(ctx context.Context) {
	watching, end := context.WithCancel(ctx)
	var watcher, workers sync.WaitGroup
	watcher.Go(func() { a.watch(watching) })
	workers.Go(func() { a.readFiles(ctx) })
	workers.Go(func() { a.search(ctx) })
	workers.Go(func() { a.keepNotes(ctx) })
	workers.Wait()
	end()
	watcher.Wait()
	made, answered := a.made.Load(), a.answered.Load()
	a.say("done")
	_, _ = fmt.Fprintf(a.out, "calls %d answered %d lost %d\n", made, answered, made-answered)
}

// say prints what happens.
func (a *agent) say(what string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, _ = fmt.Fprintf(a.out, "%6.2fs  %s\n", time.Since(a.began).Seconds(), what)
}

// call calls a tool; an answer without an error counts.
func (a *agent) call(ctx context.Context, name string, arguments any) (string, error) {
	a.made.Add(1)
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	result, err := a.tools.Call(ctx, name, arguments)
	if err == nil && (result.IsError || len(result.Content) == 0) {
		err = errors.New("it is no answer")
	}
	if err != nil {
		a.say(fmt.Sprintf("%s: %v", name, err))
		return "", err
	}
	a.answered.Add(1)
	text, _ := result.Content[0].(*mcp.TextContent)
	return text.Text, nil
}

// readFiles reads files, and harms their server on the way. Reading may be repeated, so that each call is answered.
func (a *agent) readFiles(ctx context.Context) {
	harms := map[int]syscall.Signal{a.calls / 3: syscall.SIGKILL, 2 * a.calls / 3: syscall.SIGSTOP}
	for i := range a.calls {
		if signal, ok := harms[i]; ok {
			if text, err := a.call(ctx, "files/pid", nil); err == nil {
				a.say(fmt.Sprintf("process %s of files gets the signal %q", text, signal))
				pid, _ := strconv.Atoi(text)
				_ = syscall.Kill(pid, signal)
			}
		}
		_, _ = a.call(ctx, "files/read", map[string]any{"name": "chapter " + strconv.Itoa(i)})
	}
}

// search searches; the server has an index that is broken, and another one.
func (a *agent) search(ctx context.Context) {
	for i := range a.calls {
		_, _ = a.call(ctx, "search/find", map[string]any{"word": "word " + strconv.Itoa(i)})
	}
}

// keepNotes waits for the late server with its first call. To add a note is not repeatable: it must not be there twice.
func (a *agent) keepNotes(ctx context.Context) {
	for i := range a.calls - 1 {
		_, _ = a.call(ctx, "notes/add", map[string]any{"text": "note " + strconv.Itoa(i)})
	}
	if count, err := a.call(ctx, "notes/count", nil); err == nil {
		a.say(fmt.Sprintf("%s notes were added by %d calls", count, a.calls-1))
	}
}

// watch prints each change of what is known of the tools.
func (a *agent) watch(ctx context.Context) {
	last := make(map[string]string)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, tool := range a.tools.All(ctx) {
			set, _, _ := strings.Cut(tool.Name, "/")
			is := "is up"
			if tool.Err != nil {
				is = "is out: " + reason(tool.Err)
			}
			if last[tool.Name] != is {
				if last[set] != is {
					a.say(set + " " + is)
				}
				last[tool.Name], last[set] = is, is
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// reason returns why a server is down.
func reason(err error) string {
	_, why, found := strings.Cut(err.Error(), registrymcp.ErrDown.Error()+": ")
	if !found {
		return err.Error()
	}
	why, _, _ = strings.Cut(why, ";")
	return why
}
