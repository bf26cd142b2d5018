package registry_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/verdict"
)

type chatModel interface {
	Chat(ctx context.Context, prompt string) (string, error)
}

// chatFunc is a chatModel made of a function.
type chatFunc func(ctx context.Context, prompt string) (string, error)

func (f chatFunc) Chat(ctx context.Context, prompt string) (string, error) { return f(ctx, prompt) }

// says returns a chatModel that always gives the same answer.
func says(answer string) chatModel {
	return chatFunc(func(context.Context, string) (string, error) { return answer, nil })
}

var chat = registry.NewService[chatModel]("chat")

// Cloud models first, in order of priority; then the local ones, in turn.
func Example_priorityGroups() {
	ctx := context.Background()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = reg.Close(ctx) }()

	for _, p := range []registry.Provider[chatModel]{
		{Name: "gpt", Capabilities: []string{"chat", "tools"}, Priority: registry.PriorityCritical},
		{Name: "claude", Capabilities: []string{"chat", "tools"}, Priority: registry.PriorityHigh},
		{Name: "llama-a", Capabilities: []string{"chat"}, Group: 1, Strategy: registry.StrategyRoundRobin},
		{Name: "llama-b", Capabilities: []string{"chat"}, Group: 1}, // the group's strategy
	} {
		p.Instance = says("I am " + p.Name)
		if _, err := chat.Register(ctx, reg, p); err != nil {
			panic(err)
		}
	}
	anyModel := chat.Bind(reg, registry.Query{Require: []string{"chat"}})
	withTools := chat.Bind(reg, registry.Query{Require: []string{"chat", "tools"}})

	fmt.Println(anyModel.Explain())
	fmt.Println(withTools.Explain())
	// Output:
	// service "chat" requiring chat
	// ▶ group 0 CRITICAL gpt: eligible
	//   group 0 HIGH     claude: eligible
	//   group 1 NORMAL   llama-a: eligible
	//   group 1 NORMAL   llama-b: eligible
	// service "chat" requiring chat, tools
	// ▶ group 0 CRITICAL gpt: eligible
	//   group 0 HIGH     claude: eligible
	//   group 1 NORMAL   llama-a: capability missing: "tools"
	//   group 1 NORMAL   llama-b: capability missing: "tools"
}

var errSlowDown = errors.New("slow down")

// A provider says what its errors mean by wrapping them; a classifier says it
// for code that cannot.
func Example_classify() {
	ctx := context.Background()
	reg, err := registry.New(registry.Options{
		Classify: func(err error) verdict.Verdict {
			if errors.Is(err, errSlowDown) {
				return verdict.Verdict{Class: verdict.ClassRateLimited, After: 20 * time.Second}
			}
			return verdict.Verdict{} // whatever the next classifier says
		},
	})
	if err != nil {
		panic(err)
	}
	defer func() { _ = reg.Close(ctx) }()

	busy := chatFunc(func(context.Context, string) (string, error) { return "", errSlowDown })
	strict := chatFunc(func(context.Context, string) (string, error) {
		return "", verdict.Permanent(errors.New("prompt is empty")) // the caller's fault, everywhere
	})
	_, err1 := chat.Register(ctx, reg, registry.Provider[chatModel]{Name: "busy", Instance: busy})
	_, err2 := chat.Register(ctx, reg, registry.Provider[chatModel]{Name: "strict", Instance: strict})
	_, err3 := chat.Register(ctx, reg, registry.Provider[chatModel]{Name: "spare", Instance: says("never asked")})
	if err := errors.Join(err1, err2, err3); err != nil {
		panic(err)
	}

	_, err = registry.Call(ctx, chat.Bind(reg, registry.Query{}), func(ctx context.Context, m chatModel) (string, error) {
		return m.Chat(ctx, "")
	})
	var failed *registry.CallError
	if errors.As(err, &failed) {
		for _, attempt := range failed.Attempts {
			fmt.Printf("%s: %v: %v\n", attempt.Provider, attempt.Class, attempt.Err)
		}
	}
	// Output:
	// busy: rate limited: slow down
	// strict: bad request: prompt is empty
}
