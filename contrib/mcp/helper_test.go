//go:build unix

package registrymcp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// helperMark is set for processes that run this test program as an MCP server, and says which one.
const helperMark = "MCP_TEST_SERVER"

// runServer is an MCP server of a kind; the arguments are of that kind.
func runServer(kind string, arguments []string) {
	var err error
	switch kind {
	case "stdio": // a name
		err = newServer(arguments[0]).Run(context.Background(), &mcp.StdioTransport{})
	case "http": // a name, and an address
		err = serveHTTP(newServer(arguments[0]), arguments[1])
	case "noisy": // as stdio, with other things on the standard output
		fmt.Println("starting up ... {not: json}")
		fmt.Println("{\"jsonrpc\": \"2.0\", broken")
		fmt.Println()
		err = newServer(arguments[0]).Run(context.Background(), &mcp.StdioTransport{})
	case "silent": // reads, and never answers
		_, err = io.Copy(io.Discard, os.Stdin)
	case "deaf": // reads nothing
		select {}
	case "babble": // writes what is no message, and nothing else
		for err == nil {
			_, err = fmt.Println("hello, I am no MCP server")
		}
	case "flood": // writes without an end of line
		chunk := make([]byte, 1<<20)
		for i := range chunk {
			chunk[i] = '{'
		}
		for err == nil {
			_, err = os.Stdout.Write(chunk)
		}
	case "script": // answers line by line, whatever it is asked
		err = runScript(arguments)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

// runScript answers each request with the next of its lines, which has ID in the place of the id.
func runScript(lines []string) error {
	requests := bufio.NewScanner(os.Stdin)
	for requests.Scan() {
		var request struct {
			ID json.RawMessage `json:"id"`
		}
		if err := json.Unmarshal(requests.Bytes(), &request); err != nil {
			return err
		}
		if request.ID == nil {
			continue
		}
		if len(lines) == 0 {
			select {}
		}
		fmt.Println(strings.ReplaceAll(lines[0], "ID", string(request.ID)))
		lines = lines[1:]
	}
	return requests.Err()
}

func serveHTTP(s *mcp.Server, address string) error {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "listening")
	return http.Serve(listener, mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return s }, nil))
}

type arguments struct {
	Text string `json:"text,omitempty"`
	N    int    `json:"n,omitempty"`
}

var (
	reads   = &mcp.ToolAnnotations{ReadOnlyHint: true}
	changes = &mcp.ToolAnnotations{}
)

// newServer returns a server whose tools do what their names say.
func newServer(name string) *mcp.Server {
	s := mcp.NewServer(&mcp.Implementation{Name: name, Version: "1.0"}, &mcp.ServerOptions{PageSize: 3})
	add := func(tool string, is *mcp.ToolAnnotations, f func(ctx context.Context, request *mcp.CallToolRequest, in arguments) (string, error)) {
		mcp.AddTool(s, &mcp.Tool{Name: tool, Annotations: is, Description: tool + " of " + name}, func(ctx context.Context, request *mcp.CallToolRequest, in arguments) (*mcp.CallToolResult, any, error) {
			text, err := f(ctx, request, in)
			if err != nil {
				return nil, nil, err
			}
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: text}}}, nil, nil
		})
	}
	add("echo", reads, func(_ context.Context, _ *mcp.CallToolRequest, in arguments) (string, error) {
		return name + ": " + in.Text, nil
	})
	add("pid", reads, func(context.Context, *mcp.CallToolRequest, arguments) (string, error) {
		return strconv.Itoa(os.Getpid()), nil
	})
	add("fail", reads, func(_ context.Context, _ *mcp.CallToolRequest, in arguments) (string, error) {
		return "", errors.New(in.Text)
	})
	add("big", reads, func(_ context.Context, _ *mcp.CallToolRequest, in arguments) (string, error) {
		return strings.Repeat("x", in.N), nil
	})
	add("die", reads, func(context.Context, *mcp.CallToolRequest, arguments) (string, error) { os.Exit(4); return "", nil })
	add("crash_after_write", changes, func(_ context.Context, _ *mcp.CallToolRequest, in arguments) (string, error) {
		file, err := os.OpenFile(in.Text, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = file.WriteString("x")
		}
		if err == nil {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return "", err
	})
	add("sleep", reads, func(ctx context.Context, request *mcp.CallToolRequest, in arguments) (string, error) {
		for i := range in.N {
			select {
			case <-time.After(time.Millisecond):
			case <-ctx.Done():
				return "", os.WriteFile(in.Text, []byte("cancelled"), 0o600)
			}
			if token := request.Params.GetProgressToken(); token != nil && i%10 == 0 {
				_ = request.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{ProgressToken: token, Progress: float64(i), Total: float64(in.N), Message: "asleep"})
			}
		}
		return "slept", nil
	})
	add("hang_up", changes, func(context.Context, *mcp.CallToolRequest, arguments) (string, error) {
		_, _ = os.Stdin.Close(), os.Stdout.Close() // and goes on running
		select {}
	})
	add("babble", reads, func(context.Context, *mcp.CallToolRequest, arguments) (string, error) {
		fmt.Println("a line of a log")
		return "said", nil
	})
	add("grow", changes, func(_ context.Context, _ *mcp.CallToolRequest, in arguments) (string, error) {
		add(in.Text, reads, func(context.Context, *mcp.CallToolRequest, arguments) (string, error) {
			return name + " has " + in.Text, nil
		})
		return "grown", nil
	})
	add("shrink", changes, func(_ context.Context, _ *mcp.CallToolRequest, in arguments) (string, error) {
		s.RemoveTools(in.Text)
		return "shrunk", nil
	})
	return s
}
