package federation

import (
	"context"
	"fmt"
	"maps"

	"github.com/capreg/registry"
)

// Binding says how providers of one service and one kind become providers of a registry. Use [Dial] to create one.
type Binding struct {
	service   string
	kind      string
	dial      func(context.Context, Entry) (any, error)
	bind      func(*registry.Registry)
	configure func(Entry, *registry.Provider[any])
}

// Dial returns a binding: dial makes the instance for an entry of the service and the kind, such as a stub over a
// connection that the program has. It is called as a [registry.Provider.Factory] is, at first need and in a goroutine of
// its own, and the registry closes the instance if it is an io.Closer.
func Dial[T any](service registry.Service[T], kind string, dial func(context.Context, Entry) (T, error)) Binding {
	b := Binding{service: service.Name(), kind: kind, bind: func(reg *registry.Registry) { service.Bind(reg, registry.Query{}) }}
	if dial != nil {
		b.dial = func(ctx context.Context, e Entry) (any, error) { return dial(ctx, e) }
	}
	return b
}

// Configure returns the binding with a function that completes each provider before it is registered: its policies, which an
// entry does not have, or its position, such as a group behind the providers of this process. It must not change Name,
// Instance, Factory, Until or Replace, and the same entry must get the same result.
func (b Binding) Configure(configure func(Entry, *registry.Provider[any])) Binding {
	b.configure = configure
	return b
}

func (b Binding) check(i int) error {
	switch {
	case b.dial == nil:
		return fmt.Errorf("federation: Bindings[%d] has no function that dials: %w", i, registry.ErrInvalid)
	case !isWord(b.kind):
		return fmt.Errorf("federation: Bindings[%d] has the kind %q: want a word of letters, digits, - and _: %w", i, b.kind, registry.ErrInvalid)
	}
	return nil
}

// provider returns the input of the registration of an entry under a name.
func (b Binding) provider(e Entry, name string) registry.Provider[any] {
	p := registry.Service[any]{}.Provider(e.Definition)
	p.Metadata = make(map[string]string, len(e.Definition.Metadata)+2)
	maps.Copy(p.Metadata, e.Definition.Metadata)
	p.Metadata[MetadataNode], p.Metadata[MetadataKind] = e.Node, e.Kind
	if b.configure != nil {
		b.configure(e, &p)
	}
	p.Name, p.Replace = name, false
	return p
}

// The keys of [registry.Provider.Metadata] by which providers that a [Source] has brought in are known, in every view of them.
// An [Announcer] does not offer such providers.
const (
	MetadataNode = "federation.node"
	MetadataKind = "federation.kind"
)
