package config_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/config"
	"github.com/capreg/registry/verdict"
)

// A key that was found to be dead is left alone in the next run, too.
func ExampleManager_Save() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path, ctx := filepath.Join(dir, "state.json"), context.Background()

	// run is one run of the program.
	run := func(work func(reg *registry.Registry)) {
		reg, err := registry.New(registry.Options{})
		if err != nil {
			panic(err)
		}
		defer func() { _ = reg.Close(ctx) }()
		manager, err := config.New(reg, config.Options{Kinds: []config.Kind{config.Bind(LLM, "openai", newOpenAI)}})
		if err != nil {
			panic(err)
		}
		if _, err := manager.Restore(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			panic(err)
		}
		document, err := config.Parse("agent.yaml", []byte(today))
		if err != nil {
			panic(err)
		}
		if _, err := manager.Apply(ctx, document); err != nil {
			panic(err)
		}
		work(reg)
		if err := manager.Save(path); err != nil { // before the registry is closed
			panic(err)
		}
	}
	run(func(reg *registry.Registry) {
		_, _ = registry.Call(ctx, LLM.Bind(reg, registry.Query{Only: []string{"primary"}}), func(context.Context, Model) (string, error) {
			return "", verdict.As(errors.New("the key is revoked"), verdict.Verdict{Class: verdict.ClassFatal, Scope: verdict.ScopeDomain, After: 5 * time.Hour})
		})
	})
	run(func(reg *registry.Registry) {
		primary, _ := reg.Provider("llm", "primary")
		fmt.Println(primary.Info().Cooldown.Parked, LLM.Bind(reg, registry.Query{}).Explain().Winner)
	})
	// Output:
	// true backup
}
