// Package sample has calls that the analyzer reports, and calls that it does not.
package sample

import (
	"bytes"
	"context"
	"database/sql"
	"io"
	"iter"
	"net"
	"net/http"
	"os"

	"github.com/capreg/registry"
	"github.com/capreg/registry/hedge"
	"github.com/capreg/registry/stream"
)

type (
	body    struct{ inner io.ReadCloser }
	answer  struct{ Text string }
	wrapped struct{ response *http.Response }
	nested  struct{ all []map[string]wrapped }
	looped  struct{ next *looped }
	cursor  struct{ rows }
	rows    interface {
		Next() bool
		Err() error
	}
	alias      = *http.Response
	grpcStream interface{ RecvMsg(message any) error }
)

func call[R any](r *registry.Resolver[int], f func(context.Context, int) (R, error)) (R, error) {
	return registry.Call(context.Background(), r, f) // what R is, is not known here
}

// Calls has the calls.
func Calls(ctx context.Context, r *registry.Resolver[int]) {
	_, _ = registry.Call(ctx, r, func(context.Context, int) (*http.Response, error) { return nil, nil })              // want `the result of registry.Call is a net/http.Response, which ends with the context of its function: read it inside the function, or use Acquire or package stream`
	_, _ = registry.Call(ctx, r, func(context.Context, int) (alias, error) { return nil, nil })                       // want `net/http.Response`
	_, _ = registry.Call(ctx, r, func(context.Context, int) (io.ReadCloser, error) { return nil, nil })               // want `a io.ReadCloser`
	_, _ = registry.Call(ctx, r, func(context.Context, int) (body, error) { return body{}, nil })                     // want `a struct with a io.ReadCloser in its field inner`
	_, _ = registry.Call(ctx, r, func(context.Context, int) (*nested, error) { return nil, nil })                     // want `in its field response in its field all`
	_, _ = registry.Call(ctx, r, func(context.Context, int) ([]*http.Response, error) { return nil, nil })            // want `net/http.Response`
	_, _ = registry.Call(ctx, r, func(context.Context, int) (*sql.Rows, error) { return nil, nil })                   // want `database/sql.Rows`
	_, _ = registry.Call(ctx, r, func(context.Context, int) (*sql.Row, error) { return nil, nil })                    // want `database/sql.Row`
	_, _ = registry.Call(ctx, r, func(context.Context, int) (*sql.Tx, error) { return nil, nil })                     // want `database/sql.Tx`
	_, _ = registry.Call(ctx, r, func(context.Context, int) (cursor, error) { return cursor{}, nil })                 // want `a cursor`
	_, _ = registry.Call(ctx, r, func(context.Context, int) (grpcStream, error) { return nil, nil })                  // want `a grpcStream`
	_, _ = registry.Call(ctx, r, func(context.Context, int) (<-chan string, error) { return nil, nil })               // want `a <-chan string`
	_, _ = registry.Call(ctx, r, func(context.Context, int) (iter.Seq[int], error) { return nil, nil })               // want `a iter.Seq\[int\]`
	_, _ = registry.Call(ctx, r, func(context.Context, int) (func(func(int, error) bool), error) { return nil, nil }) // want `a func`
	_, _ = registry.Call(ctx, r, func(ctx context.Context, _ int) (context.Context, error) { return ctx, nil })       // want `context.Context`
	_, _ = registry.Call(ctx, r, func(context.Context, int) (*stream.Stream[int], error) { return nil, nil })         // want `stream.Stream`
	f := registry.Call[int, *http.Response]                                                                           // want `net/http.Response`
	_ = f

	_, _ = registry.Call(ctx, r, func(context.Context, int) (string, error) { return "", nil })
	_, _ = registry.Call(ctx, r, func(context.Context, int) ([]byte, error) { return nil, nil })
	_, _ = registry.Call(ctx, r, func(context.Context, int) (*answer, error) { return nil, nil })
	_, _ = registry.Call(ctx, r, func(context.Context, int) (*bytes.Reader, error) { return nil, nil })
	_, _ = registry.Call(ctx, r, func(context.Context, int) (net.Conn, error) { return nil, nil })
	_, _ = registry.Call(ctx, r, func(context.Context, int) (*os.File, error) { return nil, nil })
	_, _ = registry.Call(ctx, r, func(context.Context, int) (*looped, error) { return nil, nil })
	_, _ = registry.Call(ctx, r, func(context.Context, int) (any, error) { return nil, nil })
	_, _ = registry.Call(ctx, r, func(context.Context, int) (http.Handler, error) { return nil, nil })
	_, _ = registry.Call(ctx, r, func(context.Context, int) (chan<- int, error) { return nil, nil })
	_, _ = call(r, func(context.Context, int) (*http.Response, error) { return nil, nil })
	_, _ = hedge.Call(ctx, r, hedge.Policy{}, func(context.Context, int) (*http.Response, error) { return nil, nil }) // its context lives on

	//registryvet:ignore the body is a buffer
	_, _ = registry.Call(ctx, r, func(context.Context, int) (*http.Response, error) { return nil, nil })
	_, _ = registry.Call(ctx, r, func(context.Context, int) (*http.Response, error) { return nil, nil }) //registryvet:ignore it was read
	//registryvet:ignore
	_, _ = registry.Call(ctx, r, func(context.Context, int) (*http.Response, error) { return nil, nil }) // want `net/http.Response`
}
