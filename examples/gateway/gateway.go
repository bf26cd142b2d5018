package main

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/capreg/registry"
	"github.com/capreg/registry/registryhttp/llm"
	"github.com/capreg/registry/selectors"
)

// gateway answers requests. It is an http.Handler.
type gateway struct {
	registry *registry.Registry
	log      *zap.Logger
	network  http.RoundTripper
	memory   *llm.Memory
	now      atomic.Pointer[state]
	changing sync.Mutex // held while the state changes
	stopping atomic.Bool
	started  time.Time
	origins  llm.Origins
	lists    llm.Lists
}

// newGateway returns a gateway whose upstreams are reached over the network.
func newGateway(ctx context.Context, config Config, log *zap.Logger, network http.RoundTripper) (*gateway, error) {
	few := zap.WrapCore(func(core zapcore.Core) zapcore.Core { // what concerns a whole key is an event of each model
		return zapcore.NewSamplerWithOptions(core, time.Second, 3, 0)
	})
	reg, err := registry.New(registry.Options{Strategies: selectors.All(), DrainTimeout: time.Hour, Logger: log.WithOptions(few)})
	if err != nil {
		return nil, err
	}
	g := &gateway{
		registry: reg, log: log, network: network, memory: llm.NewMemory(cmp.Or(config.Memory, 512) << 20), started: time.Now(),
	}
	if err := g.apply(ctx, config); err != nil {
		return nil, errors.Join(err, reg.Close(ctx))
	}
	return g, nil
}
