package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/stream"
	"github.com/capreg/registry/verdict"
)

// told returns the events in short, and the error at the end.
func told(events iter.Seq2[stream.Event, error]) (all []string, failure error) {
	for e, err := range events {
		if err != nil {
			return all, err
		}
		text := fmt.Sprintf("%s|%s", e.Name, e.Data)
		if e.ID != "" || e.Retry != 0 {
			text += fmt.Sprintf("|%s|%v", e.ID, e.Retry)
		}
		if e.Partial {
			text += "|partial"
		}
		all = append(all, text)
	}
	return all, nil
}

// Variants: each line end, alone and mixed; byte-order mark; no space, two spaces; no last line ends; comments; lines of data;
// names, identifiers and times, kept and not; fields without value, unknown ones; in one piece and byte by byte.
func TestSSE_ReadsEveryFormOfEvents(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"":                                     nil,
		"\n\n\r\n\r\r":                         nil,
		"data: a\n\ndata: b\n\n":               {"|a", "|b"},
		"data: a\r\n\r\ndata: b\r\n\r\n":       {"|a", "|b"},
		"data: a\r\rdata: b\r\r":               {"|a", "|b"},
		"data: a\r\n\ndata: b\r\r\n":           {"|a", "|b"},
		"data: a\n\r\ndata: b\r\n\r":           {"|a", "|b"},
		"data:a\n\ndata:  b\n\n":               {"|a", "| b"},
		"data: a\ndata: b\r\ndata:c\rdata\n\n": {"|a\nb\nc\n"},
		"data\n\ndata\ndata\n\n":               {"|", "|\n"},
		"\ufeffdata: a\n\n\ufeffdata: b\n\n":   {"|a"},
		"\ufeff\ufeffdata: a\n\n":              nil,
		"\ufeff":                               nil,
		": ping\n\n:\ndata: a\n: b\n\n: c\n\n": {"|a"},
		"event: e\ndata: a\n\ndata: b\n\n":     {"e|a", "|b"},
		"event: e\n\ndata: a\n\n":              {"|a"},
		"event: e\nevent\ndata: a\n\n":         {"|a"},
		"id: 1\ndata: a\n\ndata: b\n\n":        {"|a|1|0s", "|b|1|0s"},
		"id: 1\n\ndata: a\nid\n\n":             {"|a"},
		"id: 1\nid: 2\x003\ndata: a\n\n":       {"|a|1|0s"},
		"retry: 1500\ndata: a\n\ndata: b\n\n":  {"|a||1.5s", "|b||1.5s"},
		"retry: 1500\nretry: -1\nretry: 1.5\nretry: \nretry: 1s\ndata: a\n\n": {"|a||1.5s"},
		"retry: 99999999999999999999999\ndata: a\n\n":                         {"|a||" + (time.Duration(math.MaxInt64/1_000_000) * time.Millisecond).String()},
		"Data: a\ndata : b\ndatum: c\n data: d\n\n":                           nil,
		"data: a: b\n\n":            {"|a: b"},
		"data: \xff\x00\n\n":        {"|\xff\x00"},
		"data: a\n":                 {"|a|partial"},
		"data: a":                   {"|a|partial"},
		"data: a\r":                 {"|a|partial"},
		"data: a\n\ndata: [DONE]":   {"|a", "|[DONE]|partial"},
		"data: a\n\ndata: {\"b\": ": {"|a", "|{\"b\": |partial"},
		"data: a\n\nevent: b\n":     {"|a"},
		"data: a\n\ndat":            {"|a"},
		"data: a\n\ndata":           {"|a", "||partial"},
	} {
		for name, body := range map[string]io.Reader{
			"whole": strings.NewReader(text), "bytes": iotest.OneByteReader(strings.NewReader(text)),
			"end with data": iotest.DataErrReader(strings.NewReader(text)), "half": iotest.HalfReader(strings.NewReader(text)),
		} {
			got, err := told(stream.SSE(body))
			require.NoError(t, err, "%s %q", name, text)
			require.Equal(t, want, got, "%s %q", name, text)
		}
	}
}

func TestSSE_YieldsAnEventAsSoonAsItIsComplete(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"\n", "\r\n", "\r"} {
		read, write := io.Pipe()
		next, stop := iter.Pull2(stream.SSE(read))
		go func() { _, _ = write.Write([]byte("data: a" + end + end)) }()
		event, err, ok := next() // would wait for ever for what comes behind a CR
		require.True(t, ok)
		require.NoError(t, err)
		require.True(t, event.Is("a"))
		stop()
		_, err = write.Write([]byte("x"))
		require.ErrorIs(t, err, io.ErrClosedPipe, "the end of the loop closes the body")
	}
}

func TestSSE_EventsKeepTheirData(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	const n = 20_000
	for i := range n {
		fmt.Fprintf(&text, "data: %d\n\n", i)
	}
	var all []stream.Event
	for event, err := range stream.SSE(iotest.HalfReader(&text)) {
		require.NoError(t, err)
		all = append(all, event)
	}
	require.Len(t, all, n)
	for i, event := range all {
		require.True(t, event.Is(strconv.Itoa(i)))
	}
}

// failing reads text, and then fails.
type failing struct {
	io.Reader
	err error
}

func (f failing) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = f.err
	}
	return n, err
}

// counting reads n bytes, whatever there is room for.
type counting int

func (c counting) Read([]byte) (int, error) { return int(c), nil }

