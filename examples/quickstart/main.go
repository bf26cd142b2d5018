// Command quickstart calls two models; the first is down, so the second answers.
package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/capreg/registry"
)

// ChatModel is whatever answers a prompt; any Go type can be a service.
type ChatModel func(prompt string) (string, error)

var LLM = registry.NewService[ChatModel]("llm") // a typed key, declared once

func main() {
	ctx := context.Background()
	cloud := func(string) (string, error) { return "", errors.New("no route to the cloud") }
	local := func(prompt string) (string, error) { return prompt + " yourself", nil }

	reg, err := registry.New(registry.Options{})
	_, err1 := LLM.Register(ctx, reg, registry.Provider[ChatModel]{Name: "cloud", Instance: cloud})
	_, err2 := LLM.Register(ctx, reg, registry.Provider[ChatModel]{Name: "local", Instance: local, Group: 1})
	if err := errors.Join(err, err1, err2); err != nil {
		panic(err)
	}
	llm := LLM.Bind(reg, registry.Query{})
	for range 5 {
		reply, err := registry.Call(ctx, llm, func(_ context.Context, chat ChatModel) (string, error) {
			return chat("hello")
		})
		fmt.Println(reply, err)
	}
	fmt.Println(llm.Explain()) // five failures in a row: the cloud gets no calls for a minute
	if err := reg.Close(ctx); err != nil {
		panic(err)
	}
}
