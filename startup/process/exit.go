package process

import (
	"fmt"
	"strings"
	"time"

	"github.com/capreg/registry/internal/oneline"
)

// ExitError is the end of a process by itself that is a failure: with a status other than 0, or by a signal.
type ExitError struct {
	// Command is the last part of the path of the program, PID the number of the process, and Life the number of its
	// life, from 1 on.
	Command   string
	PID, Life int
	// Code is its exit status; -1 when a signal ended it, which Signal names.
	Code   int
	Signal string
	// Took is the time from its start to its end.
	Took time.Duration
	// Lines are its last lines of output, oldest first, of both streams, each cut to 1 KiB.
	Lines []string
}

// mostOutput bounds the output in the text of an [ExitError], in bytes: reasons in reports are not much longer.
const mostOutput = 200

// Error returns how the process ended and as many of its last lines of output as fit 200 bytes, in one line.
func (e *ExitError) Error() string {
	how := fmt.Sprintf("exit status %d", e.Code)
	if e.Signal != "" {
		how = "ended by signal: " + e.Signal
	}
	text := fmt.Sprintf("process %d (%s, life %d): %s after %v", e.PID, e.Command, e.Life, how, e.Took.Round(time.Millisecond))
	first, room := len(e.Lines), mostOutput
	for first > 0 && len(e.Lines[first-1]) <= room {
		first--
		room -= len(e.Lines[first]) + len(" | ")
	}
	lines := e.Lines[first:]
	if len(lines) == 0 && len(e.Lines) > 0 {
		lines = []string{oneline.Cut(e.Lines[len(e.Lines)-1], mostOutput)}
	}
	if len(lines) > 0 {
		text += ": " + strings.Join(lines, " | ")
	}
	return oneline.Of(text)
}
