package guide_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/capreg/registry"
	"github.com/capreg/registry/verdict"
)

// Sender delivers a message and returns its receipt. The key is the same each time the message is sent.
type Sender func(ctx context.Context, key, text string) (receipt string, err error)

// Senders is the service of channels: chat, mail, …
var Senders = registry.NewService[Sender]("senders")

// send sends a message by one channel. It moves on to another only where nothing was sent.
func send(ctx context.Context, senders *registry.Resolver[Sender], text string) (receipt string, err error) {
	return registry.Call(ctx, senders, func(ctx context.Context, deliver Sender) (string, error) {
		return deliver(ctx, registry.IdempotencyKey(ctx), text)
	}, registry.OnceOnly())
}

func Example_messages() {
	ctx := context.Background()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = reg.Close(ctx) }()
	sent := 0
	chat := Sender(func(context.Context, string, string) (string, error) {
		return "", verdict.NotSent(errors.New("the gateway is offline")) // the channel knows that nothing left
	})
	mail := Sender(func(_ context.Context, _, text string) (string, error) {
		if sent++; text == "second" {
			return "", errors.New("connection reset") // sent, or not?
		}
		return "receipt of mail", nil
	})
	letter := Sender(func(context.Context, string, string) (string, error) { return "receipt of a letter", nil })
	var set registry.Update
	for group, sender := range []Sender{chat, mail, letter} {
		Senders.AddTo(&set, registry.Provider[Sender]{Name: []string{"chat", "mail", "letter"}[group], Instance: sender, Group: group})
	}
	if err := reg.Update(ctx, &set); err != nil {
		panic(err)
	}
	senders := Senders.Bind(reg, registry.Query{})
	fmt.Println(send(ctx, senders, "first"))
	_, err = send(ctx, senders, "second") // no letter: the mail may have arrived
	var failed *registry.CallError
	if errors.As(err, &failed) {
		last := failed.Attempts[len(failed.Attempts)-1]
		fmt.Println(last.Provider, last.Class, last.Err, "mails sent:", sent)
	}
	// Output:
	// receipt of mail <nil>
	// mail unknown connection reset mails sent: 2
}
