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
)

// Source is a source of providers under test: a program's own code that keeps the
// providers of a registry as something outside says, such as a file, a name in DNS
// or a catalogue of services, together with that outside.
type Source struct {
	// Run is the source. It registers what is outside, follows its changes, and
	// returns when ctx has ended.
	Run func(ctx context.Context, reg *registry.Registry) error
	// Set makes the outside have providers of these names and no others. One that it
	// had before is unchanged.
	Set func(names ...string)
	// Unreachable makes the outside unreachable, or reachable again. nil: it always is.
	Unreachable func(bool)
	// Name is the name that the source registers a provider under. nil: its own.
	Name func(name string) string
	// Within is how soon the source notices what changes. Zero: five seconds.
	Within time.Duration
}

// TestSource checks that a source of providers does what programs rely on. Each check
// has a source of its own, which newSource makes:
//
//   - what is outside is registered, what comes is added and what goes is removed;
//     what stays is left alone, with its breaker, its counts and its calls;
//   - while the outside is unreachable what is known stays;
//   - a name that somebody else has keeps nothing but that one out, and other
//     providers are left alone;
//   - when its context ends it returns, and not before, without an error but the
//     context's, and what it has registered leaves (see [registry.Provider.Until]);
//   - when the registry closes it goes on until then, or returns.
//
// It starts goroutines and waits for them; it works in a bubble of
// [testing/synctest] if the source does.
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
		{"a name that somebody else has keeps out nothing but that one", func(s *sourcing) {
			other := s.register(s.nameOf("b"))
			before := other.Info().Generation
			s.Set("a", "b", "c")
			s.start()
			s.has("a", "c")
			s.Set("c")
			s.has("c")
			if now := other.Info(); now.Generation != before || !now.Eligible {
				s.fail("the provider of somebody else is not what it was: %v", now.Reason)
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
	others  map[string]bool
	changes *registry.Subscription
	cancel  context.CancelFunc
	ended   <-chan outcome // nil before the start, and when it was read
}

// fail reports the first thing that is wrong with a check: the rest follows from it.
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
	s.reg, s.others, s.changes = reg, map[string]bool{}, reg.Subscribe(0)
	s.register("registrytest/somebody else's")
}

// register adds a provider that is not of the source.
func (s *sourcing) register(name string) *registry.Registration {
	s.tb.Helper()
	registration, err := registry.NewService[*Source]("registrytest/suite").Register(context.Background(), s.reg,
		registry.Provider[*Source]{Name: name, Instance: new(Source)})
	if err != nil {
		s.tb.Fatalf("registrytest: %v", err)
	}
	s.others[name] = true
	return registration
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
	for name := range s.others {
		if _, ok := s.reg.Provider(name); !ok && !s.closed {
			s.fail("the provider %q of somebody else has left", name)
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
		if !s.others[info.Name] {
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

// early says that the source has returned, if it has.
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
	if registration, ok := s.reg.Provider(s.nameOf(name)); ok {
		return registration.Info().Generation
	}
	return 0
}

// same checks that the provider was not registered anew.
func (s *sourcing) same(name string, before uint64) {
	s.tb.Helper()
	if now := s.generation(name); now != before {
		s.fail("%q was registered anew: its breaker, its counts and its calls are gone", name)
	}
}
