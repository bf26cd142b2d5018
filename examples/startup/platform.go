package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/startup"
)

// Answer is a service that takes text and returns text.
type Answer func(ctx context.Context, text string) (string, error)

// The services that components of the platform offer each other.
var (
	Model  = registry.NewService[Answer]("model")
	Chat   = registry.NewService[Answer]("llm")
	Memory = registry.NewService[Answer]("memory")
	Tool   = registry.NewService[Answer]("tool")
	Speak  = registry.NewService[Answer]("speak")
)

var errDamaged = errors.New("the index is damaged")

// platform is an agent platform.
type platform struct {
	registry *registry.Registry
	front    *part
	parts    []*part
}

// newPlatform returns the components of the platform. Where a start takes so much time
// as the others have, the dependencies matter most.
func newPlatform(reg *registry.Registry, damaged bool) *platform {
	p := &platform{registry: reg}
	needs := startup.Capabilities
	p.add(&part{name: "config", provides: []string{"settings"}, warmUp: 20 * time.Millisecond})
	p.add(&part{name: "secrets", needs: needs("settings"), warmUp: 40 * time.Millisecond})
	p.add(&part{name: "audit", needs: needs("settings"), warmUp: 30 * time.Millisecond})
	p.add(&part{name: "database", provides: []string{"sql"}, needs: needs("settings", "secrets"), warmUp: 180 * time.Millisecond})
	p.add(&part{name: "cache", needs: needs("settings"), warmUp: 60 * time.Millisecond})
	p.add(&part{name: "embedder", provides: []string{"embeddings"}, needs: needs("settings"), warmUp: 250 * time.Millisecond})
	vectors := p.add(&part{name: "vector store", provides: []string{"vectors"}, needs: needs("sql", "embeddings"), warmUp: 200 * time.Millisecond})
	if damaged {
		vectors.broken = errDamaged
	}
	p.add(&part{
		name: "model", needs: needs("settings"), warmUp: 1200 * time.Millisecond,
		register: offer(Model, "local weights", func(_ context.Context, text string) (string, error) {
			return fmt.Sprintf("%q has %d words", text, len(strings.Fields(text))), nil
		}),
	})
	p.add(&part{
		name: "llm gateway", provides: []string{"llm"}, warmUp: 80 * time.Millisecond,
		needs: append(needs("model", "secrets", "audit"), startup.Need{Capability: "metrics", Optional: true}),
		register: offer(Chat, "gateway", func(ctx context.Context, text string) (string, error) {
			return p.call(ctx, Model, text)
		}),
	})
	p.add(&part{
		name: "memory", needs: needs("vectors", "cache"), warmUp: 60 * time.Millisecond,
		register: offer(Memory, "memory", func(context.Context, string) (string, error) {
			return "we have not met", nil
		}),
	})
	p.add(&part{
		name: "tools", needs: needs("settings", "secrets"), warmUp: 50 * time.Millisecond,
		register: offer(Tool, "upper case", func(_ context.Context, text string) (string, error) {
			return strings.ToUpper(text), nil
		}),
	})
	p.add(&part{
		name: "speak handler", provides: []string{"speak"}, needs: needs("llm", "memory", "tools"), warmUp: 40 * time.Millisecond,
		register: offer(Speak, "handler", p.speak),
	})
	p.add(&part{name: "chat adapter", needs: needs("speak"), warmUp: 60 * time.Millisecond})
	p.add(&part{
		name: "scheduler", warmUp: 30 * time.Millisecond,
		needs: append(needs("sql"), startup.Need{Component: "audit", OrderOnly: true}),
	})
	p.front = p.add(&part{name: "http front", needs: needs("speak"), warmUp: 50 * time.Millisecond, serve: p.answer})
	return p
}

func (p *platform) add(one *part) *part {
	if one.provides == nil {
		one.provides = []string{one.name}
	}
	p.parts = append(p.parts, one)
	return one
}

func (p *platform) components() []registry.Component {
	components := make([]registry.Component, len(p.parts))
	for i, one := range p.parts {
		components[i] = one.component()
	}
	return components
}

// offer registers a component's service when it is ready, until it stops.
func offer(service registry.Service[Answer], name string, answer Answer) func(context.Context, *registry.Registry) (*registry.Registration, error) {
	return func(ctx context.Context, reg *registry.Registry) (*registry.Registration, error) {
		return service.Register(ctx, reg, registry.Provider[Answer]{Name: name, Instance: answer})
	}
}

// call calls the present provider of the service.
func (p *platform) call(ctx context.Context, service registry.Service[Answer], text string) (string, error) {
	return registry.Call(ctx, service.Bind(p.registry, registry.Query{}), func(ctx context.Context, answer Answer) (string, error) {
		return answer(ctx, text)
	})
}

// speak answers with the results of the model, the memory and a tool.
func (p *platform) speak(ctx context.Context, text string) (string, error) {
	said := make([]string, 0, 3)
	for _, service := range []registry.Service[Answer]{Tool, Memory, Chat} {
		one, err := p.call(ctx, service, text)
		if err != nil {
			return "", err
		}
		said = append(said, one)
	}
	return strings.Join(said, "; "), nil
}

// answer answers a question at the front.
func (p *platform) answer(w http.ResponseWriter, r *http.Request) {
	said, err := p.call(r.Context(), Speak, r.FormValue("text"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, said) // the client may be gone
}

// ask sends a question to the front over HTTP.
func (p *platform) ask(ctx context.Context, text string) (answer string, err error) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.front.url()+"/ask?text="+url.QueryEscape(text), http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	all, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("front: %s: %s", response.Status, all)
	}
	return string(all), err
}
