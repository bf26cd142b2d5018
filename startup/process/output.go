package process

import (
	"bytes"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/ring"
)

const (
	longestLine = 8 << 10  // of a log, in bytes
	longestKept = 1 << 10  // of the error, in bytes
	chunkSize   = 32 << 10 // that is read at once
)

// output reads what one life of a process writes. Each stream has a goroutine, which runs the logger and the writers of
// the user.
type output struct {
	logger  *zap.Logger    // nil without one
	line    *regexp.Regexp // that matched is closed for; nil for none
	matched func()
	done    sync.WaitGroup
	streams []*stream

	mu   sync.Mutex // guards last; no code of users runs while it is held
	last *ring.Ring[string]
}

func newOutput(lines int, logger *zap.Logger) *output {
	return &output{logger: logger, last: ring.New[string](lines)}
}

// stream is one of the outputs of a process.
type stream struct {
	*output

	name string
	from *os.File
	to   io.Writer // of the user; nil: the logger
	text []byte    // of the line that has begun, up to longestLine
	cut  uint64    // bytes of that line that were dropped
}

// attach returns the end of a pipe for the process to write to.
func (o *output) attach(name string, to io.Writer) (*os.File, error) {
	from, into, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	o.streams = append(o.streams, &stream{output: o, name: name, from: from, to: to})
	return into, nil
}

// read begins to read.
func (o *output) read() {
	for _, s := range o.streams {
		o.done.Go(s.readAll)
	}
}

// close gives up the pipes of a process that has not started.
func (o *output) close() {
	for _, s := range o.streams {
		_ = s.from.Close()
	}
}

// readAll reads until the last process that may write has ended.
func (s *stream) readAll() {
	defer func() { _ = s.from.Close() }()
	chunk := make([]byte, chunkSize)
	for {
		n, err := s.from.Read(chunk)
		s.take(chunk[:n])
		if err != nil {
			s.endLine()
			return
		}
	}
}

// take takes what was written. A writer that fails gets nothing more.
func (s *stream) take(data []byte) {
	if s.to != nil && len(data) > 0 {
		if err := s.write(data); err != nil {
			s.to = io.Discard
			s.log("output is not written any more", zap.String("error", fault.Text(err)))
		}
	}
	for len(data) > 0 {
		end := bytes.IndexAny(data, "\r\n")
		if end < 0 {
			s.add(data)
			return
		}
		s.add(data[:end])
		s.endLine()
		data = data[end+1:]
	}
}

func (s *stream) write(data []byte) error {
	return fault.Run(func() error {
		n, err := s.to.Write(data)
		if err == nil && n < len(data) {
			err = io.ErrShortWrite
		}
		return err
	})
}

// add adds to the line that has begun.
func (s *stream) add(data []byte) {
	fits := min(len(data), longestLine-len(s.text))
	s.text = append(s.text, data[:fits]...)
	s.cut += uint64(len(data) - fits) //nolint:gosec // it is not negative
}

// endLine ends a line. Empty ones tell nothing, and are between the two characters that may end a line.
func (s *stream) endLine() {
	text := strings.ToValidUTF8(string(s.text), "\uFFFD")
	cut := s.cut
	s.text, s.cut = s.text[:0], 0
	if text == "" {
		return
	}
	s.keep(text)
	if s.line != nil && s.line.MatchString(text) {
		s.matched()
	}
	if s.to != nil {
		return
	}
	if cut > 0 {
		s.log(text, zap.String("stream", s.name), zap.Uint64("cut_bytes", cut))
		return
	}
	s.log(text, zap.String("stream", s.name))
}

// keep keeps a line for the error.
func (o *output) keep(text string) {
	text = oneline.Short(text, longestKept)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last.Push(text)
}

// lines returns the last lines.
func (o *output) lines() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last.Values()
}

// log writes to the logger, which is code of the user.
func (o *output) log(text string, fields ...zap.Field) {
	if o.logger != nil {
		_ = fault.Run(func() error { o.logger.Info(text, fields...); return nil })
	}
}

// Times for what is left of the output of a process whose group has ended. Only a process that has left the group may
// write more.
const (
	finishTime  = 500 * time.Millisecond
	abandonTime = 2 * time.Second
)

// finish waits for the rest of the output, and reports whether the code of the user has returned.
func (o *output) finish() bool {
	over := make(chan struct{})
	go func() { o.done.Wait(); close(over) }()
	if within(over, finishTime) {
		return true
	}
	for _, s := range o.streams {
		_ = s.from.Close()
	}
	return within(over, abandonTime)
}

// within reports whether a channel is closed within a time.
func within(over <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-over:
		return true
	case <-timer.C:
		return false
	}
}
