package federation

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/fault"
)

// applyAll makes the registry have what the roster sees, as far as that has changed. The error is that of a closed
// registry, or of ctx.
func (s *Source) applyAll(ctx context.Context, reg *registry.Registry) error {
	s.mu.Lock()
	changed := s.roster.takeChanged()
	s.mu.Unlock()
	for _, id := range changed {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.applyOne(ctx, reg, id); errors.Is(err, registry.ErrClosed) {
			return fmt.Errorf("federation: %w", err)
		}
	}
	return nil
}

// applyOne makes the registry have one provider as the roster sees it now.
func (s *Source) applyOne(ctx context.Context, reg *registry.Registry, id providerID) error {
	s.mu.Lock()
	entry, visible, _ := s.roster.sees(id)
	before := s.brought[id]
	s.mu.Unlock()
	if !visible || id.node == s.options.Node {
		s.remove(ctx, reg, id, before)
		return nil
	}
	if before != nil && reflect.DeepEqual(before.entry, entry) && before.refused == nil {
		return nil // also where it was removed here: it stays away until its entry changes
	}
	after := &brought{entry: entry}
	after.refused = s.bring(ctx, reg, before, after)
	if after.registration == nil && before != nil && before.registration != nil {
		leave(ctx, reg, before.registration) // what is there is no more what is announced
	}
	s.mu.Lock()
	s.brought[id] = after
	s.mu.Unlock()
	return after.refused
}

// remove removes the provider of an entry. It does not wait for the calls in flight.
func (s *Source) remove(ctx context.Context, reg *registry.Registry, id providerID, before *brought) {
	if before == nil {
		return
	}
	s.mu.Lock()
	delete(s.brought, id)
	s.mu.Unlock()
	if before.registration != nil {
		leave(ctx, reg, before.registration)
	}
}

// leave removes a provider, unless it has left, and does not wait for its calls in flight.
func leave(ctx context.Context, reg *registry.Registry, registration *registry.Registration) {
	now, there := reg.Provider(registration.Definition().Service, registration.Name())
	if hasLeft(registration) || !there || now.Info().Generation != registration.Info().Generation {
		return
	}
	var u registry.Update
	u.Remove(registration.Definition().Service, registration.Name())
	_ = reg.Update(ctx, &u) // an error says that it has left
}

// bring registers the provider of an entry, or changes the one that was registered for it. The error says why not.
func (s *Source) bring(ctx context.Context, reg *registry.Registry, before, after *brought) (err error) {
	e := after.entry
	b, bound := s.bindings[[2]string{e.Definition.Service, e.Kind}]
	if !bound {
		return refused(fmt.Sprintf("no binding has the service %q and the kind %q", e.Definition.Service, e.Kind))
	}
	var p registry.Provider[any]
	err = fault.Run(func() error {
		after.name = e.Node + "/" + e.Definition.Name
		if s.options.Name != nil {
			after.name = s.options.Name(e)
		}
		if s.options.Accept != nil {
			if err := s.options.Accept(e); err != nil {
				return err
			}
		}
		p = b.provider(e, after.name)
		return nil
	})
	if err != nil {
		return err
	}
	same := before != nil && before.registration != nil && before.name == after.name && !hasLeft(before.registration)
	if same && before.entry.Incarnation == e.Incarnation && before.entry.Kind == e.Kind && before.entry.Address == e.Address {
		p.AtOnce = true
		after.registration, _, err = before.registration.Apply(ctx, p)
		return err
	}
	if !same && before != nil && before.registration != nil {
		leave(ctx, reg, before.registration)
	}
	p.Factory = func(ctx context.Context) (any, error) { return b.dial(ctx, e) }
	p.Until = ctx
	p.Replace, p.AtOnce = same, same
	after.registration, err = reg.Register(ctx, e.Definition.Service, p)
	return err
}

func hasLeft(registration *registry.Registration) bool {
	select {
	case <-registration.Left():
		return true
	default:
		return false
	}
}

// retryNames tries providers again whose name was taken, when that becomes free.
func (s *Source) retryNames(ctx context.Context, reg *registry.Registry) {
	leaving := reg.Subscribe(0, event.Filter{Kinds: []event.Kind{event.Draining}})
	defer leaving.Close()
	for e := range leaving.All(ctx) {
		s.change(func(r *roster, _ time.Time) {
			for id, was := range s.brought {
				if was.refused != nil && (was.name == e.Provider && id.service == e.Service || e.Lost > 0) {
					r.changed[id] = struct{}{}
				}
			}
		})
	}
}
