package probes

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/oneline"
)

// mostExpected bounds how much of an answer is looked at.
const mostExpected = 64 << 10

// TCPOptions are the settings of [TCP]. The zero value is the default of each.
type TCPOptions struct {
	// Send is sent once the connection stands; it is copied, and never shown in an
	// error. Default: nothing.
	Send []byte
	// Expect is what the answer has to begin with, up to 64 KiB; it is copied.
	// Default: nothing is read.
	Expect []byte
}

// TCP returns a probe that connects to a server and closes the connection again.
// With [TCPOptions.Expect] it reads until the answer is there or differs.
//
// It blocks until then or until its context ends; there is no other time limit.
// An address that is not host:port with a port from 1 to 65535, and options out
// of bounds, are errors that match [ErrInvalid].
func TCP(address string, options TCPOptions) (health.Probe, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || !isPort(port) {
		return nil, refuse("address", quoted(address), "host:port with a port from 1 to 65535")
	}
	if len(options.Expect) > mostExpected {
		return nil, refuse("TCPOptions.Expect", strconv.Itoa(len(options.Expect))+" bytes", fmt.Sprintf("0 (default) to %d bytes", mostExpected))
	}
	options = TCPOptions{Send: bytes.Clone(options.Send), Expect: bytes.Clone(options.Expect)}
	shown := "TCP " + oneline.Cut(oneline.Of(address), longestText) + ": "
	return func(ctx context.Context) error {
		if err := options.exchange(ctx, address); err != nil {
			return &failure{text: shown + textOf(err), causes: []error{err}}
		}
		return nil
	}, nil
}

func (o TCPOptions) exchange(ctx context.Context, address string) error {
	err := o.connect(ctx, address)
	if err != nil && ctx.Err() != nil {
		// What the network says is how it was told of that: a time limit that nobody set.
		cause := context.Cause(ctx)
		return &failure{text: textOf(cause) + ": " + textOf(err), causes: []error{ctx.Err(), cause}}
	}
	return err
}

func (o TCPOptions) connect(ctx context.Context, address string) error {
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = connection.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	return o.converse(connection)
}

func (o TCPOptions) converse(connection net.Conn) error {
	if len(o.Send) > 0 {
		if _, err := connection.Write(o.Send); err != nil {
			return err
		}
	}
	// No more is read than is expected, and so no more is shown: some servers
	// quote what they were sent.
	answer := make([]byte, 0, len(o.Expect))
	for len(answer) < len(o.Expect) {
		n, err := connection.Read(answer[len(answer):len(o.Expect)])
		answer = answer[:len(answer)+n]
		switch {
		case !bytes.HasPrefix(o.Expect, answer):
			return fmt.Errorf("answered %s, want %s", quoted(string(answer)), quoted(string(o.Expect)))
		case err != nil && len(answer) < len(o.Expect):
			return fmt.Errorf("answered %s, want %s: %w", quoted(string(answer)), quoted(string(o.Expect)), err)
		}
	}
	return nil
}
