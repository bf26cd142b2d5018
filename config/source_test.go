package config_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/config"
	"github.com/capreg/registry/registrytest"
)

// following is a source that is followed, with the events of its manager.
type following struct {
	reg    *registry.Registry
	m      *config.Manager
	w      *workshop
	events chan config.Event
	ended  chan error
	stop   context.CancelFunc
}

// follow follows a source until the test ends.
func follow(t *testing.T, source config.Source, options config.FollowOptions) *following {
	t.Helper()
	f := &following{w: &workshop{}, events: make(chan config.Event, 10_000), ended: make(chan error, 1)}
	f.reg = registrytest.New(t, registry.Options{})
	var err error
	f.m, err = config.New(f.reg, config.Options{
		Kinds:  []config.Kind{config.Bind(llm, "model", f.w.make), config.Bind(llm, "k", f.w.make)},
		Listen: func(e config.Event) { f.events <- e },
	})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	f.stop = stop
	go func() { f.ended <- f.m.Follow(ctx, source, options) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-f.ended)
	})
	return f
}

// next returns the next event.
func (f *following) next(t *testing.T) config.Event {
	t.Helper()
	select {
	case e := <-f.events:
		return e
	case err := <-f.ended:
		f.ended <- err
		t.Fatalf("it has ended: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("no event")
	}
	return config.Event{}
}

// until reads events until one is of that kind and the document has these providers.
func (f *following) until(t *testing.T, kind config.EventKind, providers ...string) config.Event {
	t.Helper()
	for {
		e := f.next(t)
		if e.Kind == kind && (providers == nil || f.m.Current() != nil && equal(names(f.m.Current(), "llm"), providers)) {
			return e
		}
	}
}

func equal(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestFollow_AppliesEachVersionAndKeepsTheLastGoodOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var v config.Value
		v.Set(parse(t, models("name: a")))
		f := follow(t, &v, config.FollowOptions{})
		require.Equal(t, config.Applied, f.next(t).Kind)
		v.Set(parse(t, models("name: a, settings: {fail: down}")))
		e := f.next(t)
		require.Equal(t, config.Refused, e.Kind)
		require.Equal(t, "value", e.Source)
		require.ErrorIs(t, e.Err, registry.ErrNotReady)
		require.Equal(t, []string{"a"}, names(f.m.Current(), "llm"))
		v.Set(parse(t, models("name: a", "name: b")))
		f.until(t, config.Applied, "a", "b")
		require.Len(t, listing(f.reg), 2)
		f.stop()
		require.NoError(t, <-f.ended)
		f.ended <- nil
		require.Len(t, listing(f.reg), 2, "what was applied stays")
	})
}

func TestFollow_ABurstOfChangesIsReadOnceWhenItIsQuiet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var v config.Value
		v.Set(parse(t, models("name: a")))
		f := follow(t, &v, config.FollowOptions{Quiet: time.Second, Latest: 5 * time.Second})
		f.next(t)
		time.Sleep(time.Minute)
		began := time.Now()
		for range 8 { // one each half second: never quiet for a second
			v.Set(parse(t, models("name: a", "name: b")))
			time.Sleep(time.Second / 2)
		}
		f.until(t, config.Applied, "a", "b")
		require.Equal(t, 4500*time.Millisecond, time.Since(began), "quiet for a second")
		began = time.Now()
		for range 20 {
			v.Set(parse(t, models("name: c")))
			time.Sleep(time.Second / 2)
		}
		e := f.until(t, config.Applied, "c")
		require.Equal(t, 5*time.Second, e.Time.Sub(began), "and at the latest after that")
	})
}

func TestFollow_TheFirstDocumentHasToBeGood(t *testing.T) {
	t.Parallel()
	_, m, _ := manage(t)
	var v config.Value
	require.ErrorContains(t, m.Follow(t.Context(), &v, config.FollowOptions{}), "no document was set")
	v.Set(parse(t, models("name: a, settings: {fail: down}")))
	require.ErrorIs(t, m.Follow(t.Context(), &v, config.FollowOptions{}), registry.ErrNotReady)
	require.ErrorIs(t, m.Follow(t.Context(), nil, config.FollowOptions{}), registry.ErrInvalid)
	require.ErrorIs(t, m.Follow(t.Context(), &v, config.FollowOptions{Quiet: -1}), registry.ErrInvalid)
	require.ErrorIs(t, m.Follow(t.Context(), &v, config.FollowOptions{Canary: &config.Canary{Worse: 2}}), registry.ErrInvalid)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, m.Follow(ended, &v, config.FollowOptions{}))
}

// brokenSource is a source whose methods do what they should not.
type brokenSource struct {
	load  func() (*config.Document, error)
	watch func() error
}

func (brokenSource) String() string                                   { return "broken" }
func (b brokenSource) Load(context.Context) (*config.Document, error) { return b.load() }
func (b brokenSource) Watch(_ context.Context, _ func()) (err error)  { return b.watch() }

func TestFollow_SourcesThatPanicOrEndAreErrors(t *testing.T) {
	t.Parallel()
	_, m, _ := manage(t)
	good := func() (*config.Document, error) { return config.Parse("a", []byte(models("name: a"))) }
	for want, source := range map[string]brokenSource{
		"broken: panic: load":                {func() (*config.Document, error) { panic("load") }, func() error { return nil }},
		"not watched any more: panic: watch": {good, func() error { panic("watch") }},
		"not watched any more: gone":         {good, func() error { return errors.New("gone") }},
	} {
		require.ErrorContains(t, m.Follow(t.Context(), source, config.FollowOptions{}), want)
	}
}

func TestFollow_AListenerThatPanicsChangesNothing(t *testing.T) {
	t.Parallel()
	reg := registrytest.New(t, registry.Options{})
	m, err := config.New(reg, config.Options{
		Kinds: []config.Kind{config.Bind(llm, "model", (&workshop{}).make)}, Listen: func(config.Event) { panic("oh") },
	})
	require.NoError(t, err)
	apply(t, m, models("name: a"))
	apply(t, m, models("name: b"))
	require.Len(t, listing(reg), 1)
}
