package stream_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/stream"
)

// Variants: texts of every form, whole and byte by byte, with an end in order and with an error.
func TestEventReader_ReadsWhatSSEReads(t *testing.T) {
	t.Parallel()
	errCut := errors.New("cut")
	for _, text := range []string{
		"", "data: a\n\n", "data: a\n\ndata: b\r\n\r\ndata: c\r\r", "\ufeffdata: a\n\n: ping\n\nevent: e\nid: 1\ndata: x\ndata: y\n\n", "data: a", "data\n\n",
		"event: e\n\n", strings.Repeat("data: a\n\n", 1000), "data: " + strings.Repeat("x", 300) + "\n\n",
	} {
		for _, end := range []error{io.EOF, errCut} {
			body := func() io.Reader {
				return iotest.OneByteReader(io.MultiReader(strings.NewReader(text), iotest.ErrReader(end)))
			}
			reader := stream.NewEventReader(body(), stream.MaxEventBytes(200))
			var last error
			for want, err := range stream.SSE(body(), stream.MaxEventBytes(200)) {
				if err != nil {
					last = err
					break
				}
				got, err := reader.Next()
				require.NoError(t, err)
				require.Equal(t, want, got)
			}
			for range 2 { // it is final
				_, err := reader.Next()
				if last == nil {
					last = io.EOF
				}
				require.EqualError(t, err, last.Error())
			}
		}
	}
}

func TestEventReader_RefusesBadArguments(t *testing.T) {
	t.Parallel()
	_, err := stream.NewEventReader(nil).Next()
	require.ErrorContains(t, err, "body")
	_, err = stream.NewEventReader(strings.NewReader(""), stream.MaxEventBytes(0), nil).Next()
	require.ErrorContains(t, err, "MaxEventBytes")
}

func TestEventReader_KnowsWhetherAnotherEventIsThere(t *testing.T) {
	t.Parallel()
	reader := stream.NewEventReader(strings.NewReader("data: a\n\ndata: b\r\n\r\ndata: c"))
	require.False(t, reader.Buffered(), "nothing was read")
	for _, more := range []bool{true, false, false} {
		_, err := reader.Next()
		require.NoError(t, err)
		require.Equal(t, more, reader.Buffered())
	}
	for rest, more := range map[string]bool{
		": ping\n\n": false, "event: e\nid: 1\n\n": false, "\n\n\n": false, "\r\n\r\n": false, "data: b\n": false, "data: b\r\n": false, "database\n\n": false,
		": ping\n\ndata: b\n\n": true, "data\n\n": true, "event: e\rdata:\r\r": true, "\n\ndata: b\n: ping\r\n\n": true,
	} {
		reader := stream.NewEventReader(strings.NewReader("data: a\r\n\r\n" + rest))
		_, err := reader.Next()
		require.NoError(t, err)
		require.Equal(t, more, reader.Buffered(), "%q", rest)
	}
}

func TestIsPreamble_TellsARoleFromAToken(t *testing.T) {
	t.Parallel()
	require.True(t, stream.IsPreamble(stream.Event{Data: []byte(`{"choices":[{"delta":{"role":"assistant","content":""}}]}`)}))
	require.False(t, stream.IsPreamble(stream.Event{Data: []byte(`{"choices":[{"delta":{"content":"a"}}]}`)}))
}
