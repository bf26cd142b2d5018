package registrymcp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/verdict"
)

// Tool is one tool of one server, the instance of a provider. Tests may have others.
type Tool interface {
	// Definition returns the tool as its server describes it: name, schemas, annotations. It is not to be changed.
	Definition() *mcp.Tool
	// Call calls the tool. arguments are an object: a struct, a map or [json.RawMessage]; nil is an empty one. It returns
	// when ctx ends, at the latest, and tells the server of that.
	Call(ctx context.Context, arguments any) (*mcp.CallToolResult, error)
}

// IsRepeatable reports whether a tool may be called a second time when it is not known what became of the first: its
// annotations say that it only reads, or that it is idempotent. They are the word of the server.
func IsRepeatable(tool *mcp.Tool) bool {
	return tool != nil && tool.Annotations != nil && (tool.Annotations.ReadOnlyHint || tool.Annotations.IdempotentHint)
}

var errArguments = errors.New("the arguments of a tool are a JSON object")

// encoded returns arguments as JSON, or the caller's mistake.
func encoded(arguments any) (json.RawMessage, error) {
	if arguments == nil {
		return json.RawMessage("{}"), nil
	}
	var text []byte
	if err := fault.Run(func() (err error) { text, err = json.Marshal(arguments); return err }); err != nil {
		return nil, verdict.Permanent(fault.Wrap("arguments of a tool: ", errors.Join(err, registry.ErrInvalid)))
	}
	switch text = bytes.TrimSpace(text); {
	case string(text) == "null":
		return json.RawMessage("{}"), nil
	case text[0] != '{':
		return nil, verdict.Permanent(errors.Join(errArguments, registry.ErrInvalid))
	}
	return text, nil
}

// remoteTool is a tool of a server of this package. It stays the same over the lives of the server.
type remoteTool struct {
	server     *server
	definition atomic.Pointer[mcp.Tool]

	lostIn atomic.Pointer[connection] // that ended last while it was called
	losses atomic.Int64               // connections in a row that did
}

// Definition returns the latest definition.
func (t *remoteTool) Definition() *mcp.Tool { return t.definition.Load() }

// Call calls the tool in the present connection to its server.
func (t *remoteTool) Call(ctx context.Context, arguments any) (*mcp.CallToolResult, error) {
	text, err := encoded(arguments)
	if err != nil {
		return nil, err
	}
	c := t.server.connection.Load()
	if c == nil {
		return nil, verdict.Cannot(t.server.downError())
	}
	result, err := c.call(ctx, t.Definition().Name, text)
	switch {
	case err == nil:
		t.losses.Store(0)
	case verdict.Of(err).Class == verdict.ClassRemoved && t.lostIn.Swap(c) != c:
		t.losses.Add(1)
	}
	if inspect := t.server.Inspect; err == nil && inspect != nil {
		err = fault.Run(func() error { return inspect(result) })
	}
	return result, err
}
