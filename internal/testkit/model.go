package testkit

import (
	"context"
	"errors"
	"time"

	"github.com/capreg/registry"
)

// ErrDown is the failure of providers that are down.
var ErrDown = errors.New("down")

// Chat is the service of most tests.
var Chat = registry.NewService[ChatModel]("chat")

// ChatModel is the interface of the service [Chat].
type ChatModel interface {
	Chat(ctx context.Context, prompt string) (string, error)
}

// ChatFunc is a function as a [ChatModel].
type ChatFunc func(ctx context.Context, prompt string) (string, error)

// Chat calls the function.
func (f ChatFunc) Chat(ctx context.Context, prompt string) (string, error) { return f(ctx, prompt) }

// Says returns a model that always gives the same answer.
func Says(answer string) ChatModel {
	return ChatFunc(func(context.Context, string) (string, error) { return answer, nil })
}

// Answers returns a model that calls a function for each answer.
func Answers(function func() (string, error)) ChatModel {
	return ChatFunc(func(context.Context, string) (string, error) { return function() })
}

// Fails returns a model that always fails.
func Fails(err error) ChatModel { return Answers(func() (string, error) { return "", err }) }

// FailsTimes returns a model that fails n times and answers from then on.
func FailsTimes(n int, answer string, err error) ChatModel {
	return Answers(func() (string, error) {
		if n--; n >= 0 {
			return "", err
		}
		return answer, nil
	})
}

// Settable returns a model that answers "fate", and a function that sets the error with which it fails
// instead, nil for none.
func Settable() (ChatModel, func(error)) {
	var next error
	return Answers(func() (string, error) { return "fate", next }), func(err error) { next = err }
}

// Hangs returns a model that returns only when its context ends.
func Hangs() ChatModel {
	return ChatFunc(func(ctx context.Context, _ string) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	})
}

// Takes returns a model that answers after some time, whatever happens to its context.
func Takes(answer string, d time.Duration) ChatModel {
	return Answers(func() (string, error) {
		time.Sleep(d)
		return answer, nil
	})
}

// Return is a function of a call that does nothing.
func Return(context.Context, ChatModel) (struct{}, error) { return struct{}{}, nil }

// Fail is a function of a call that fails.
func Fail(context.Context, ChatModel) (struct{}, error) { return struct{}{}, ErrDown }

// NilModel is a model for typed nil pointers.
type NilModel struct{}

// Chat answers nothing.
func (*NilModel) Chat(context.Context, string) (string, error) { return "", nil }

// Closer is a model that counts how often it was closed.
type Closer struct {
	Closed int
	Err    error  // that Close returns
	Do     func() // that Close calls, if not nil
}

// Chat answers "closer".
func (c *Closer) Chat(context.Context, string) (string, error) { return "closer", nil }

// Close counts, calls Do and returns Err.
func (c *Closer) Close() error {
	c.Closed++
	if c.Do != nil {
		c.Do()
	}
	return c.Err
}

// Closable is a model with a function as its Close method.
type Closable struct {
	ChatModel

	Do func() error
}

// Close calls the function.
func (c Closable) Close() error { return c.Do() }
