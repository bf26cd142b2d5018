// Command rest is a client of a REST API that three upstreams serve, none of which can be
// relied on: one has an outage, one limits the rate, one hangs now and then.
//
// It starts the upstreams itself, places orders with POST, which must not happen twice,
// reads them with GET, which may be repeated, and prints every call that was not answered
// at once. upstream.go has the servers.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/verdict"
)

// Orders is the service: its providers are clients of the upstreams.
var Orders = registry.NewService[*Upstream]("orders")

// attemptTimeout bounds a request to one upstream, callTimeout a call in all.
const (
	attemptTimeout = 250 * time.Millisecond
	callTimeout    = 5 * time.Second
)

// Order is a resource of the API.
type Order struct {
	ID   int    `json:"id"`
	Item string `json:"item"`
}

// Client reads and places orders with whichever upstream can.
type Client struct {
	upstreams *registry.Resolver[*Upstream]
	report    func(what string, r registry.CallReport, err error)
}

// NewClient registers the upstreams. The first is the favourite; the others take turns
// while it cannot answer.
func NewClient(ctx context.Context, reg *registry.Registry, report func(string, registry.CallReport, error), urls ...string) (*Client, error) {
	for i, url := range urls {
		p := registry.Provider[*Upstream]{
			Name: fmt.Sprintf("upstream-%d", i+1), Endpoint: url, AttemptTimeout: attemptTimeout,
			Factory: func(context.Context) (*Upstream, error) {
				return &Upstream{url, http.Client{Transport: &http.Transport{}}}, nil // connections of its own
			},
			Breaker: registry.BreakerPolicy{FailureThreshold: 3, RecoveryTimeout: time.Second, SuccessThreshold: 2},
		}
		if i > 0 {
			p.Group, p.Strategy = 1, registry.StrategyRoundRobin
		}
		if _, err := Orders.Register(ctx, reg, p); err != nil {
			return nil, err
		}
	}
	return &Client{Orders.Bind(reg, registry.Query{}), report}, nil
}

// Get reads an order: reading changes nothing, so after any failure the next upstream is
// asked. A 404 is the answer, not a failure.
func (c *Client) Get(ctx context.Context, id int) (Order, error) {
	return c.call(ctx, http.MethodGet, fmt.Sprintf("/orders/%d", id), nil)
}

// Place places an order once. Where it is not known whether that was done, it reads the
// order before it tries again.
func (c *Client) Place(ctx context.Context, o Order) (placed Order, err error) {
	body, err := json.Marshal(o)
	if err != nil {
		return Order{}, err
	}
	for range 3 {
		if placed, err = c.call(ctx, http.MethodPost, "/orders", body, registry.OnceOnly()); err == nil {
			return placed, nil
		}
		if placed, err := c.Get(ctx, o.ID); !isAbsent(err) {
			return placed, err
		}
	}
	return Order{}, err
}

// call calls one upstream after the other, within its time. A once-only call moves on only
// where an upstream says that it has done nothing, such as with 429. When all are away it
// waits for the first that comes back, as Retry-After says.
func (c *Client) call(ctx context.Context, method, path string, body []byte, options ...registry.CallOption) (Order, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var report registry.CallReport
	o, err := registry.Call(ctx, c.upstreams, func(ctx context.Context, u *Upstream) (Order, error) {
		return u.do(ctx, method, path, body)
	}, append(options, registry.WaitForCooldown(), registry.ReportTo(&report))...)
	c.report(method+" "+path, report, err)
	return o, err
}

// isAbsent reports whether the answer is that there is no such order. The last attempt has
// the answer; errors.As would find the error of the first, which may have been a failure.
func isAbsent(err error) bool {
	var failed *registry.CallError
	return errors.As(err, &failed) && len(failed.Attempts) > 0 &&
		failed.Attempts[len(failed.Attempts)-1].Class == verdict.ClassResource
}

// Upstream is a server of the API.
type Upstream struct {
	url    string
	client http.Client
}

// do makes one request and reads the answer, within the time of the attempt.
func (u *Upstream) do(ctx context.Context, method, path string, body []byte) (o Order, err error) {
	request, err := http.NewRequestWithContext(ctx, method, u.url+path, bytes.NewReader(body))
	if err != nil {
		return o, err
	}
	response, err := u.client.Do(request)
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if err := verdict.FromResponse(response); err != nil {
		return o, err // its status, code and Retry-After say what it means
	}
	return o, json.NewDecoder(response.Body).Decode(&o)
}

// Close closes the idle connections; the registry calls it, as its factory made the client.
func (u *Upstream) Close() error { //nolint:unparam // an io.Closer
	u.client.CloseIdleConnections()
	return nil
}

// reporter prints the attempts of every call that was not answered at once.
func reporter(out io.Writer) func(what string, r registry.CallReport, err error) {
	return func(what string, r registry.CallReport, err error) {
		if len(r.Attempts) == 1 && err == nil {
			return
		}
		var line strings.Builder
		for _, attempt := range r.Attempts {
			fmt.Fprintf(&line, "  %s: %v (%s)", attempt.Provider, attempt.Class, attempt.Why)
		}
		_, _ = fmt.Fprintf(out, "%-14s%s\n", what, line.String())
	}
}

// run places and reads orders, every fourth time one that is not there, and prints an account.
func run(ctx context.Context, out io.Writer, rounds int) (err error) {
	api := startAPI()
	defer api.close()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.Close(context.WithoutCancel(ctx))) }()
	client, err := NewClient(ctx, reg, reporter(out), api.urls()...)
	if err != nil {
		return err
	}
	answered, absent, lost := 0, 0, 0
	for n := 1; n <= rounds; n++ {
		_, placing := client.Place(ctx, Order{n, "tea"})
		wanted := n
		if n%4 == 0 {
			wanted = rounds + n
		}
		_, reading := client.Get(ctx, wanted)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for _, err := range []error{placing, reading} {
			switch {
			case err == nil:
				answered++
			case isAbsent(err):
				answered, absent = answered+1, absent+1
			default:
				lost++
			}
		}
	}
	_, err = fmt.Fprintf(out, "\n%s\n%s; %d reads were answered that there is none\nrequests %d answered %d lost %d\n",
		client.upstreams.Explain(), api, absent, 2*rounds, answered, lost)
	return err
}

func main() {
	if err := run(context.Background(), os.Stdout, 20); err != nil {
		fmt.Fprintln(os.Stderr, "rest:", err)
		os.Exit(1)
	}
}
