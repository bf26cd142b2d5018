// This file shows lines and a line of progress on one terminal.

package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
)

// screen shows lines, and on a terminal keeps one line of progress below them.
type screen struct {
	// mu guards the fields below, and keeps each output in one piece.
	mu       sync.Mutex
	out      *os.File
	terminal bool
	progress string
	tier     string // of the last answer
	begun    bool   // a line is shown piece by piece, and its end has not come
	later    []byte // the lines that came since it began, which would stand in its middle
}

func newScreen(out *os.File) *screen {
	info, err := out.Stat()
	return &screen{out: out, terminal: err == nil && info.Mode()&os.ModeCharDevice != 0}
}

// Write shows whole lines, above the progress.
func (s *screen) Write(lines []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(lines), s.print(bytes.TrimRight(lines, "\n"))
}

func (s *screen) line(text string) { _, _ = fmt.Fprintln(s, text) }

// part shows a piece of a line as it comes. Other lines wait until a piece ends the line.
func (s *screen) part(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = fmt.Fprint(s.out, text)
	if text == "" { // it keeps the connection alive
		return
	}
	if s.begun = !strings.HasSuffix(text, "\n"); !s.begun {
		_, _ = s.out.Write(s.later)
		s.later = nil
	}
}

// answered shows progress, and a line when another tier answers than before.
func (s *screen) answered(n, of int, by, tier string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if tier != s.tier {
		s.tier = tier
		_ = s.print(fmt.Appendf(nil, "answers   %s, from question %d on", tier, n))
	}
	if s.terminal {
		s.progress = fmt.Sprintf("%d/%d %s", n, of, by)
		_, _ = fmt.Fprintf(s.out, "\r\033[K%s", s.progress)
	}
}

// settle takes the progress away.
func (s *screen) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.progress != "" {
		_, _ = fmt.Fprint(s.out, "\r\033[K")
		s.progress = ""
	}
}

// print writes a line above the progress, or keeps it until the line that has begun has ended. Caller holds mu.
func (s *screen) print(line []byte) error {
	if s.begun {
		s.later = append(append(s.later, line...), '\n')
		return nil
	}
	if s.progress == "" {
		_, err := fmt.Fprintf(s.out, "%s\n", line)
		return err
	}
	_, err := fmt.Fprintf(s.out, "\r\033[K%s\n%s", line, s.progress)
	return err
}
