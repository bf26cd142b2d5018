package guide_test

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/capreg/registry"
)

// apply makes the models those of a configuration, all at one moment or, with an error, not at all.
func apply(
	ctx context.Context, reg *registry.Registry, configuration []byte, dial func(context.Context, registry.Definition) (Model, error),
) error {
	var wanted []registry.Definition
	if err := json.Unmarshal(configuration, &wanted); err != nil {
		return err
	}
	current := make(map[string]registry.Definition)
	for info := range reg.All() {
		if info.Service == LLM.Name() {
			current[info.Name] = info.Definition
		}
	}
	var set registry.Update
	for _, definition := range wanted {
		before, there := current[definition.Name]
		delete(current, definition.Name)
		if there && before.Endpoint == definition.Endpoint {
			set.SetPriority(LLM.Name(), definition.Name, definition.Priority) // changed in place: nothing is drained
			set.SetGroup(LLM.Name(), definition.Name, definition.Group)
			continue
		}
		p := LLM.Provider(definition)
		p.Factory = func(ctx context.Context) (Model, error) { return dial(ctx, definition) }
		p.Replace = there // only if the new one proves itself
		LLM.AddTo(&set, p)
	}
	for name := range current {
		set.Remove(LLM.Name(), name)
	}
	return reg.Update(ctx, &set)
}

func Example_configuration() {
	ctx := context.Background()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = reg.Close(ctx) }()
	dial := func(_ context.Context, d registry.Definition) (Model, error) {
		if d.Endpoint == "https://wrong.example" {
			return nil, fmt.Errorf("no model at %s", d.Endpoint)
		}
		return model{d.Name, nil}, nil
	}
	for _, configuration := range []string{
		`[{"name": "a", "endpoint": "https://a.example"}, {"name": "b", "endpoint": "https://b.example", "group": 1}]`,
		`[{"name": "a", "endpoint": "https://wrong.example"}]`, // refused: a and b stay
		`[{"name": "a", "endpoint": "https://a.example", "priority": "LOW"}, {"name": "c", "endpoint": "https://c.example", "priority": "HIGH"}]`,
	} {
		fmt.Println(apply(ctx, reg, []byte(configuration), dial))
		for info := range reg.All() {
			fmt.Println("-", info.Name, info.Priority, info.Group)
		}
	}
	// Output:
	// <nil>
	// - a NORMAL 0
	// - b NORMAL 1
	// Update[0]: registry: provider "llm/a" has not proven itself: not ready: no model at https://wrong.example
	// - a NORMAL 0
	// - b NORMAL 1
	// <nil>
	// - c HIGH 0
	// - a LOW 0
}
