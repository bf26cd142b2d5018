package registrymcp

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/verdict"
)

// ErrDown is matched by the error of a call that a server could not answer, since it was down, or went down meanwhile; the
// text has the reason.
var ErrDown = errors.New("MCP server is down")

// downError returns the error of a call while there is no connection.
func (s *server) downError() error { return s.lost(cmp.Or(s.catalog.reason(), errNotYet)) }

// lost returns an error that matches [ErrDown] and has a reason.
func (s *server) lost(why error) error { return &lostError{server: s.Name, why: fault.Bound(why)} }

// lostError is a server that is down, or went down.
type lostError struct {
	server string
	why    error
}

// Error names the server and the reason.
func (e *lostError) Error() string {
	return fmt.Sprintf("%v: %s: %s", ErrDown, oneline.Cut(e.server, 100), oneline.Cut(fault.Text(e.why), 300))
}

// Unwrap returns ErrDown and the reason.
func (e *lostError) Unwrap() []error { return []error{ErrDown, e.why} }

// judge returns the error of a call with what is known of it:
//
//	the caller's context has ended             | that
//	it was not sent, and the server is down    | not for it: the next provider is asked
//	it was sent, and the server is down        | removed: it may have been processed
//	invalid parameters, and no such tool       | not for it
//	unavailable, by a server that [Offer] made | overloaded, with its delay
//	another code of JSON-RPC                   | by that code, or a server error
//	a status of HTTP, an error of the network  | by that, else transport
//
// That a server is down is no fault of the tool that was called: its breaker is not told, since the tools are marked out.
func (c *connection) judge(ctx context.Context, err error, name string, unknownSession bool) error {
	var answer *jsonrpc.Error
	switch {
	case ctx.Err() != nil:
		return err
	case errors.Is(err, mcp.ErrConnectionClosed), unknownSession:
		return verdict.Cannot(c.server.lost(err))
	case errors.As(err, &answer):
		return c.judgeAnswer(ctx, answer, err, name)
	}
	switch v := verdict.Of(err); v.Class { //nolint:exhaustive // the others are answers
	case verdict.ClassNotSent:
		if !c.isAlive(ctx) {
			return verdict.Cannot(c.server.lost(err))
		}
	case verdict.ClassUnknown, verdict.ClassTransport:
		if !c.isAlive(ctx) {
			return verdict.As(c.server.lost(err), verdict.Verdict{Class: verdict.ClassRemoved})
		}
		return verdict.As(err, verdict.Verdict{Class: verdict.ClassTransport})
	}
	return err
}

// judgeAnswer judges an error that the server has answered with.
func (c *connection) judgeAnswer(ctx context.Context, answer *jsonrpc.Error, err error, name string) error {
	switch {
	case answer.Code == jsonrpc.CodeInvalidParams:
		// The same code is for arguments and for the name of the tool.
		if list, listErr := c.list(ctx); listErr == nil && list[name] == nil {
			c.wantList()
			return verdict.Cannot(fault.Wrap("its server does not list it any more: ", err))
		}
	case answer.Code == codeUnavailable:
		var data unavailableData
		_ = json.Unmarshal(answer.Data, &data) // without a delay the registry has one
		return verdict.As(err, verdict.Verdict{Class: verdict.ClassOverloaded, After: time.Duration(data.RetryAfterMS) * time.Millisecond})
	case verdict.Of(err).Class == verdict.ClassUnknown:
		return verdict.As(err, verdict.Verdict{Class: verdict.ClassServerError})
	}
	return err
}
