package config_test

import (
	"context"
	"fmt"

	"github.com/capreg/registry"
	"github.com/capreg/registry/config"
	"github.com/capreg/registry/startup"
)

// Model answers questions.
type Model interface {
	Answer(ctx context.Context, question string) (string, error)
}

// LLM is the service of the models.
var LLM = registry.NewService[Model]("llm")

// openAI are the settings of the kind "openai".
type openAI struct {
	Model string        `json:"model" jsonschema:"required"`
	Key   config.Secret `json:"key"`
}

type client struct{ openAI }

func (c client) Answer(context.Context, string) (string, error) { return "from " + c.Model, nil }

func newOpenAI(_ context.Context, settings openAI) (Model, error) { return client{settings}, nil }

const today = `
services:
  llm:
    providers:
      - {name: primary, kind: openai, settings: {model: small}, weight: 2}
      - {name: backup, kind: openai, settings: {model: local}, group: 1}
queries:
  any question: {service: llm}
`

const tomorrow = `
services:
  llm:
    groups:
      0: {strategy: ROUND_ROBIN}
    providers:
      - name: primary
        kind: openai
        settings: {model: big, key: "${env:OPENAI_API_KEY:-none}"}
        breaker: {failure_threshold: 3, recovery_timeout: 2m}
      - {name: second, kind: openai, settings: {model: small}}
      - {name: backup, kind: openai, settings: {model: local}, group: 1, priority: LOW}
queries:
  any question: {service: llm}
`

func Example() {
	ctx := context.Background()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = reg.Close(ctx) }()
	manager, err := config.New(reg, config.Options{Kinds: []config.Kind{config.Bind(LLM, "openai", newOpenAI)}})
	if err != nil {
		panic(err)
	}
	for _, text := range []string{today, tomorrow} {
		document, err := config.Parse("agent.yaml", []byte(text))
		if err != nil {
			panic(err)
		}
		plan, err := manager.Apply(ctx, document)
		if err != nil {
			panic(err)
		}
		fmt.Println(plan)
	}
	// Output:
	// + services.llm.providers[primary]: add
	// + services.llm.providers[backup]: add
	// 2 to add, 0 to alter, 0 to replace, 0 to remove, 0 kept
	// picked for any question: (none) → primary
	//
	// ~ services.llm.groups.0: alter strategy (default) → ROUND_ROBIN; keeps everything
	// ± services.llm.providers[primary]: replace breaker.failure_threshold (default) → 3, breaker.recovery_timeout (default) → 2m0s, weight 2 → (default), settings.key (default) → ${env:OPENAI_API_KEY:-[secret]}, settings.model small → big; not in place: settings.key, settings.model; keeps position, turn in rotations, queue
	// + services.llm.providers[second]: add
	// ~ services.llm.providers[backup]: alter priority (default) → LOW; keeps everything
	// 1 to add, 2 to alter, 1 to replace, 0 to remove, 0 kept
	// picked for any question: primary → primary, second
}

func ExampleParse() {
	_, err := config.Parse("agent.yaml", []byte(`
services:
  llm:
    providers:
      - {name: primary, kind: openai, prioritty: HIGH, attempt_timeout: 30}
`))
	fmt.Println(err)
	// Output:
	// config: agent.yaml:5:39: services.llm.providers[primary].prioritty: unknown field, did you mean "priority"?; agent.yaml:5:73: services.llm.providers[primary].attempt_timeout: is 30: want a text
}

// The document says what a program's components wait for; what they need by themselves stays.
func ExampleDocument_Arrange() {
	d, err := config.Parse("agent.yaml", []byte(`
services:
  llm:
    providers: [{name: primary, kind: openai}]
components:
  web: {needs: [{component: database}], start_timeout: 10s}
`))
	if err != nil {
		panic(err)
	}
	start := func(context.Context, *startup.Run) error { return nil }
	components, err := d.Arrange(registry.Component{Name: "web", Start: start}, registry.Component{Name: "database", Start: start})
	if err != nil {
		panic(err)
	}
	o, err := registry.NewOrchestrator(nil, startup.Options{}, components...)
	if err != nil {
		panic(err)
	}
	fmt.Println(o.Plan().Batches)
	// Output:
	// [[database] [web]]
}
