package hosts

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

const (
	nodeVariable = "REGISTRY_HOSTS_NODE"

	// Keyed is the name of providers of the failure domain whose cooldowns all nodes share.
	Keyed  = "keyed"
	domain = "key"

	cooldown = 10 * time.Minute
	// within bounds a call, and an attempt at one provider.
	within  = 3 * time.Second
	attempt = 2 * time.Second
)

// Greet is the service of nodes.
type Greet func(ctx context.Context) (string, error)

// Greets is the key of the service.
var Greets = registry.NewService[Greet]("hosts/greet")

// Node is a process with a registry, whose providers others see, and that sees those of others.
type Node struct {
	// Name is that of the node, and Providers are the names of its providers at first.
	Name      string   `json:"name"`
	Providers []string `json:"providers"`
	// TTL is that of its lease.
	TTL time.Duration `json:"ttl"`
	// At says where it finds the others, in whatever form its [Connect] wants.
	At []string `json:"at"`
}

// Parts make a node, together with a registry.
type Parts struct {
	// Store and Listings are those of its source; with a Store it announces its providers, and shares cooldowns.
	Store    federation.Store
	Listings []federation.Listing
	// Kind is that of Offer and Dial.
	Kind  string
	Offer func(registry.Info) (federation.Offer, bool)
	Dial  func(context.Context, federation.Entry) (Greet, error)
	// Ask answers a command of the test that is of no node. Default: none.
	Ask func(ctx context.Context, command, of string) (any, error)
}

// Connect makes the parts of a node, in its process.
type Connect func(ctx context.Context, node Node, reg *registry.Registry) (Parts, error)

// State holds all that a node knows at one moment.
type State struct {
	// Seen has the providers of other nodes, by name, with the generations of their registrations.
	Seen map[string]uint64 `json:"seen"`
	// Lost names the providers of other nodes that have left its registry so far.
	Lost []string `json:"lost"`
	// Nodes has the states of other nodes, by name.
	Nodes map[string]federation.NodeState `json:"nodes"`
	// Reachable says whether its store is.
	Reachable bool `json:"reachable"`
	// Announced is the state of its announcer.
	Announced federation.Announcement `json:"announced"`
	// Cooling is the end of the cooldown of the domain; zero where one of its providers has none.
	Cooling time.Time `json:"cooling"`
}

// Called is the outcome of a call.
type Called struct {
	Answer string        `json:"answer"`
	Error  string        `json:"error"`
	Class  string        `json:"class"` // of the last attempt; empty for an error that says nothing
	Took   time.Duration `json:"took"`
}

// Play plays the node of the environment until the standard input ends, and reports whether there is one.
func Play(connect Connect) bool {
	text := os.Getenv(nodeVariable)
	if text == "" {
		return false
	}
	var node Node
	err := json.Unmarshal([]byte(text), &node)
	if err == nil {
		err = play(node, connect)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "node %q: %v\n", node.Name, err)
		os.Exit(1)
	}
	return true
}

// player is a node in its process.
type player struct {
	Node
	Parts

	reg       *registry.Registry
	source    *federation.Source
	announcer *federation.Announcer

	mu   sync.Mutex // guards what follows
	lost []string
}

func play(node Node, connect Connect) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		return err
	}
	p := &player{Node: node, reg: reg}
	if p.Parts, err = connect(ctx, node, reg); err != nil {
		return err
	}
	var all sync.WaitGroup
	if err := p.begin(ctx, &all); err != nil {
		return err
	}
	for _, name := range node.Providers {
		if _, err := p.add(ctx, name); err != nil {
			return err
		}
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var q question
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			return err
		}
		all.Go(func() { p.answer(ctx, q) })
	}
	stop()
	all.Wait()
	return errors.Join(lines.Err(), reg.Close(context.Background()))
}

