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

// mostExpected bounds the bytes of an answer that are read.
const mostExpected = 64 << 10

// TCPOptions configure [TCP]. The zero value of each field is its default.
type TCPOptions struct {
	// Send is sent once the connection is established; it is copied, and never part of an
	// error. Default: nothing.
	Send []byte
	// Expect is the required beginning of the answer, up to 64 KiB; it is copied. Default: no
	// answer is read.
	Expect []byte
}

// TCP returns a probe that connects to a server and closes the connection again. With
// [TCPOptions.Expect] it reads until the answer is complete or differs.
//
// It blocks until then or until its context ends; there is no other time limit. An address that
// is not host:port with a port from 1 to 65535, and options out of bounds, are errors that
// match [ErrInvalid].
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
		// The error of the network is a timeout that stems from the context.
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
	// Only the expected number of bytes is read, so no more can appear in an error: some
	// servers quote their input.
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
