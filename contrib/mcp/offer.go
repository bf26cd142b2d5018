package registrymcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/verdict"
)

// codeUnavailable is the code of JSON-RPC with which a tool of [Offer] says that no provider could be asked, one of those
// that servers may choose. Its data are unavailableData.
const codeUnavailable = -32050

// unavailableData says when to ask again.
type unavailableData struct {
	RetryAfterMS int64 `json:"retry_after_ms,omitempty"`
}

// Offer adds a tool to an MCP server whose calls are calls of a service: call runs on the best provider, and on the next
// one where the outcome allows it. The schemas come from the Go types In and Out where the tool has none; In is a struct
// or a map, and the tags json and jsonschema name and describe its fields.
//
// A tool that is not annotated as reading only or idempotent is called with [registry.OnceOnly]. The client's
// cancellation is that of the context, and [ReportProgress] tells the client of progress, where it wants to know. An error
// is a result with IsError, for the model to read; when no provider could be asked, an error of JSON-RPC with the code
// -32050 and the delay, which [Components] understands. A panic is an error.
//
// The error is of a nil argument, or of types that have no schema, and matches [registry.ErrInvalid].
func Offer[T, In, Out any](
	s *mcp.Server, tool *mcp.Tool, resolver *registry.Resolver[T], call func(ctx context.Context, provider T, in In) (Out, error),
	options ...registry.CallOption,
) error {
	for _, argument := range []struct {
		name  string
		isNil bool
	}{{"s", s == nil}, {"tool", tool == nil}, {"resolver", resolver == nil}, {"call", call == nil}} {
		if argument.isNil {
			return &registry.FieldError{Field: argument.name, Value: "nil", Bound: "one", Err: registry.ErrInvalid}
		}
	}
	options = slices.Clone(options)
	if !IsRepeatable(tool) {
		options = append(options, registry.OnceOnly())
	}
	handle := func(ctx context.Context, request *mcp.CallToolRequest, in In) (_ *mcp.CallToolResult, out Out, err error) {
		err = fault.Run(func() (err error) {
			out, err = registry.Call(reporting(ctx, request), resolver, func(ctx context.Context, provider T) (Out, error) {
				return call(ctx, provider, in)
			}, options...)
			return err
		})
		return &mcp.CallToolResult{}, out, forClient(err)
	}
	// The SDK panics where a type has no schema.
	if err := fault.Run(func() error { mcp.AddTool(s, tool, handle); return nil }); err != nil {
		return fault.Join(fmt.Sprintf("tool %q: ", tool.Name), []error{err, registry.ErrInvalid})
	}
	return nil
}

// reporting returns a context whose progress goes to the client, where it wants to know.
func reporting(ctx context.Context, request *mcp.CallToolRequest) context.Context {
	token := request.Params.GetProgressToken()
	if token == nil {
		return ctx
	}
	return WithProgress(ctx, func(p Progress) {
		_ = request.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{
			ProgressToken: token, Progress: p.Done, Total: p.Total, Message: p.Message,
		}) // a client that is gone is told by the end of ctx
	})
}

// forClient returns an error as a client is to see it.
func forClient(err error) error {
	if err == nil {
		return nil
	}
	text := fault.Text(err)
	var unavailable *registry.UnavailableError
	if v := verdict.Of(err); v.Class == verdict.ClassOverloaded || v.Class == verdict.ClassRateLimited || errors.As(err, &unavailable) {
		after := v.After
		if unavailable != nil {
			after = unavailable.RetryIn
		}
		data, _ := json.Marshal(unavailableData{RetryAfterMS: int64(after / time.Millisecond)})
		return &jsonrpc.Error{Code: codeUnavailable, Message: text, Data: data}
	}
	return errors.New(text)
}
