package registrytest_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/probes"
	"github.com/capreg/registry/registrytest"
)

func making(probe health.Probe) func(testing.TB) health.Probe {
	return func(testing.TB) health.Probe { return probe }
}

func goodProbes() registrytest.ProbeSuite {
	return registrytest.ProbeSuite{
		Well:    making(func(ctx context.Context) error { health.Use(ctx, "memory", 0.5); return nil }),
		Limping: making(func(context.Context) error { return health.Limp(errDown) }),
		Ill:     making(func(context.Context) error { return errDown }),
		Silent:  making(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }),
	}
}

func TestTestProbe_PassesGoodProbes(t *testing.T) {
	t.Parallel()
	test := func(t *testing.T) {
		t.Helper()
		s := spyOn(t, "Test", func(tb testing.TB) { registrytest.TestProbe(tb, goodProbes()) })
		require.Empty(t, s.lines)
	}
	test(t)
	synctest.Test(t, test)
}

func TestTestProbe_PassesReadyMadeProbes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		of := func(prepare func(*registrytest.ChatServer)) func(testing.TB) health.Probe {
			return func(tb testing.TB) health.Probe {
				tb.Helper()
				server := registrytest.NewPipeServer(tb, nil)
				probe, err := probes.HTTP(server.URL()+"models", probes.HTTPOptions{Client: server.Client()})
				require.NoError(tb, err)
				prepare(server)
				return probe
			}
		}
		registrytest.TestProbe(t, registrytest.ProbeSuite{
			Well: of(func(*registrytest.ChatServer) {}), Ill: of(func(s *registrytest.ChatServer) { s.Close() }),
		})
	})
}

func TestTestProbe_DetectsBadProbes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*registrytest.ProbeSuite)
		want   string
	}{
		"none":            {func(s *registrytest.ProbeSuite) { s.Well = making(nil) }, "Well made no probe"},
		"not even silent": {func(s *registrytest.ProbeSuite) { s.Silent = making(nil) }, "Silent made no probe"},
		"well for ill":    {func(s *registrytest.ProbeSuite) { s.Ill = s.Well }, "ill probe: it found nil (<nil>), want an error"},
		"ill for well":    {func(s *registrytest.ProbeSuite) { s.Well = s.Ill }, "well probe: it found an error (down), want nil"},
		"ill for limp":    {func(s *registrytest.ProbeSuite) { s.Limping = s.Ill }, "a registry finds its provider unhealthy"},
		"two lines": {func(s *registrytest.ProbeSuite) {
			s.Ill = making(func(context.Context) error { return errors.New("a\nb") })
		}, "want one line"},
		"panic": {func(s *registrytest.ProbeSuite) { s.Well = making(func(context.Context) error { panic("boom") }) }, "well probe: it panicked: boom"},
		"exit": {func(s *registrytest.ProbeSuite) {
			s.Well = making(func(context.Context) error { runtime.Goexit(); return nil })
		}, "it ended its goroutine"},
		"deaf": {func(s *registrytest.ProbeSuite) {
			s.Silent = making(func(context.Context) error { time.Sleep(time.Minute); return errDown })
		}, "when its context is cancelled it did not return"},
		"speaks": {func(s *registrytest.ProbeSuite) { s.Silent = s.Ill }, "is the target silent?"},
		"well in the end": {func(s *registrytest.ProbeSuite) {
			s.Silent = making(func(ctx context.Context) error { <-ctx.Done(); return nil })
		}, "it reported a healthy target"},
		"limp in the end": {func(s *registrytest.ProbeSuite) {
			s.Silent = making(func(ctx context.Context) error { <-ctx.Done(); return health.Limp(ctx.Err()) })
		}, "it found an answer"},
		"only once": {func(s *registrytest.ProbeSuite) {
			var mu sync.Mutex
			used := false
			s.Well = making(func(context.Context) error {
				mu.Lock()
				defer mu.Unlock()
				if used {
					return errDown
				}
				used = true
				return nil
			})
		}, "well probe: it found an error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				suite := goodProbes()
				test.change(&suite)
				s := spyOn(t, "Test", func(tb testing.TB) { registrytest.TestProbe(tb, suite) })
				require.Contains(t, s.text(), test.want)
				time.Sleep(time.Hour)
			})
		})
	}
}

// outside is a list of names that a source follows.
type outside struct {
	mu          sync.Mutex
	names       []string
	unreachable bool
	bugs        map[string]bool
}