// begin begins what goes on until ctx ends.
func (p *player) begin(ctx context.Context, all *sync.WaitGroup) (err error) {
	leaving := p.reg.Subscribe(4096, event.Filter{Kinds: []event.Kind{event.Draining}})
	all.Go(func() {
		for e := range leaving.All(ctx) {
			if strings.Contains(e.Provider, "/") {
				p.mu.Lock()
				p.lost = append(p.lost, e.Provider)
				p.mu.Unlock()
			}
		}
	})
	p.source, err = federation.NewSource(federation.SourceOptions{
		Store: p.Store, Listings: p.Listings, Node: p.Name,
		Bindings: []federation.Binding{federation.Dial(Greets, p.Kind, p.Dial).Configure(
			func(_ federation.Entry, provider *registry.Provider[any]) { provider.AttemptTimeout = attempt },
		)},
	})
	if err != nil {
		return err
	}
	all.Go(func() { _ = p.source.Run(ctx, p.reg) })
	if p.Store == nil {
		return nil
	}
	p.announcer, err = federation.NewAnnouncer(federation.AnnouncerOptions{
		Store: p.Store, Node: p.Name, TTL: p.TTL, Source: p.source, Offer: p.Offer,
	})
	if err != nil {
		return err
	}
	cooldowns, err := federation.NewCooldowns(federation.CooldownOptions{Store: p.Store, Node: p.Name})
	if err != nil {
		return err
	}
	all.Go(func() { _ = p.announcer.Run(ctx, p.reg) })
	all.Go(func() { _ = cooldowns.Run(ctx, p.reg) })
	return nil
}

// answer answers a question on standard output.
func (p *player) answer(ctx context.Context, q question) {
	said, err := p.do(ctx, q.Command, q.Of)
	if err != nil {
		fmt.Fprintf(os.Stderr, "node %q: %s %s: %v\n", p.Name, q.Command, q.Of, err)
		os.Exit(1)
	}
	text, err := json.Marshal(said)
	if err == nil {
		text, err = json.Marshal(answer{q.ID, text})
	}
	if err != nil {
		text = fmt.Appendf(nil, `{"id":%d}`, q.ID)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = os.Stdout.Write(append(text, '\n')) // the test has ended
}

// do does what a command says.
func (p *player) do(ctx context.Context, command, of string) (any, error) {
	switch command {
	case "state":
		return p.state(), nil
	case "add":
		return p.add(ctx, of)
	case "drop":
		registration, there := p.reg.Provider(Greets.Name(), of)
		if !there {
			return nil, registry.ErrNotRegistered
		}
		return nil, registration.Unregister(ctx)
	case "call":
		return p.call(ctx, of), nil
	case "cool":
		registration, there := p.reg.Provider(Greets.Name(), Keyed)
		if !there {
			return nil, registry.ErrNotRegistered
		}
		return nil, registration.CoolDown(status.Cooldown{
			Until: time.Now().Add(cooldown), Class: verdict.ClassRateLimited, Scope: verdict.ScopeDomain,
		}, errors.New("the key is used up"))
	}
	if p.Ask == nil {
		return nil, errors.ErrUnsupported
	}
	return p.Ask(ctx, command, of)
}

func (p *player) add(ctx context.Context, name string) (any, error) {
	provider := registry.Provider[Greet]{
		Name: name, Instance: func(context.Context) (string, error) { return p.Name + "/" + name, nil },
	}
	if name == Keyed {
		provider.Domain = domain
	}
	_, err := Greets.Register(ctx, p.reg, provider)
	return nil, err
}

// call calls the provider of that name alone.
func (p *player) call(ctx context.Context, name string) (called Called) {
	trying, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	begun := time.Now()
	answer, err := registry.Call(trying, Greets.Bind(p.reg, registry.Query{Only: []string{name}}),
		func(ctx context.Context, g Greet) (string, error) { return g(ctx) })
	called = Called{Answer: answer, Took: time.Since(begun)}
	if err == nil {
		return called
	}
	called.Error = err.Error()
	var failed *registry.CallError
	if errors.As(err, &failed) && len(failed.Attempts) > 0 {
		called.Class = failed.Attempts[len(failed.Attempts)-1].Class.String()
	} else if errors.Is(err, registry.ErrUnavailable) {
		called.Class = "unavailable"
	}
	return called
}

func (p *player) state() State {
	s := State{Seen: map[string]uint64{}, Nodes: map[string]federation.NodeState{}}
	keyed := 0
	for info := range p.reg.All() {
		if info.Metadata[federation.MetadataNode] != "" {
			s.Seen[info.Name] = info.Generation
		}
		if info.Domain != domain {
			continue
		}
		if keyed++; keyed == 1 || info.Cooldown.Until.Before(s.Cooling) {
			s.Cooling = info.Cooldown.Until
		}
	}
	known := p.source.Fleet()
	s.Reachable = known.Reachable
	for _, n := range known.Nodes {
		if n.Name != p.Name {
			s.Nodes[n.Name] = n.State
		}
	}
	if p.announcer != nil {
		s.Announced = p.announcer.Announcement()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.Lost = append([]string{}, p.lost...)
	return s
}
