package config_test

import (
	"context"
	"log/slog"

	"github.com/capreg/registry"
	"github.com/capreg/registry/config"
	"github.com/capreg/registry/probes"
)

// Upstream is what calls use, and Quotes the service.
type Upstream struct{ URL, Key string }

var Quotes = registry.NewService[Upstream]("quotes")

// upstream are the settings of a provider.
type upstream struct {
	URL string        `json:"url" jsonschema:"required"`
	Key config.Secret `json:"key"`
}

// reload keeps the providers of a registry those of a file, until ctx ends.
func reload(ctx context.Context, reg *registry.Registry, path string) error {
	manager, err := config.New(reg, config.Options{
		Kinds: []config.Kind{config.BindImplementation(Quotes, "http", func(s upstream) (made config.Implementation[Upstream], err error) {
			made.Instance = Upstream{s.URL, s.Key.Reveal()}
			made.Probe, err = probes.HTTP(s.URL+"/healthz", probes.HTTPOptions{})
			return made, err
		})},
		Listen: func(e config.Event) { slog.Info(e.String()) },
	})
	if err != nil {
		return err
	}
	return manager.Follow(ctx, config.File(path), config.FollowOptions{})
}