func (o *outside) read() ([]string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.unreachable {
		return nil, errDown
	}
	return slices.Clone(o.names), nil
}

// run is a source that polls, with the given bugs.
func (o *outside) run(ctx context.Context, reg *registry.Registry) error {
	known := map[string]*registry.Registration{}
	every := time.NewTicker(time.Second)
	defer every.Stop()
	until := ctx
	if o.bugs["leaves them"] {
		until = context.WithoutCancel(ctx)
	}
	for {
		names, err := o.read()
		switch {
		case err != nil && o.bugs["gives up"]:
			return err
		case err != nil && !o.bugs["forgets"]:
		default:
			if o.bugs["anew"] {
				for name, registration := range known {
					_ = registration.Unregister(ctx)
					delete(known, name)
				}
			}
			for name, registration := range known {
				if !slices.Contains(names, name) && !o.bugs["keeps"] {
					_ = registration.Unregister(ctx)
					delete(known, name)
				}
			}
			for _, name := range names {
				if known[name] != nil {
					continue
				}
				registration, err := chat.Register(ctx, reg, provider{Name: name, Instance: says(name), Until: until})
				if err != nil {
					if o.bugs["stops at a conflict"] {
						break
					}
					if o.bugs["takes over"] {
						if other, ok := reg.Provider("chat", name); ok {
							_ = other.Unregister(ctx)
						}
					}
					continue
				}
				known[name] = registration
			}
		}
		if o.bugs["panics"] {
			panic("boom")
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			if o.bugs["goes on"] {
				time.Sleep(time.Hour)
			}
			return ctx.Err()
		}
	}
}

func (o *outside) source(ctx context.Context, reg *registry.Registry) error {
	if o.bugs["returns"] {
		go func() { _ = o.run(ctx, reg) }()
		return nil
	}
	return o.run(ctx, reg)
}

func newOutside(bugs ...string) func(testing.TB) registrytest.Source {
	return func(testing.TB) registrytest.Source {
		o := &outside{bugs: map[string]bool{}}
		for _, bug := range bugs {
			o.bugs[bug] = true
		}
		return registrytest.Source{
			Run: o.source,
			Set: func(names ...string) {
				o.mu.Lock()
				defer o.mu.Unlock()
				o.names = names
			},
			Unreachable: func(is bool) {
				o.mu.Lock()
				defer o.mu.Unlock()
				o.unreachable = is
			},
		}
	}
}

func TestTestSource_PassesAGoodSource(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := spyOn(t, "Test", func(tb testing.TB) { registrytest.TestSource(tb, newOutside()) })
		require.Empty(t, s.lines)
	})
	synctest.Test(t, func(t *testing.T) {
		registrytest.TestSource(t, func(tb testing.TB) registrytest.Source {
			tb.Helper()
			s := newOutside()(tb)
			s.Unreachable, s.Within = nil, 3*time.Second
			set := s.Set
			s.Name = func(name string) string { return "file/" + name }
			s.Set = func(names ...string) {
				named := make([]string, len(names))
				for i, name := range names {
					named[i] = s.Name(name)
				}
				set(named...)
			}
			return s
		})
	})
}

func TestTestSource_DetectsBadSources(t *testing.T) {
	t.Parallel()
	for bug, want := range map[string]string{
		"anew":                `what stays is left alone: "a" was registered again`,
		"keeps":               "what goes is removed, and what stays is left alone: after 5s there are [a b c], want [b]",
		"forgets":             "what is known stays while the outside is unreachable",
		"gives up":            "the source has returned: down",
		"stops at a conflict": "a name that is already taken excludes only that provider: after 5s there are [a], want [a c]",
		"takes over":          "another owner",
		"leaves them":         "what it has registered leaves when its context ends: after 5s there are [a b], want []",
		"returns":             "its context goes on: the source has returned: <nil>",
		"goes on":             "it goes on 5s after its context has ended",
		"panics":              "it panicked: boom",
	} {
		t.Run(bug, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := spyOn(t, "Test", func(tb testing.TB) { registrytest.TestSource(tb, newOutside(bug)) })
				require.Contains(t, s.text(), want)
				for _, line := range s.lines {
					require.True(t, strings.HasPrefix(line, "registrytest: "), line)
				}
				time.Sleep(2 * time.Hour)
			})
		})
	}
	s := spyOn(t, "Test", func(tb testing.TB) {
		registrytest.TestSource(tb, func(testing.TB) registrytest.Source { return registrytest.Source{} })
	})
	require.Contains(t, s.text(), "needs Run and Set")
}
