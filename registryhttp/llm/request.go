package llm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/capreg/registry/internal/jsontext"
)

// Request holds what the body of a request says about its way.
type Request struct {
	// Model is the name of the model.
	Model string
	// Stream reports that the answer is to come piece by piece.
	Stream bool
	// Continues is the identifier of the answer or the conversation that the request continues, which only the server
	// that made it knows. Empty: none.
	Continues string

	body     []byte
	from, to int // where the name of the model stands in body
	choices  int // of the answer
}

var (
	errNoObject = errors.New("the body is no JSON object")
	errNoModel  = errors.New("model is missing, not a string, or there twice, in whatever case")
	errNoStream = errors.New("stream is neither true nor false")
)

// ParseRequest reads the body of a request, and keeps it. An error is the mistake of its sender.
func ParseRequest(body []byte) (Request, error) {
	r := Request{body: body, choices: 1}
	models, many, named, streams := 0, false, true, true
	object := jsontext.Object(body, func(key []byte, from, to int) {
		value := body[from:to]
		switch string(key) {
		case "model":
			models++
			r.from, r.to = from, to
			named = named && readText(value, &r.Model)
		case "stream":
			r.Stream = string(value) == "true"
			streams = streams && (r.Stream || string(value) == "false" || string(value) == "null")
		case "n":
			many = json.Unmarshal(value, &r.choices) != nil || many // the server may read a number in other texts
		case "prompt":
			many = value[0] == '[' || many // one for each, or a list of numbers
		case "previous_response_id", "conversation":
			r.Continues = identifier(value)
		default:
			if bytes.EqualFold(key, []byte("model")) { // which some servers read as the name, whatever the route allows
				models += 2
			}
		}
	})
	if many {
		r.choices = math.MaxInt // the end mark tells
	}
	switch {
	case !object:
		return Request{body: body, choices: 1}, errNoObject
	case !streams:
		return r, errNoStream
	case models != 1 || !named || r.Model == "":
		return r, errNoModel
	}
	return r, nil
}

// readText reads a text, and reports whether the valid value is one.
func readText(value []byte, text *string) bool {
	if value[0] == '"' && bytes.IndexByte(value, '\\') < 0 && utf8.Valid(value) {
		*text = string(value[1 : len(value)-1])
		return true
	}
	return json.Unmarshal(value, text) == nil
}

// identifier reads a text, or the field id of an object.
func identifier(value []byte) string {
	var object struct {
		ID string `json:"id"`
	}
	if json.Unmarshal(value, &object.ID) != nil {
		_ = json.Unmarshal(value, &object) // else there is none
	}
	return object.ID
}

// Body returns the body for a model: all but its name is as it was sent, byte by byte.
func (r Request) Body(model string) (body io.Reader, length int64) {
	if model == r.Model {
		return bytes.NewReader(r.body), int64(len(r.body))
	}
	name, _ := json.Marshal(model) // a text always has a form
	if len(r.body) <= shortBody {
		text := slices.Concat(r.body[:r.from], name, r.body[r.to:]) // net/http sends one that it knows to be there in one piece
		return bytes.NewReader(text), int64(len(text))
	}
	body = io.MultiReader(bytes.NewReader(r.body[:r.from]), bytes.NewReader(name), bytes.NewReader(r.body[r.to:]))
	return body, int64(len(r.body) - (r.to - r.from) + len(name))
}

// wayKey is the key under which a context has a request on its way.
type wayKey struct{}

// onItsWay describes the request that an HTTP request has as its body, for those that handle it on its way.
type onItsWay struct {
	asked  *Request
	report *Report // nil without a [Proxy]
}

// WithRequest returns a context with the request that an HTTP request has as its body, so that a [Transport] need not
// read it again. It replaces that of a [Proxy], whose report goes on.
func WithRequest(ctx context.Context, r Request) context.Context {
	on := &onItsWay{asked: &r}
	if before, ok := ctx.Value(wayKey{}).(*onItsWay); ok {
		on.report = before.report
	}
	return context.WithValue(ctx, wayKey{}, on)
}
