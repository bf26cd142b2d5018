//go:build unix

package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"time"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/fault"
)

// notifies reports whether the process itself says that it is ready.
func (r *Ready) notifies() bool { return r.Line != nil || r.Notify }

// probe returns what the orchestrator asks until the process is ready; nil when there is nothing to ask.
func (p *program) probe(current func() *life) health.Probe {
	awaited := slices.Clone(p.awaited)
	if p.Ready.Up > 0 {
		awaited = append(awaited, func(context.Context) error { return current().upFor(p.Ready.Up) })
	}
	if p.Ready.File != "" {
		awaited = append(awaited, func(context.Context) error { return current().file.changed() })
	}
	if p.Component.Ready != nil {
		awaited = append(awaited, p.Component.Ready)
	}
	if len(awaited) == 0 {
		return nil
	}
	return func(ctx context.Context) error {
		for _, probe := range awaited {
			if err := probe(ctx); err != nil {
				return err
			}
		}
		return nil
	}
}

func (l *life) upFor(d time.Duration) error {
	if up := time.Since(l.began); up < d {
		return fmt.Errorf("it has run for %v of %v", up.Round(time.Millisecond), d)
	}
	return nil
}

// dialPatience bounds the question whether a port is free.
const dialPatience = 500 * time.Millisecond

// checkFree refuses addresses that accept connections although the process has not started.
func checkFree(ctx context.Context, addresses []string) error {
	dialer := net.Dialer{Timeout: dialPatience}
	for _, address := range addresses {
		connection, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			continue
		}
		_ = connection.Close()
		return fmt.Errorf("port %s is in use before the process has started", address)
	}
	return nil
}

// readyFile is a file that a process makes when it is ready; one that is there before is not it.
type readyFile struct {
	path   string
	before fs.FileInfo // nil when there was none
}

// newReadyFile looks at what is there before the start.
func newReadyFile(path string) readyFile {
	before, err := os.Stat(path)
	if err != nil {
		return readyFile{path: path}
	}
	return readyFile{path, before}
}

// changed returns an error until the file is there and another one.
func (f readyFile) changed() error {
	now, err := os.Stat(f.path)
	if err != nil {
		var failed *fs.PathError
		if errors.As(err, &failed) {
			err = failed.Err
		}
		return fault.Wrap(fmt.Sprintf("file %q: ", f.path), err)
	}
	if b := f.before; b != nil && os.SameFile(b, now) && b.ModTime().Equal(now.ModTime()) && b.Size() == now.Size() {
		return fmt.Errorf("file %q is from before the start", f.path)
	}
	return nil
}
