package guide_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/stream"
	"github.com/capreg/registry/verdict"
)

// Model is a language model, whatever its SDK.
type Model interface {
	Ask(ctx context.Context, prompt string) (string, error)
	Stream(ctx context.Context, prompt string) (iter.Seq2[string, error], error)
}

// LLM is the service of models.
var LLM = registry.NewService[Model]("llm")

// registerModels registers three models at one moment: two in the cloud, and a local one for when neither can be asked.
func registerModels(ctx context.Context, reg *registry.Registry, openai, anthropic, local Model) error {
	breaker := registry.BreakerPolicy{FailureThreshold: 3, RecoveryTimeout: 2 * time.Minute}
	var set registry.Update
	LLM.AddTo(&set, registry.Provider[Model]{
		Name: "openai", Instance: openai, Capabilities: []string{"tools"}, Priority: registry.PriorityHigh,
		AttemptTimeout: time.Minute, Breaker: breaker,
		Domain: "openai-key", // what shares the key shares its rate limit
	})
	LLM.AddTo(&set, registry.Provider[Model]{
		Name: "anthropic", Instance: anthropic, Capabilities: []string{"tools"},
		AttemptTimeout: time.Minute, Breaker: breaker,
	})
	LLM.AddTo(&set, registry.Provider[Model]{
		Name: "local", Instance: local, Group: 1, Window: 8192, LastResort: true,
		AttemptTimeout: 2 * time.Minute, Limits: registry.LimitPolicy{MaxConcurrent: 2},
	})
	return errors.Join(reg.Update(ctx, &set), LLM.Classify(reg, verdict.LLM))
}

// model is a Model that answers, or fails.
type model struct {
	name   string
	broken error
}

func (m model) Ask(context.Context, string) (string, error) { return m.name + " answers", m.broken }

func (m model) Stream(context.Context, string) (iter.Seq2[string, error], error) {
	return func(yield func(string, error) bool) {
		_ = m.broken != nil && !yield("", m.broken) || m.broken == nil && yield(m.name, nil) && yield("answers", nil)
	}, nil
}

func Example_llmAgent() {
	ctx := context.Background()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = reg.Close(ctx) }()
	limited := verdict.RateLimited(errors.New("slow down"), 20*time.Second)
	if err := registerModels(ctx, reg, model{"openai", limited}, model{"anthropic", nil}, model{"local", nil}); err != nil {
		panic(err)
	}

	withTools := LLM.Bind(reg, registry.Query{Require: []string{"tools"}})
	var report registry.CallReport
	answer, err := registry.Call(ctx, withTools, func(ctx context.Context, m Model) (string, error) {
		return m.Ask(ctx, "What is next?")
	}, registry.WaitForCooldown(), registry.ReportTo(&report))
	fmt.Println(answer, err)
	for _, attempt := range report.Attempts {
		fmt.Println(attempt.Provider, attempt.Why, attempt.Class)
	}

	answers, err := stream.Open(ctx, LLM.Bind(reg, registry.Query{}),
		func(ctx context.Context, m Model) (iter.Seq2[string, error], error) {
			return m.Stream(ctx, "What is next?")
		}, stream.Options[string]{FirstTimeout: 10 * time.Second})
	if err != nil {
		panic(err)
	}
	for word, err := range answers.All() {
		if err != nil {
			panic(err) // cut in the middle: what has been read is not a whole answer
		}
		fmt.Println(word)
	}
	// Output:
	// anthropic answers <nil>
	// openai first rate limited
	// anthropic failover success
	// anthropic
	// answers
}
