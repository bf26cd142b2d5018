package testkit

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
)

// RequireCounts checks the outcomes of a provider without attempts in flight.
func RequireCounts(tb testing.TB, registration *registry.Registration, successes, failures, ignored, limited int) {
	tb.Helper()
	info := registration.Info()
	require.Equal(tb, []int{successes, failures, ignored, limited, 0}, []int{
		int(info.Successes), int(info.Failures), int(info.Ignored), int(info.Limited), int(info.InFlight),
	}, "successes, failures, ignored, limited, in flight")
	require.Equal(tb, info.Attempts, info.Successes+info.Failures+info.Ignored+info.Limited)
}

// RequireOneLine checks that an error is there and that its text is one line.
func RequireOneLine(tb testing.TB, err error) {
	tb.Helper()
	require.Error(tb, err)
	require.NotContains(tb, err.Error(), "\n")
}

// RequireRefused checks that an error names a field and its bound in one line.
func RequireRefused(tb testing.TB, err error) {
	tb.Helper()
	var field *registry.FieldError
	require.ErrorAs(tb, err, &field)
	require.NotEmpty(tb, field.Field)
	require.NotEmpty(tb, field.Bound)
	RequireOneLine(tb, err)
}

// Events returns the events that a subscription has not read yet.
func Events(tb testing.TB, s *registry.Subscription) []event.Event {
	tb.Helper()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	var all []event.Event
	for e := range s.All(ended) {
		all = append(all, e)
	}
	return all
}

// Kinds returns the kinds of the events that a subscription has not read yet.
func Kinds(tb testing.TB, s *registry.Subscription) []event.Kind {
	tb.Helper()
	var all []event.Kind
	for _, e := range Events(tb, s) {
		all = append(all, e.Kind)
	}
	return all
}

// Infos returns the snapshots of all providers.
func Infos(reg *registry.Registry) []registry.Info {
	var all []registry.Info
	for info := range reg.All() {
		all = append(all, info)
	}
	return all
}

// Discovered returns the names of the providers that have all the capabilities.
func Discovered(tb testing.TB, reg *registry.Registry, capabilities ...string) []string {
	tb.Helper()
	found, err := reg.Discover(registry.Query{Require: capabilities})
	require.NoError(tb, err)
	return Names(found)
}

// Names returns the names of providers.
func Names(infos []registry.Info) []string {
	var all []string
	for _, info := range infos {
		all = append(all, info.Name)
	}
	return all
}
