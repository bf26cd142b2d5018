package wire_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/contrib/mcp/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// process is the other end of the streams.
type process struct {
	reads  *io.PipeReader
	writes *io.PipeWriter

	mu      sync.Mutex
	garbage []string
	ended   []error
}

func connect(t *testing.T, maxMessage int) (*process, mcp.Connection) {
	t.Helper()
	p := &process{}
	var stdio wire.Stdio
	p.reads, stdio.In = io.Pipe()
	stdio.Out, p.writes = io.Pipe()
	stdio.MaxMessage = maxMessage
	stdio.Garbage = func(line string) { p.note(func() { p.garbage = append(p.garbage, line) }) }
	stdio.Ended = func(err error) { p.note(func() { p.ended = append(p.ended, err) }) }
	c, err := stdio.Connect(t.Context())
	require.NoError(t, err)
	require.Empty(t, c.SessionID())
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return p, c
}

func (p *process) note(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

func request(id string) string { return fmt.Sprintf(`{"jsonrpc":"2.0","id":%q,"method":"ping"}`, id) }

func TestStdio_SkipsWhatIsNoMessage(t *testing.T) {
	t.Parallel()
	p, c := connect(t, 1<<20)
	long := strings.Repeat("log ", 100_000)
	go func() {
		_, _ = io.WriteString(p.writes, "listening\r\n\n  \t\n{\"half\n"+request("1")+"\r\n"+long+"\n \t"+request("2")+"\n[]\nnull\n"+request("3")+"\n")
	}()
	for _, want := range []string{"1", "2", "3"} {
		message, err := c.Read(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, message.(*jsonrpc.Request).ID.Raw())
	}
	require.Equal(t, []string{"listening", `{"half`, long[:512], "[]", "null"}, p.garbage)
	require.Empty(t, p.ended)
}

func TestStdio_SaysWhyNothingMoreCanBeRead(t *testing.T) {
	t.Parallel()
	for want, write := range map[string]func(p *process) error{
		"it has closed its output: EOF": func(p *process) error { return p.writes.Close() },
		"a message is longer than 1024 bytes": func(p *process) error {
			_, err := io.WriteString(p.writes, "{"+strings.Repeat("x", 200_000))
			return err
		},
		"disk is gone": func(p *process) error { return p.writes.CloseWithError(errors.New("disk is gone")) },
		"1000 lines in a row are no messages: the ser": func(p *process) error { _, err := io.WriteString(p.writes, strings.Repeat("x\n", 1000)); return err },
	} {
		p, c := connect(t, 1024)
		go func() { _ = write(p) }()
		_, err := c.Read(t.Context())
		require.ErrorContains(t, err, want)
		require.Equal(t, []error{err}, p.ended)
	}
}

func TestStdio_AWriteEndsWithItsContextAndSpoilsNothing(t *testing.T) {
	t.Parallel()
	p, c := connect(t, 1<<20)
	message, err := jsonrpc.DecodeMessage([]byte(request("1")))
	require.NoError(t, err)
	require.NoError(t, c.Write(t.Context(), message), "it is written when the process reads")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, c.Write(ctx, message), context.DeadlineExceeded)
	go func() { _ = c.Write(t.Context(), message) }()
	got := make([]byte, 2*len(`{"jsonrpc":"2.0","id":"1","method":"ping"}`)+2)
	_, err = io.ReadFull(p.reads, got)
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(string(got), "\n"))
	require.NoError(t, c.Close())
	require.Error(t, c.Write(t.Context(), message))
}

func TestStdio_ClosingEndsReadsAndWrites(t *testing.T) {
	t.Parallel()
	p, c := connect(t, 1<<20)
	message, err := jsonrpc.DecodeMessage([]byte(request("1")))
	require.NoError(t, err)
	errs := make(chan error, 3)
	go func() { _, err := c.Read(t.Context()); errs <- err }()
	for range 2 { // the first is handed over
		go func() { errs <- c.Write(context.Background(), message) }()
	}
	require.NoError(t, <-errs)
	require.NoError(t, c.Close())
	require.Error(t, <-errs)
	require.Error(t, <-errs)
	require.Empty(t, p.ended, "this end has closed it")
}

func TestStdio_AProcessThatDoesNotReadAnyMoreEndsTheConnection(t *testing.T) {
	t.Parallel()
	p, c := connect(t, 1<<20)
	require.NoError(t, p.reads.Close())
	message, err := jsonrpc.DecodeMessage([]byte(request("1")))
	require.NoError(t, err)
	require.NoError(t, c.Write(t.Context(), message))
	_, err = c.Read(t.Context())
	require.Error(t, err)
}
