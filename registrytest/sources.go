package registrytest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/status"
)

// Source is a source of providers under test: a program's own code that registers the providers
// listed elsewhere, such as in a file, a DNS name or a service catalogue, together with control
// over that listing.
type Source struct {
	// Run is the source. It registers the listed providers, follows changes, and returns when
	// ctx has ended.
	Run func(ctx context.Context, reg *registry.Registry) error
	// Set makes the listing contain providers of these names and no others. A provider that was
	// listed before is unchanged.
	Set func(names ...string)
	// Unreachable makes the listing unreachable, or reachable again. nil: it is always
	// reachable.
	Unreachable func(bool)
	// Name returns the name under which the source registers a provider. nil: its own.
	Name func(name string) string
	// Within bounds the time until the source notices a change. Zero: five seconds.
	Within time.Duration
}

// TestSource checks that a source of providers fulfils the expectations of programs. Each check
// has a source of its own, made by newSource:
//
//   - listed providers are registered, new ones are added and deleted ones removed; unchanged
//     ones are left alone, with their breakers, counts and calls;
//   - while the listing is unreachable the known providers stay;
//   - a name that is already taken in its service excludes only that provider, and providers of other owners
//     are left alone;
//   - it returns when its context ends, and not before, without an error but the context's, and
//     its providers leave (see [registry.Provider.Until]);
//   - when the registry closes it goes on until then, or returns.
//
// It starts goroutines and waits for them; it works in a bubble of [testing/synctest] if the
// source does.
func TestSource(tb testing.TB, newSource func(tb testing.TB) Source) {
	tb.Helper()
	for _, check := range []struct {
		what string
		run  func(*sourcing)
	}{
		{"what is outside is registered", func(s *sourcing) {
			s.Set("a", "b")
			s.start()
			s.has("a", "b")
		}},
		{"what comes is added, and what stays is left alone", func(s *sourcing) {
			s.Set("a")
			s.start()
			s.has("a")
			before := s.generation("a")
			s.Set("a", "b")
			s.has("a", "b")
			s.same("a", before)
		}},
		{"what goes is removed, and what stays is left alone", func(s *sourcing) {
			s.Set("a", "b", "c")
			s.start()
			s.has("a", "b", "c")
			before := s.generation("b")
			s.Set("b")
			s.has("b")
			s.same("b", before)
			s.Set("b", "c")
			s.has("b", "c")
			s.same("b", before)
		}},
		{"what is known stays while the outside is unreachable", func(s *sourcing) {
			if s.Unreachable == nil {
				return
			}
			s.Set("a", "b")
			s.start()
			s.has("a", "b")
			before := s.generation("a")
			s.Unreachable(true)
			s.Set("b")
			s.stays("a", "b")
			s.same("a", before)
			s.Unreachable(false)
			s.has("b")
		}},
		{"an outside that is unreachable at first is waited for", func(s *sourcing) {
			if s.Unreachable == nil {
				return
			}
			s.Unreachable(true)
			s.Set("a")
			s.start()
			s.stays()
			s.Unreachable(false)
			s.has("a")
		}},
		{"a name that is already taken excludes only that provider", func(s *sourcing) {
			s.Set("a")
			s.start()
			s.has("a")
			other := s.takeName(s.nameOf("b"))
			if other == nil {
				return
			}
			before := other.Info().Generation
			s.Set("a", "b", "c")
			s.has("a", "c")
			s.Set("c")
			s.has("c")
			if now := other.Info(); now.Generation != before || !now.Eligible {
				s.fail("the provider of another owner has changed: %v", now.Reason)
			}
		}},
		{"what it has registered leaves when its context ends", func(s *sourcing) {
			s.Set("a", "b")
			s.start()
			s.has("a", "b")
			s.stop()
			s.has()
		}},
		{"it outlives the registry", func(s *sourcing) {
			s.Set("a")
			s.start()
			s.has("a")
			s.closed = true
			closeRegistry(s.tb, s.reg)
			s.Set("a", "b")
		}},
	} {
		s := &sourcing{Source: newSource(tb), tb: tb, what: check.what}
		if s.Run == nil || s.Set == nil {
			tb.Fatalf("registrytest: a Source needs Run and Set")
		}
		s.begin()
		check.run(s)
		s.end()
	}
}

// sourcing is one check of a source.
type sourcing struct {
	Source

	tb      testing.TB
	what    string
	failed  bool
	closed  bool // the registry
	reg     *registry.Registry
	others  map[status.ProviderID]bool
	changes *registry.Subscription
	cancel  context.CancelFunc
	ended   <-chan outcome // nil before the start, and when it was read
}

// fail reports the first fault of a check; later ones follow from it.
func (s *sourcing) fail(format string, args ...any) {
	s.tb.Helper()
	if !s.failed {
		s.tb.Errorf("registrytest: %s: %s", s.what, fmt.Sprintf(format, args...))
	}
	s.failed = true
}

func (s *sourcing) nameOf(name string) string {
	if s.Name == nil {
		return name
	}
	return s.Name(name)
}

func (s *sourcing) within() time.Duration {
	if s.Within <= 0 {
		return 5 * time.Second
	}
	return s.Within
}

