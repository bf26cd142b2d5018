package probes_test

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/probes"
)

// talker returns the address of a server that greets every client, and
// sends its input to the channel when the other side has closed.
func talker(t *testing.T, says string, heard chan<- string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // ends with the test
	require.NoError(t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(connection, says)
			text, _ := io.ReadAll(connection)
			_ = connection.Close()
			heard <- string(text)
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-served
	})
	return listener.Addr().String()
}

func TestTCP_ChecksTheAnswer(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		says    string
		options probes.TCPOptions
		text    string // of the error
	}{
		"connection":        {"", probes.TCPOptions{}, ""},
		"answer not read":   {"-ERR", probes.TCPOptions{Send: []byte("PING\r\n")}, ""},
		"answer":            {"+PONG\r\n", probes.TCPOptions{Send: []byte("PING\r\n"), Expect: []byte("+PONG")}, ""},
		"greeting":          {"220 mail.example", probes.TCPOptions{Expect: []byte("220 ")}, ""},
		"another answer":    {"-ERR secret\r\n", probes.TCPOptions{Expect: []byte("+PONG\r\n")}, `answered "-ERR se", want "+PONG\r\n"`},
		"too short by far":  {"-", probes.TCPOptions{Expect: []byte("+PONG")}, `answered "-", want "+PONG"`},
		"binary, two lines": {"\x00\n\n", probes.TCPOptions{Expect: []byte("\x00\n\x01")}, `answered "\x00\n\n", want "\x00\n\x01"`},
		"a long one": {
			strings.Repeat("x", 1000) + "z",
			probes.TCPOptions{Expect: []byte(strings.Repeat("x", 1000) + "y")},
			`answered "` + strings.Repeat("x", 64) + `…", want "` + strings.Repeat("x", 64) + `…"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			heard := make(chan string, 1)
			address := talker(t, test.says, heard)
			probe, err := probes.TCP(address, test.options)
			require.NoError(t, err)
			sent := string(test.options.Send)
			for _, bytes := range [][]byte{test.options.Send, test.options.Expect} {
				clear(bytes) // they were copied
			}
			err = probe(t.Context())
			require.Equal(t, sent, <-heard, "and the connection is closed")
			if test.text == "" {
				require.NoError(t, err)
				return
			}
			requireLine(t, err)
			require.ErrorContains(t, err, "TCP "+address+": "+test.text)
		})
	}
}

func TestTCP_FailsWithoutAServer(t *testing.T) {
	t.Parallel()
	address := refused(t)
	probe, err := probes.TCP(address, probes.TCPOptions{})
	require.NoError(t, err)
	err = probe(t.Context())
	requireLine(t, err)
	requireDial(t, err)
	require.ErrorContains(t, err, "TCP "+address+": ")
}

func TestTCP_HangingServerFailsWithTheContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // ends with the test
	require.NoError(t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(connection, "+PO")
		_, _ = io.ReadFull(connection, make([]byte, 4))
		cancel(errDown)
		_, _ = io.Copy(io.Discard, connection)
		_ = connection.Close()
	}()
	probe, err := probes.TCP(listener.Addr().String(), probes.TCPOptions{Send: []byte("PING"), Expect: []byte("+PONG")})
	require.NoError(t, err)
	err = probe(ctx)
	requireLine(t, err)
	require.ErrorIs(t, err, errDown)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, `want "+PONG"`)
	<-served

	require.ErrorIs(t, probe(ctx), context.Canceled, "before anything")
	require.NoError(t, listener.Close())
}

func TestTCP_FailsWhenTheServerCloses(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // ends with the test
	require.NoError(t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		if connection, err := listener.Accept(); err == nil {
			_, _ = io.WriteString(connection, "+PO")
			_ = connection.Close()
		}
	}()
	probe, err := probes.TCP(listener.Addr().String(), probes.TCPOptions{Expect: []byte("+PONG")})
	require.NoError(t, err)
	err = probe(t.Context())
	requireLine(t, err)
	require.ErrorIs(t, err, io.EOF)
	require.ErrorContains(t, err, `answered "+PO", want "+PONG": EOF`)
	<-served
	require.NoError(t, listener.Close())
}

func TestTCP_BadInputNamesFieldValueAndBound(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		address string
		options probes.TCPOptions
		text    string
	}{
		"no address":      {"", probes.TCPOptions{}, `address is "": want host:port with a port from 1 to 65535`},
		"no port":         {"localhost", probes.TCPOptions{}, `address is "localhost": want`},
		"no host":         {":80", probes.TCPOptions{}, `address is ":80": want`},
		"a named port":    {"localhost:http", probes.TCPOptions{}, `address is "localhost:http": want`},
		"port zero":       {"localhost:0", probes.TCPOptions{}, `address is "localhost:0": want`},
		"a port too high": {"localhost:65536", probes.TCPOptions{}, `address is "localhost:65536": want`},
		"two lines":       {"local\nhost", probes.TCPOptions{}, `address is "local\nhost": want`},
		"long answer":     {"localhost:80", probes.TCPOptions{Expect: make([]byte, 64<<10+1)}, `TCPOptions.Expect is 65537 bytes: want 0 (default) to 65536 bytes`},
	} {
		probe, err := probes.TCP(test.address, test.options)
		require.ErrorIs(t, err, probes.ErrInvalid, name)
		requireLine(t, err)
		require.ErrorContains(t, err, "probes: invalid input: "+test.text, name)
		require.Nil(t, probe, name)
	}
}
