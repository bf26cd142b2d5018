//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/capreg/registry"
	registrymcp "github.com/capreg/registry/contrib/mcp"
)

// serveCommand lets this program be one of the servers.
const serveCommand = "serve"

// serve runs a server: its name, and for one of HTTP its address and the time that it is late.
func serve(arguments []string) error {
	if len(arguments) == 1 && arguments[0] == "files" {
		return filesServer().Run(context.Background(), &mcp.StdioTransport{})
	}
	if len(arguments) < 2 {
		return errors.New("want a name and an address")
	}
	if len(arguments) > 2 {
		late, err := time.ParseDuration(arguments[2])
		if err != nil {
			return err
		}
		<-time.After(late)
	}
	server := notesServer()
	if arguments[0] == "search" {
		var err error
		if server, err = searchServer(); err != nil {
			return err
		}
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", arguments[1])
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "listening")
	over := &http.Server{
		Handler:           mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, nil),
		ReadHeaderTimeout: 5 * time.Second,
	}
	return over.Serve(listener)
}

// freeAddress returns an address of this machine at which nothing listens.
func freeAddress() (string, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

var readOnly = &mcp.ToolAnnotations{ReadOnlyHint: true} //nolint:gochecknoglobals // immutable

// text is a result of one text.
func text(s string) *mcp.CallToolResult {
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: s}}}
}

// filesServer has files to read.
func filesServer() *mcp.Server {
	server := mcp.NewServer(&mcp.Implementation{Name: "files", Version: "1.0"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: "read", Description: "reads a file", Annotations: readOnly},
		func(_ context.Context, _ *mcp.CallToolRequest, in struct {
			Name string `json:"name"`
		},
		) (*mcp.CallToolResult, any, error) {
			<-time.After(10 * time.Millisecond)
			return text("what is in " + in.Name), nil, nil
		})
	mcp.AddTool(server, &mcp.Tool{Name: "pid", Description: "returns the number of its process", Annotations: readOnly},
		func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
			return text(strconv.Itoa(os.Getpid())), nil, nil
		})
	return server
}

// notesServer keeps notes.
func notesServer() *mcp.Server {
	server := mcp.NewServer(&mcp.Implementation{Name: "notes", Version: "1.0"}, nil)
	var mu sync.Mutex
	var notes []string
	mcp.AddTool(server, &mcp.Tool{Name: "add", Description: "adds a note"},
		func(_ context.Context, _ *mcp.CallToolRequest, in struct {
			Text string `json:"text"`
		},
		) (*mcp.CallToolResult, any, error) {
			mu.Lock()
			defer mu.Unlock()
			notes = append(notes, in.Text)
			return text("added"), nil, nil
		})
	mcp.AddTool(server, &mcp.Tool{Name: "count", Description: "counts the notes", Annotations: readOnly},
		func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
			mu.Lock()
			defer mu.Unlock()
			return text(strconv.Itoa(len(notes))), nil, nil
		})
	return server
}

// Index finds words.
type Index func(ctx context.Context, word string) (string, error)

// Indexes is the service behind the tool of the search server.
var Indexes = registry.NewService[Index]("indexes")

// searchServer offers a service of a registry as a tool: the indexes fail over behind it.
func searchServer() (*mcp.Server, error) {
	reg, err := registry.New(registry.Options{})
	if err != nil {
		return nil, err
	}
	for name, index := range map[string]registry.Provider[Index]{
		"near": {Instance: func(context.Context, string) (string, error) { return "", errors.New("the index is damaged") }},
		"far":  {Group: 1, Instance: func(_ context.Context, word string) (string, error) { return "three pages have " + word, nil }},
	} {
		index.Name = name
		if _, err := Indexes.Register(context.Background(), reg, index); err != nil {
			return nil, err
		}
	}
	server := mcp.NewServer(&mcp.Implementation{Name: "search", Version: "1.0"}, nil)
	type query struct {
		Word string `json:"word" jsonschema:"what to look for"`
	}
	type found struct {
		Pages string `json:"pages"`
	}
	return server, registrymcp.Offer(server, &mcp.Tool{Name: "find", Description: "finds pages", Annotations: readOnly}, Indexes.Bind(reg, registry.Query{}),
		func(ctx context.Context, index Index, in query) (found, error) {
			pages, err := index(ctx, in.Word)
			return found{pages}, err
		})
}
