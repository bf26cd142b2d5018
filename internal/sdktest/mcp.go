package sdktest

import (
	"bytes"
	"context"
	"net/http"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

func mcpClients() []Client {
	tools := mcpTools()
	c := Client{Name: "MCP go-sdk", Module: "github.com/modelcontextprotocol/go-sdk", Retries: "`MaxRetries: -1`"}
	w := web{
		says: mcpSays, ask: askMCP, part: `{"jsonrpc":"2.0","id":2,"resu`,
		streamKind: "text/event-stream", stream: "event: message\n" + `data: {"jsonrpc":"2.0","id":2,"error":{"code":-32603,"message":"busy"}}` + "\n\n",
		keep: []int{http.StatusNotFound, http.StatusMethodNotAllowed},
		pass: func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			if r.Method == http.MethodPost && bytes.Contains(body, []byte(`"tools/call"`)) {
				return false
			}
			again := r.Clone(r.Context())
			again.Body = http.NoBody
			if len(body) > 0 {
				again.Body = readCloser{bytes.NewReader(body)}
			}
			tools.ServeHTTP(w, again)
			return true
		},
	}
	c.try = w.try
	return []Client{c, through(c, w)}
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

// mcpTools returns a server that opens sessions. It never sees a call: those are what fails.
func mcpTools() http.Handler {
	return mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server {
		return mcp.NewServer(&mcp.Implementation{Name: "tools", Version: "1"}, nil)
	}, &mcp.StreamableHTTPOptions{Stateless: true, JSONResponse: true})
}

func mcpSays(fault Fault) (status int, body any, ok bool) {
	switch fault.Problem {
	case Plain, Large, Limit:
	default:
		return 0, nil, false
	}
	code := map[int]int{http.StatusBadRequest: -32602, http.StatusNotImplemented: -32601}[fault.Status]
	if code == 0 {
		return 0, object{"message": "text of the server"}, true
	}
	return 0, object{"jsonrpc": "2.0", "id": 2, "error": object{"code": code, "message": "text of the server"}}, true
}

func askMCP(ctx context.Context, p place, _ bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client := mcp.NewClient(&mcp.Implementation{Name: "client", Version: "1"}, nil)
	session, err := client.Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint: p.url, HTTPClient: p.client, MaxRetries: -1, DisableStandaloneSSE: true,
	}, nil)
	if err != nil {
		return err
	}
	_, err = session.CallTool(ctx, &mcp.CallToolParams{Name: "tool"})
	_ = session.Close()
	return err
}