func (s *sourcing) begin() {
	s.tb.Helper()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		s.tb.Fatalf("registrytest: %v", err)
	}
	s.reg, s.others, s.changes = reg, map[status.ProviderID]bool{}, reg.Subscribe(0)
	of := status.ProviderID{Service: "registrytest/suite", Name: "registrytest/another owner's"}
	if _, err := registry.NewService[*Source](of.Service).Register(context.Background(), s.reg,
		registry.Provider[*Source]{Name: of.Name, Instance: new(Source)}); err != nil {
		s.tb.Fatalf("registrytest: %v", err)
	}
	s.others[of] = true
}

// takeName adds a provider of another owner to the service of the source, and returns nil after a fault.
func (s *sourcing) takeName(name string) *registry.Registration {
	s.tb.Helper()
	for info := range s.reg.All() {
		id := status.ProviderID{Service: info.Service, Name: name}
		if s.failed || s.others[status.ProviderID{Service: info.Service, Name: info.Name}] {
			continue
		}
		// The Go type of the service is not known here: the factory is for a call, and there is none.
		registration, err := s.reg.Register(context.Background(), id.Service, registry.Provider[any]{
			Name: name, Factory: func(context.Context) (any, error) { return nil, registry.ErrNotReady },
		})
		if err != nil {
			s.tb.Fatalf("registrytest: %v", err)
		}
		s.others[id] = true
		return registration
	}
	return nil
}

func (s *sourcing) start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.ended = begin(func() error { return s.Run(ctx, s.reg) })
}

// end ends the source, if it runs, and the registry.
func (s *sourcing) end() {
	s.tb.Helper()
	s.stop()
	for id := range s.others {
		if _, ok := s.reg.Provider(id.Service, id.Name); !ok && !s.closed {
			s.fail("the provider %q of another owner has left", id)
		}
	}
	s.changes.Close()
	closeRegistry(s.tb, s.reg)
}

// stop ends the source and waits for it to return, once.
func (s *sourcing) stop() {
	s.tb.Helper()
	if s.cancel == nil {
		return // it was never started
	}
	if !s.closed {
		if early := s.early(); early != "" {
			s.fail("its context goes on%s", early)
		}
	}
	s.cancel()
	if s.ended == nil {
		return
	}
	late := time.NewTimer(s.within())
	defer late.Stop()
	select {
	case is := <-s.ended:
		switch {
		case is.wrong != nil:
			s.fail("%v", is.wrong)
		case is.err != nil && !errors.Is(is.err, context.Canceled) && !errors.Is(is.err, registry.ErrClosed):
			s.fail("it returned %v, want nil or the error of its context", is.err)
		}
	case <-late.C:
		s.fail("it goes on %v after its context has ended", s.within())
	}
	s.ended = nil
}

// present returns the names that the source has registered.
func (s *sourcing) present() (names []string) {
	for info := range s.reg.All() {
		if !s.others[status.ProviderID{Service: info.Service, Name: info.Name}] {
			names = append(names, info.Name)
		}
	}
	slices.Sort(names)
	return names
}

func (s *sourcing) wanted(names []string) []string {
	wanted := make([]string, len(names))
	for i, name := range names {
		wanted[i] = s.nameOf(name)
	}
	slices.Sort(wanted)
	return wanted
}

// has waits until the providers of the source are these.
func (s *sourcing) has(names ...string) {
	s.tb.Helper()
	if s.failed {
		return
	}
	wanted := s.wanted(names)
	ctx, cancel := context.WithTimeout(context.Background(), s.within())
	defer cancel()
	for !slices.Equal(s.present(), wanted) {
		if _, err := s.changes.Next(ctx); err != nil {
			s.fail("after %v there are [%s], want [%s]%s", s.within(), strings.Join(s.present(), " "), strings.Join(wanted, " "), s.early())
			return
		}
	}
}

// early returns a message if the source has returned.
func (s *sourcing) early() string {
	select {
	case is := <-s.ended:
		s.ended = nil
		return fmt.Sprintf(": the source has returned: %v", errors.Join(is.err, is.wrong))
	default:
		return ""
	}
}

// stays checks that the providers of the source are these, and stay so.
func (s *sourcing) stays(names ...string) {
	s.tb.Helper()
	if s.failed {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.within())
	defer cancel()
	for wanted := s.wanted(names); ; {
		if present := s.present(); !slices.Equal(present, wanted) {
			s.fail("there are [%s], want [%s]", strings.Join(present, " "), strings.Join(wanted, " "))
			return
		}
		if _, err := s.changes.Next(ctx); err != nil {
			return
		}
	}
}

func (s *sourcing) generation(name string) uint64 {
	for info := range s.reg.All() {
		if info.Name == s.nameOf(name) && !s.others[status.ProviderID{Service: info.Service, Name: info.Name}] {
			return info.Generation
		}
	}
	return 0
}

// same checks that the provider was not registered again.
func (s *sourcing) same(name string, before uint64) {
	s.tb.Helper()
	if now := s.generation(name); now != before {
		s.fail("%q was registered again: its breaker, its counts and its calls are gone", name)
	}
}
