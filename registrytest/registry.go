package registrytest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/capreg/registry"
)

// grace is the time that calls in flight have at the end of a test.
const grace = 3 * time.Second

// New returns an empty registry that is closed at the end of the test and its subtests. Invalid
// options end the test.
//
// The test fails at its end for leftovers: calls that go on and leases that were not reported
// within three seconds (their contexts end then), user code that does not stop, and errors of
// instances that are closed. A test may close the registry itself.
func New(tb testing.TB, options registry.Options) *registry.Registry {
	tb.Helper()
	reg, err := registry.New(options)
	if err != nil {
		tb.Fatalf("registrytest: %v", err)
	}
	tb.Cleanup(func() {
		tb.Helper()
		closeRegistry(tb, reg)
	})
	return reg
}

func closeRegistry(tb testing.TB, reg *registry.Registry) {
	tb.Helper()
	busy := inFlight(reg)
	ctx, cancel := context.WithTimeout(context.Background(), grace) // that of the test has ended
	defer cancel()
	err := reg.Close(ctx)
	if ctx.Err() != nil {
		tb.Errorf("registrytest: %v after the end of the test something still went on: %s", grace, busy)
	}
	if err != nil {
		tb.Errorf("registrytest: closing the registry: %v", err)
	}
}

// inFlight describes the calls that go on.
func inFlight(reg *registry.Registry) string {
	var busy []string
	for info := range reg.All() {
		if info.InFlight > 0 {
			busy = append(busy, fmt.Sprintf("%d on provider %q of service %q", info.InFlight, info.Name, info.Service))
		}
	}
	if len(busy) == 0 {
		return "calls on providers that had left, or code that makes, probes or closes instances"
	}
	return strings.Join(busy, ", ") + ": end calls and report leases (Done) before"
}

// Swap replaces the named provider by instance until the end of the test and its subtests, or
// until undo is called. It ends the test when it is refused: when no such provider is
// registered, or another test has replaced providers of this registry.
//
// The replacement has the provider's name, definition, order and policies, except for probes
// and recovery hook; it is probed if it is a health.Checker. Breaker, counts, cooldown and
// health start afresh; so do those of its domain, which replacements share among themselves
// only. Resolvers that were bound before find it from the next look-up on, and a
// [registry.Registration] is its handle; what is changed through it meanwhile is lost, except
// for a group's strategy. Calls in flight stay on the provider. Listings mark the replacement
// as a mock, and [registry.Options] with OnlyMocks picks it.
//
// Where the service's type is an interface, name it, as in Swap[ChatModel](t, reg, LLM,
// "cloud", fake).
//
// A provider that leaves takes its replacement with it, and its name is refused until undo.
// Where the program registers it again, as a restart or a source of providers does, use
// [Override].
//
// Swaps may be nested and undone in any order. undo waits, as the end of the test does, for
// calls in flight on the replacement, and may be called any number of times.
func Swap[T any](tb testing.TB, reg *registry.Registry, service registry.Service[T], provider string, instance T) (undo func()) {
	tb.Helper()
	end, err := service.Testing(reg).Swap(tb.Name(), provider, instance)
	if err != nil {
		tb.Fatalf("registrytest: swap of provider %q: %v", provider, err)
	}
	return undoing(tb, fmt.Sprintf("swap of provider %q", provider), end)
}

// Override makes the given instances the only ones that serve the service until the end of the
// test and its subtests, or until undo is called, whichever providers are registered before or
// meanwhile: the first one as long as it is eligible, then the next. They have every capability
// and are visible to every handler. Without instances the service is out altogether. The rest
// is as in [Swap].
//
// The instances are mocks, whatever [registry.Options] say about mocks and admission. Their
// groups, strategies and domains are their own. Hidden providers stay as they are, probes
// included, and are not picked.
func Override[T any](tb testing.TB, reg *registry.Registry, service registry.Service[T], instances ...T) (undo func()) {
	tb.Helper()
	providers := make([]registry.Provider[T], len(instances))
	for i, instance := range instances {
		providers[i].Instance = instance
	}
	return OverrideWith(tb, reg, service, providers...)
}

// OverrideWith is [Override] with providers that have names, groups, policies and capabilities.
// A provider with capabilities has only these.
func OverrideWith[T any](tb testing.TB, reg *registry.Registry, service registry.Service[T], providers ...registry.Provider[T]) (undo func()) {
	tb.Helper()
	end, err := service.Testing(reg).Override(tb.Name(), providers...)
	if err != nil {
		tb.Fatalf("registrytest: override of service %q: %v", service.Name(), err)
	}
	return undoing(tb, fmt.Sprintf("override of service %q", service.Name()), end)
}

// undoing returns undo, which calls end once, at the latest at the end of the test.
func undoing(tb testing.TB, what string, end func(context.Context) error) (undo func()) {
	tb.Helper()
	undo = func() {
		tb.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		err := end(ctx)
		switch {
		case err != nil:
			tb.Errorf("registrytest: end of the %s: %v", what, err)
		case ctx.Err() != nil:
			tb.Errorf("registrytest: end of the %s: calls on it went on for %v and were told to end", what, grace)
		}
	}
	tb.Cleanup(undo)
	return undo
}
