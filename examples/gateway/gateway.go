package main

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin"
	registryprom "github.com/capreg/registry/contrib/prometheus"
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
	changing sync.RWMutex // held while the state changes; it guards learned
	learned  []string     // models of routes with a star that have routes of their own
	stopping atomic.Bool
	started  time.Time
	origins  llm.Origins
	lists    llm.Lists
	tokens   llm.TokenLimits
	proxy    *llm.Proxy
	metrics  http.Handler
	admin    *admin.Handler // nil without operators
}

// newGateway returns a gateway whose upstreams are reached over the network.
func newGateway(ctx context.Context, settings Config, log *zap.Logger, network http.RoundTripper) (*gateway, error) {
	few := zap.WrapCore(func(core zapcore.Core) zapcore.Core { // what concerns a whole key is an event of each model
		return zapcore.NewSamplerWithOptions(core, time.Second, 3, 0)
	})
	reg, err := registry.New(registry.Options{Strategies: selectors.All(), DrainTimeout: time.Hour, Logger: log.WithOptions(few)})
	if err != nil {
		return nil, err
	}
	g := &gateway{registry: reg, log: log, network: network, memory: llm.NewMemory(int64(cmp.Or(settings.Memory, 512<<20))), started: time.Now()}
	g.proxy = g.proxyFor()
	if err := errors.Join(g.observe(settings), g.apply(ctx, settings)); err != nil {
		return nil, errors.Join(err, g.close(ctx))
	}
	return g, nil
}

// observe makes the handlers of /metrics, and of /admin/ where there are operators.
func (g *gateway) observe(settings Config) (err error) {
	g.metrics = registryprom.New(g.registry, registryprom.Options{}).Handler(prometheus.DefaultGatherer)
	if len(settings.Admin) == 0 {
		return nil // what nothing may use would be two thirds of the memory at rest
	}
	tokens := make(map[string]string)
	for name, token := range settings.Admin {
		tokens[name] = token.Reveal()
	}
	g.admin, err = admin.New(g.registry, admin.Options{Authorize: admin.Tokens(tokens, nil), Hosts: []string{"*"}, Logger: g.log})
	return err
}

func (g *gateway) close(ctx context.Context) error {
	g.admin.Close()
	return g.registry.Close(ctx)
}
