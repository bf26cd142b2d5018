// Command quickstart calls two models; the first is down, so the second answers.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/capreg/registry"
	"github.com/capreg/registry/verdict"
)

// ChatModel answers a prompt; any Go type can be a service.
type ChatModel func(prompt string) (string, error)

var LLM = registry.NewService[ChatModel]("llm") // a typed key, declared once

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	reg, err := registry.New(registry.Options{})
	if err != nil {
		return err
	}
	down := verdict.NotSent(errors.New("no route to the cloud")) // an error that says what it means
	cloud := func(string) (string, error) { return "", down }
	if _, err := LLM.Register(ctx, reg, registry.Provider[ChatModel]{Name: "cloud", Instance: cloud}); err != nil {
		return err
	}
	local := func(prompt string) (string, error) { return prompt + " yourself", nil }
	if _, err := LLM.Register(ctx, reg, registry.Provider[ChatModel]{Name: "local", Instance: local, Group: 1}); err != nil {
		return err
	}

	llm, report := LLM.Bind(reg, registry.Query{}), registry.CallReport{}
	reply, err := registry.Call(ctx, llm, func(_ context.Context, model ChatModel) (string, error) {
		return model("hello")
	}, registry.ReportTo(&report))
	if err != nil {
		return err
	}
	fmt.Println(reply)
	for _, attempt := range report.Attempts {
		fmt.Printf("%s: %s (%s)\n", attempt.Provider, attempt.Class, attempt.Why)
	}
	return reg.Close(ctx)
}
