// Package wire has the transports of MCP as a client needs them that must not hang: each of them can be ended at once,
// whatever the server does, and says what a request has met.
package wire

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

const (
	// mostGarbage is the number of lines in a row that may be no messages.
	mostGarbage = 1000
	// keptGarbage bounds what is told of such a line, in bytes.
	keptGarbage = 512
)

var (
	errClosed  = errors.New("the connection is closed")
	errGarbage = fmt.Errorf("%d lines in a row are no messages: the server speaks something else", mostGarbage)
)

// Stdio is a transport over the streams of a process: a message of JSON-RPC is a line.
//
// Servers write other things to their standard output by mistake, such as lines of a log; these are skipped. A write
// never waits for a server that reads nothing for longer than its context.
type Stdio struct {
	In  io.WriteCloser
	Out io.ReadCloser
	// MaxMessage bounds a message that is read, in bytes.
	MaxMessage int
	// Garbage is given each line that is no message, cut, and Ended why nothing more can be read, before what waits for
	// an answer hears of it. Both are called by one goroutine.
	Garbage func(line string)
	Ended   func(error)
}

// Connect begins to write, in a goroutine that ends with the connection.
func (t *Stdio) Connect(context.Context) (mcp.Connection, error) {
	c := &stdioConn{Stdio: t, lines: bufio.NewReaderSize(t.Out, 64<<10), outgoing: make(chan []byte), closed: make(chan struct{})}
	go c.writeAll()
	return c, nil
}

// stdioConn is one connection.
type stdioConn struct {
	*Stdio

	lines    *bufio.Reader
	outgoing chan []byte

	closing sync.Once
	closed  chan struct{}
}

// SessionID is empty: a process is one session.
func (c *stdioConn) SessionID() string { return "" }

// Read returns the next message. Closing the connection ends it.
func (c *stdioConn) Read(context.Context) (jsonrpc.Message, error) {
	message, err := c.read()
	if err == nil {
		return message, nil
	}
	select {
	case <-c.closed:
		return nil, errClosed
	default:
	}
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("it has closed its output: %w", err)
	}
	c.Ended(err)
	return nil, err
}

func (c *stdioConn) read() (jsonrpc.Message, error) {
	for range mostGarbage {
		line, err := c.readLine()
		if err != nil {
			return nil, err
		}
		if len(line) == 0 {
			continue
		}
		if message, err := jsonrpc.DecodeMessage(line); err == nil {
			return message, nil
		}
		c.Garbage(string(line[:min(len(line), keptGarbage)]))
	}
	return nil, errGarbage
}

// readLine returns a line without the space around it, and only the beginning of one that cannot be a message.
func (c *stdioConn) readLine() (line []byte, err error) {
	for {
		part, err := c.lines.ReadSlice('\n')
		if isMessage := len(line) == 0 || line[0] == '{'; isMessage || len(line) < keptGarbage {
			line = append(line, part...)
		}
		if trimmed := bytes.TrimLeft(line, " \t\r"); len(trimmed) < len(line) {
			line = trimmed
		}
		switch {
		case len(line) > c.MaxMessage:
			return nil, fmt.Errorf("a message is longer than %d bytes", c.MaxMessage)
		case err == nil:
			return bytes.TrimSpace(line), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// Write sends a message, or returns when ctx has ended first; then it is not sent.
func (c *stdioConn) Write(ctx context.Context, message jsonrpc.Message) error {
	data, err := jsonrpc.EncodeMessage(message)
	if err != nil {
		return err
	}
	select {
	case c.outgoing <- append(data, '\n'):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.closed:
		return errClosed
	}
}

// writeAll writes message after message, since a part of one would spoil the next.
func (c *stdioConn) writeAll() {
	for {
		select {
		case data := <-c.outgoing:
			if _, err := c.In.Write(data); err != nil {
				_ = c.Close()
				return
			}
		case <-c.closed:
			return
		}
	}
}

// Close ends the connection and the streams.
func (c *stdioConn) Close() error {
	c.closing.Do(func() {
		close(c.closed)
		_, _ = c.In.Close(), c.Out.Close()
	})
	return nil
}