// Variants: a connection that is cut behind an event, within one and at once; a body that gives nothing, that counts wrong; nil
// and bad arguments.
func TestSSE_ErrorIsTheLastItem(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{"data: a\n\n": {"|a"}, "data: a\n\ndata: b": {"|a"}, "data: a\n\ndata: b\n": {"|a"}, "": nil} {
		got, err := told(stream.SSE(failing{strings.NewReader(text), io.ErrUnexpectedEOF}))
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.Equal(t, want, got)
	}
	for body, want := range map[io.Reader]error{nothing{}: io.ErrNoProgress, nil: registry.ErrInvalid} {
		_, err := told(stream.SSE(body))
		require.ErrorIs(t, err, want)
	}
	for _, n := range []counting{-1, math.MaxInt} {
		_, err := told(stream.SSE(n))
		require.ErrorContains(t, err, "of at most")
	}
	for _, most := range []int{0, -1} {
		_, err := told(stream.SSE(strings.NewReader("data: a\n\n"), stream.MaxEventBytes(most)))
		require.ErrorIs(t, err, registry.ErrInvalid)
		require.ErrorContains(t, err, "MaxEventBytes")
	}
	got, err := told(stream.SSE(strings.NewReader("data: a\n\n"), nil))
	require.NoError(t, err)
	require.Equal(t, []string{"|a"}, got)
}

// endless repeats its bytes for ever.
type endless string

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e[i%len(e)]
	}
	return len(p), nil
}

// Variants: one line of data, many, a comment, a name, a line of no field; without a line end and with many.
func TestSSE_BoundsWhatOneEventHolds(t *testing.T) {
	t.Parallel()
	const most = 1000
	for _, text := range []string{"data: xxxxxx", "data: x\n", ":xxxxxxxx", "event: xxxxx", "xxxxxx", "event: x\n", "id: x\r\n"} {
		head := "data: a\n\n"
		got, err := told(stream.SSE(io.MultiReader(strings.NewReader(head), endless(text)), stream.MaxEventBytes(most)))
		require.ErrorIs(t, err, stream.ErrEventTooLarge, text)
		require.ErrorContains(t, err, "more than 1000 bytes")
		require.Equal(t, verdict.ClassMalformed, verdict.Of(err).Class)
		require.Equal(t, []string{"|a"}, got)
	}
	fits := "data: " + strings.Repeat("x", most-len("data: "))
	comment := ":" + strings.Repeat("x", most-1)
	for _, reader := range []func(io.Reader) io.Reader{iotest.OneByteReader, func(r io.Reader) io.Reader { return r }} {
		for text, within := range map[string]bool{
			strings.Repeat(comment+"\n"+fits+"\n"+comment+"\n\n", 3): true,
			fits + "x\n\n": false, fits + "x": false, comment + "x\n\n": false, comment + "x": false,
			fits + "\nid\n\n": false,
		} {
			_, err := told(stream.SSE(reader(strings.NewReader(text)), stream.MaxEventBytes(most)))
			require.Equal(t, !within, errors.Is(err, stream.ErrEventTooLarge), text)
		}
	}
	big := "data: " + strings.Repeat("x", 10<<20) + "\n\n"
	got, err := told(stream.SSE(strings.NewReader(big)))
	require.NoError(t, err)
	require.Len(t, got, 1)
	_, err = told(stream.SSE(endless("data: xxxxxx")))
	require.ErrorIs(t, err, stream.ErrEventTooLarge, "by default as well")
}

// A stream over real HTTP whose server leaves out what should end it, hangs up in the middle, or goes on behind the mark.
func TestSSE_OverHTTP(t *testing.T) {
	t.Parallel()
	text := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, text)
		if strings.HasSuffix(text, "!") {
			panic(http.ErrAbortHandler)
		}
	}))
	defer server.Close()
	reg, err := registry.New(registry.Options{})
	require.NoError(t, err)
	clients := registry.NewService[*http.Client]("clients")
	_, err = clients.Register(t.Context(), reg, registry.Provider[*http.Client]{Name: "a", Instance: server.Client()})
	require.NoError(t, err)
	for _, c := range []struct {
		text string
		want []string
		err  error
	}{
		{"data:a\r\n\r\ndata:[DONE]", []string{"|a", "|[DONE]|partial"}, nil},
		{"data: a\n\ndata: [DONE]\n\ndata: usage\n\n", []string{"|a", "|[DONE]", "|usage"}, nil},
		{"data: a\n\ndata: b\n\n", []string{"|a", "|b"}, stream.ErrTruncated},
		{strings.Repeat("data: a\n\n", 1000) + "data: b!", []string{"|a"}, io.ErrUnexpectedEOF},
	} {
		text = c.text
		s, err := stream.Open(t.Context(), clients.Bind(reg, registry.Query{}), func(ctx context.Context, client *http.Client) (iter.Seq2[stream.Event, error], error) {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
			if err != nil {
				return nil, err
			}
			response, err := client.Do(request) //nolint:bodyclose // SSE does
			if err != nil {
				return nil, err
			}
			return stream.SSE(response.Body), nil
		}, stream.Options[stream.Event]{Last: func(e stream.Event) bool { return e.Is("[DONE]") }})
		require.NoError(t, err)
		got, err := told(s.All())
		require.ErrorIs(t, err, c.err)
		if len(got) > 900 {
			got = got[:1]
		}
		require.Equal(t, c.want, got)
	}
	require.NoError(t, reg.Close(t.Context()))
}
