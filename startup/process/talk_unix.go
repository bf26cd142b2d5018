//go:build unix

package process

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/startup"
)

// errProcessEnded is the cause of the end of the context of a Talk.
var errProcessEnded = errors.New("the process has ended")

// endTime is for the end of a process that Talk has met first, such as by the end of its output: the status of the process
// says more.
const endTime = 200 * time.Millisecond

// talk has the ends of a life's standard input and output that this program uses.
type talk struct {
	in, out *os.File // the ends of this program
	end     context.CancelCauseFunc
	ended   chan struct{} // closed when the user's code has returned and the rest was read
}

// newTalk makes the pipes, and returns the ends of the process as well.
func newTalk() (t *talk, in, out *os.File, err error) {
	in, toIn, err := os.Pipe()
	if err != nil {
		return nil, nil, nil, err
	}
	fromOut, out, err := os.Pipe()
	if err != nil {
		_, _ = in.Close(), toIn.Close()
		return nil, nil, nil, err
	}
	return &talk{in: toIn, out: fromOut, ended: make(chan struct{})}, in, out, nil
}

// begin runs the user's code. Its failure is told when the process and the component would go on without it.
func (t *talk) begin(run *startup.Run, with func(context.Context, Streams) error, pid, life int, failed func(error)) {
	ctx, end := context.WithCancelCause(run.Context())
	t.end = end
	streams := Streams{In: t.in, Out: t.out, PID: pid, Life: life}
	go fault.RunThen(func() error { return with(ctx, streams) }, func(err error) {
		defer close(t.ended)
		t.hangUp()
		if err != nil && !within(ctx.Done(), endTime) {
			failed(err)
		}
		_, _ = io.Copy(io.Discard, t.out) // a process that goes on writing is not to fail by that
	})
}

// hangUp ends the input of the process.
func (t *talk) hangUp() {
	if t != nil {
		_ = t.in.Close()
	}
}

// close gives up the pipes.
func (t *talk) close() {
	if t != nil {
		_, _ = t.in.Close(), t.out.Close()
	}
}

// processEnded tells the user's code.
func (t *talk) processEnded() {
	if t != nil {
		t.end(errProcessEnded)
	}
}

// finish ends the talk after the process, and reports whether the user's code has returned.
func (t *talk) finish() bool {
	t.hangUp()
	if within(t.ended, finishTime) {
		t.close()
		return true
	}
	t.close()
	return within(t.ended, abandonTime)
}
