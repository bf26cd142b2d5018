package stream_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/stream"
)

// pieces gives text in pieces of the sizes given, and then all that is left.
type pieces struct {
	text  []byte
	sizes []byte
}

func (p *pieces) Read(to []byte) (int, error) {
	if len(p.text) == 0 {
		return 0, io.EOF
	}
	n := len(p.text)
	if len(p.sizes) > 0 {
		n, p.sizes = min(n, int(p.sizes[0])), p.sizes[1:]
	}
	n = copy(to[:min(n, len(to))], p.text)
	p.text = p.text[n:]
	return n, nil
}

// However a body is cut into pieces, what is read ends with the first end mark, or the
// stream was cut.
func FuzzReader_FindsEndMarkInAnyPieces(f *testing.F) {
	f.Add([]byte("data: a\n\ndata: [DONE]\n\nmore"), []byte("data: [DONE]\n\n"), []byte{1, 2, 3, 4, 5, 6})
	f.Add([]byte("aaab"), []byte("aab"), []byte{1, 1, 1, 1})
	f.Add([]byte(""), []byte("x"), []byte{})
	f.Add([]byte("no mark"), []byte("\x00"), []byte{0, 0, 255})
	f.Add([]byte("abababac"), []byte("ababac"), []byte{3, 0, 2})
	f.Fuzz(func(t *testing.T, text, end, sizes []byte) {
		reg, err := registry.New(registry.Options{})
		require.NoError(t, err)
		bodies := registry.NewService[int]("bodies")
		_, err = bodies.Register(t.Context(), reg, registry.Provider[int]{Instance: 1})
		require.NoError(t, err)
		read, err := readAll(t.Context(), bodies.Bind(reg, registry.Query{}), &pieces{text, sizes}, end)
		at := bytes.Index(text, end)
		switch {
		case bytes.HasPrefix(end, []byte("data:")): // in any form of server-sent events
			require.True(t, bytes.HasPrefix(text, read))
			if at >= 0 {
				require.NoError(t, err)
				require.LessOrEqual(t, len(read), at+len(end))
			}
		case len(end) == 0:
			require.NoError(t, err)
			require.True(t, bytes.Equal(text, read))
		case at < 0:
			require.ErrorIs(t, err, stream.ErrTruncated)
			require.True(t, bytes.HasPrefix(text, read))
		default:
			require.NoError(t, err)
			require.Equal(t, text[:at+len(end)], read)
		}
		require.NoError(t, reg.Close(t.Context()))
	})
}

func readAll(ctx context.Context, r *registry.Resolver[int], body io.Reader, end []byte) ([]byte, error) {
	reader, err := stream.Reader(ctx, r, func(context.Context, int) (io.ReadCloser, error) {
		return io.NopCloser(body), nil
	}, stream.ReaderOptions{End: end})
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(reader)
	return text, errors.Join(err, reader.Close())
}

// naiveEvents reads events as the specification describes it, from all of the text at once.
func naiveEvents(text string) (all []stream.Event) {
	text = strings.TrimPrefix(text, "\ufeff")
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	var e stream.Event
	var data []string
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if line == "" {
			if data != nil {
				e.Data, e.Partial = []byte(strings.Join(data, "\n")), i == len(lines)-1
				all = append(all, e)
			}
			e, data = stream.Event{ID: e.ID, Retry: e.Retry}, nil
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch n, err := strconv.ParseUint(value, 10, 32); {
		case name == "data":
			data = append(data, value)
		case name == "event":
			e.Name = value
		case name == "id" && !strings.Contains(value, "\x00"):
			e.ID = value
		case name == "retry" && err == nil:
			e.Retry = time.Duration(n) * time.Millisecond
		}
		if i == len(lines)-1 && data != nil {
			e.Data, e.Partial = []byte(strings.Join(data, "\n")), true
			all = append(all, e)
		}
	}
	return all
}

// longTime is a time that naiveEvents does not read.
var longTime = regexp.MustCompile(`retry: ?\d{9}`)

func FuzzSSE_ReadsWhatANaiveReaderDoes(f *testing.F) {
	for _, text := range []string{
		"data: a\r\n\r\nid: 1\rretry: 10\r\rdata\n", "\ufeffdata: a\n:\n\ndata", "event: x\ndata:  a\n\r\n", "\r\r\n\ndata:\r",
		"data: a\n\ndata: b\n\ndata:  c\r\n\ndata:\n\ndata: d\r\n\r\ndata: e\n\nid: 1\ndata: f\n\ndata: g\n\n", ":\n\ndata: a\rb\n\ndata:",
	} {
		f.Add([]byte(text), []byte{1, 0, 2, 3})
	}
	for n := 1015; n < 1022; n++ { // lines are searched for a piece at a time
		for _, end := range []string{"\n", "\r", "\r\n"} {
			line := "data: " + strings.Repeat("x", n) + end
			f.Add([]byte(line+end+line+line+end), []byte{255, 1})
		}
	}
	f.Fuzz(func(t *testing.T, text, sizes []byte) {
		if longTime.Match(text) {
			return
		}
		var got []stream.Event
		for event, err := range stream.SSE(&pieces{text, sizes[:min(len(sizes), 99)]}) {
			require.NoError(t, err)
			got = append(got, event)
		}
		require.Equal(t, naiveEvents(string(text)), got)
	})
}
