package registrytest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/capreg/registry"
)

// grace is how long calls in flight may go on at the end of a test.
const grace = 3 * time.Second

// New returns an empty registry that is closed when the test and its subtests are
// over. Bad options end the test.
//
// The end of the test fails it for what it leaves behind: calls that go on and leases
// that were not reported within three seconds (they are then told to end), user code
// that does not stop, and errors of instances that are closed. A test may close the
// registry itself.
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

// inFlight says what goes on.
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

// Swap puts instance in the place of the named provider until the test and its
// subtests are over, or undo is called; see [registry.Service.Swap] for what the
// stand-in has of the provider and what it has not. It ends the test when it is
// refused: when no such provider is registered, or another test has something in the
// place of providers of this registry.
//
// Where the service's type is an interface, name it, as in
// Swap[ChatModel](t, reg, LLM, "cloud", fake).
//
// A provider that leaves takes its stand-in with it, and its name is refused until undo:
// where the program registers it anew, as a restart or a source of providers does, use
// [Override].
//
// Swaps may be nested and undone in any order. undo waits, as the end of the test
// does, for calls in flight on the stand-in, and may be called any number of times.
func Swap[T any](tb testing.TB, reg *registry.Registry, service registry.Service[T], provider string, instance T) (undo func()) {
	tb.Helper()
	end, err := service.Swap(reg, tb.Name(), provider, instance)
	if err != nil {
		tb.Fatalf("registrytest: swap of provider %q: %v", provider, err)
	}
	return undoing(tb, fmt.Sprintf("swap of provider %q", provider), end)
}

// Override lets the given instances alone serve the service until the test and its
// subtests are over, or undo is called, whatever is registered before or meanwhile:
// the first one as long as it can be picked, then the next. They have every
// capability and are seen by every handler. Without instances the service is out
// altogether. The rest is as in [Swap]; see [registry.Service.Override].
func Override[T any](tb testing.TB, reg *registry.Registry, service registry.Service[T], instances ...T) (undo func()) {
	tb.Helper()
	providers := make([]registry.Provider[T], len(instances))
	for i, instance := range instances {
		providers[i].Instance = instance
	}
	return OverrideWith(tb, reg, service, providers...)
}

// OverrideWith is [Override] with providers that have names, groups, policies,
// capabilities: those that have capabilities have no others.
func OverrideWith[T any](tb testing.TB, reg *registry.Registry, service registry.Service[T], providers ...registry.Provider[T]) (undo func()) {
	tb.Helper()
	end, err := service.Override(reg, tb.Name(), providers...)
	if err != nil {
		tb.Fatalf("registrytest: override of service %q: %v", service.Name(), err)
	}
	return undoing(tb, fmt.Sprintf("override of service %q", service.Name()), end)
}

// undoing has end called by the end of the test at the latest.
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
