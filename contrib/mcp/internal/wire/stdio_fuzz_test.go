package wire_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/contrib/mcp/internal/wire"
)

// FuzzStdio_ReadsTheMessagesAmongTheLines compares it with a model that splits all of the output at once.
func FuzzStdio_ReadsTheMessagesAmongTheLines(f *testing.F) {
	f.Add([]byte("log\n" + request("1") + "\r\n\n  " + request("2") + "\n{\"half\n"))
	f.Add([]byte("\xff\x00\n\t\r\n" + `{"jsonrpc":"2.0","method":"x"}` + "\n[]\nnull\n" + request("3")))
	f.Add([]byte(strings.Repeat(" ", 70_000) + request("4") + "\n" + strings.Repeat("x", 70_000) + "\n"))
	f.Fuzz(func(t *testing.T, output []byte) {
		if bytes.Count(output, []byte("\n")) > 900 {
			t.Skip("the bound of lines that are no messages")
		}
		var want []string
		lines := bytes.Split(output, []byte("\n"))
		for _, line := range lines[:len(lines)-1] { // what follows the last end of line is cut
			line = bytes.TrimRight(bytes.TrimLeft(line, " \t\r"), " \t\r\n\v\f\u0085\u00a0")
			if len(line) == 0 || line[0] != '{' {
				continue
			}
			if message, err := jsonrpc.DecodeMessage(line); err == nil {
				want = append(want, textOf(t, message))
			}
		}
		in, out := io.Pipe()
		stdio := wire.Stdio{In: out, Out: io.NopCloser(bytes.NewReader(output)), MaxMessage: 1 << 20, Garbage: func(string) {}, Ended: func(error) {}}
		c, err := stdio.Connect(t.Context())
		require.NoError(t, err)
		defer func() { require.NoError(t, c.Close()); require.NoError(t, in.Close()) }()
		var got []string
		for {
			message, err := c.Read(t.Context())
			if err != nil {
				require.ErrorIs(t, err, io.EOF)
				break
			}
			got = append(got, textOf(t, message))
		}
		require.Equal(t, want, got)
	})
}

func textOf(t *testing.T, message jsonrpc.Message) string {
	t.Helper()
	text, err := jsonrpc.EncodeMessage(message)
	require.NoError(t, err)
	return string(text)
}
