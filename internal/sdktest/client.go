package sdktest

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/capreg/registry/verdict"
)

// Client is one column of the table: a real client.
type Client struct {
	// Name tells the clients apart, and Module has the client.
	Name, Module string
	// Retries says how the client's own retries are off, or what it does.
	Retries string
	// LLM marks clients of APIs of language models.
	LLM bool

	try func(ctx context.Context, fault Fault) (Outcome, error)
}

// Outcome holds the error of a client and the number of its requests.
type Outcome struct {
	// Played is false where the API has no such answer.
	Played bool
	// Err is the error of the client.
	Err error
	// Requests is the number of requests that reached the server.
	Requests int64
}

// web is a client of an HTTP API.
type web struct {
	// says returns the body of a refusal, and the status where the API uses another one; false where the API has no
	// such answer.
	says func(Fault) (status int, body any, ok bool)
	// stream is the kind and the body of a stream that ends with an error; empty where there is none.
	streamKind, stream string
	// part is the start of a good answer.
	part string
	// ask sends one request, and reads the answer.
	ask func(ctx context.Context, p place, stream bool) error
	// pass answers requests that the faults are not about.
	pass func(http.ResponseWriter, *http.Request, []byte) bool
	// asErrors lets the client have refusals as errors of its transport.
	asErrors bool
	keep     []int
}

func (w web) reply(fault Fault) (reply answer, ok bool) {
	reply = answer{status: fault.Status, kind: "application/json"}
	if fault.Header != nil {
		reply.header = fault.Header()
	}
	switch fault.Trouble {
	case HTML:
		reply.kind, reply.body = "text/html; charset=utf-8", page
		return reply, true
	case InStream:
		reply.kind, reply.body = w.streamKind, w.stream
		return reply, w.stream != ""
	case Cut:
		reply.body = w.part
		return reply, true
	case None:
	default:
		return reply, true
	}
	status, body, ok := w.says(fault)
	if !ok {
		return reply, false
	}
	if status != 0 {
		reply.status = status
	}
	encoded, err := json.Marshal(body)
	reply.body = string(encoded)
	return reply, err == nil
}

func (w web) try(ctx context.Context, fault Fault) (Outcome, error) {
	reply, ok := w.reply(fault)
	if !ok {
		return Outcome{}, nil
	}
	s := startServer(fault, reply, w.pass)
	defer s.Close()
	p, end, err := placeOf(ctx, fault, s.URL)
	if err != nil {
		return Outcome{}, err
	}
	defer end()
	if w.asErrors {
		p.client.Transport = &verdict.ErrorTransport{Base: p.client.Transport, Keep: w.keep}
	}
	err = w.ask(ctx, p, fault.Trouble == InStream)
	return Outcome{Played: true, Err: err, Requests: s.requests.Load()}, nil
}

// Try plays a fault to the client, on servers that it starts and ends.
func (c Client) Try(ctx context.Context, fault Fault) (Outcome, error) { return c.try(ctx, fault) }

// object is one of JSON.
type object = map[string]any

// Clients returns the columns of the table.
func Clients() []Client {
	var all []Client
	for _, some := range [][]Client{openAIClients(), anthropicClients(), googleClients(), otherModels(), awsClients(), webClients(), mcpClients(), postgresClients(), grpcClients()} {
		all = append(all, some...)
	}
	return all
}
