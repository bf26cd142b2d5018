// Package observer tells the agent what there is to see: messages first, and
// otherwise its own condition.
//
// It shows a provider that cannot help at the moment and says so ([verdict.Cannot]):
// the next one is asked, and nothing counts against the first.
package observer

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/verdict"
)

// Observer looks once. Implementations are safe for concurrent use.
type Observer interface {
	Observe(ctx context.Context) (string, error)
}

// ErrEmpty is the answer of an inbox without messages.
var ErrEmpty = verdict.Cannot(errors.New("observer: the inbox is empty"))

// Inbox is an Observer of messages, in their order.
type Inbox struct {
	messages chan string
}

// NewInbox returns an Inbox for that many messages at once.
func NewInbox(most int) *Inbox { return &Inbox{make(chan string, most)} }

// Put adds a message. It blocks while the inbox is full.
func (i *Inbox) Put(ctx context.Context, message string) error {
	select {
	case i.messages <- message:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Observe takes the oldest message, or returns ErrEmpty.
func (i *Inbox) Observe(context.Context) (string, error) {
	select {
	case message := <-i.messages:
		return message, nil
	default:
		return "", ErrEmpty
	}
}

// Vitals is an Observer of the runtime itself.
type Vitals func(groups ...string) health.Overall

// Observe returns the state of the services.
func (v Vitals) Observe(context.Context) (string, error) {
	overall := v()
	var bad []string
	for _, service := range overall.Services {
		if service.State != health.Healthy {
			bad = append(bad, fmt.Sprintf("%s is %v", service.Name, service.State))
		}
	}
	return strings.Join(append([]string{"the agent is " + overall.State.String()}, bad...), ", "), nil
}
