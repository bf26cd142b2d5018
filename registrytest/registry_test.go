package registrytest_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry"
	"github.com/capreg/registry/registrytest"
	"github.com/capreg/registry/verdict"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errDown = errors.New("down")

type chatModel interface {
	Chat(ctx context.Context, prompt string) (string, error)
}

var chat = registry.NewService[chatModel]("chat")

// fake is a fake as a test would write it.
type fake struct {
	*registrytest.Script

	answer string
}

func (f fake) Chat(ctx context.Context, _ string) (string, error) { return f.answer, f.Play(ctx) }

// says returns a fake that is well.
func says(answer string) fake { return fake{registrytest.NewScript(), answer} }

type provider = registry.Provider[chatModel]

func add(tb testing.TB, reg *registry.Registry, p provider) *registry.Registration {
	tb.Helper()
	if p.Instance == nil {
		p.Instance = says(p.Name)
	}
	registration, err := chat.Register(context.Background(), reg, p)
	require.NoError(tb, err)
	return registration
}

func ask(ctx context.Context, reg *registry.Registry, options ...registry.CallOption) (string, error) {
	return registry.Call(ctx, chat.Bind(reg, registry.Query{}), func(ctx context.Context, m chatModel) (string, error) {
		return m.Chat(ctx, "?")
	}, options...)
}

func asked(tb testing.TB, reg *registry.Registry) string {
	tb.Helper()
	answer, err := ask(context.Background(), reg)
	require.NoError(tb, err)
	return answer
}

// spy is a test that is watched rather than believed.
type spy struct {
	testing.TB

	name string

	mu      sync.Mutex
	lines   []string
	failed  bool
	cleanup []func()
}

func (s *spy) Helper()      {}
func (s *spy) Name() string { return s.name }

func (s *spy) Failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

func (s *spy) Logf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

func (s *spy) Errorf(format string, args ...any) {
	s.Logf(format, args...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = true
}

func (s *spy) Fatalf(format string, args ...any) {
	s.Errorf(format, args...)
	runtime.Goexit()
}

func (s *spy) Cleanup(f func()) { s.cleanup = append(s.cleanup, f) }

func (s *spy) text() string { return strings.Join(s.lines, "\n") }

// spyOn runs a test with its clean-up, and returns what it has said.
func spyOn(t *testing.T, name string, test func(tb testing.TB)) *spy {
	t.Helper()
	s := &spy{TB: t, name: name}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			for _, cleanup := range slices.Backward(s.cleanup) {
				cleanup()
			}
		}()
		test(s)
	}()
	<-done
	return s
}

func TestNew_ClosesTheRegistryWithItsTest(t *testing.T) {
	t.Parallel()
	var reg *registry.Registry
	s := spyOn(t, "Test", func(tb testing.TB) {
		reg = registrytest.New(tb, registry.Options{})
		add(tb, reg, provider{Name: "p"})
		require.Equal(tb, "p", asked(tb, reg))
	})
	require.Empty(t, s.text())
	_, err := ask(t.Context(), reg)
	require.ErrorIs(t, err, registry.ErrClosed)
	s = spyOn(t, "Test", func(tb testing.TB) {
		require.NoError(tb, registrytest.New(tb, registry.Options{}).Close(tb.Context()))
	})
	require.False(t, s.failed, "a test may close it")
}

func TestNew_BadOptionsEndTheTest(t *testing.T) {
	t.Parallel()
	s := spyOn(t, "Test", func(tb testing.TB) {
		registrytest.New(tb, registry.Options{DrainTimeout: -1})
		panic("not reached")
	})
	require.Contains(t, s.text(), "Options.DrainTimeout")
}

func TestNew_LeftoversFailTheTest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var lease *registry.Lease[chatModel]
		s := spyOn(t, "Test", func(tb testing.TB) {
			reg := registrytest.New(tb, registry.Options{})
			add(tb, reg, provider{Name: "p"})
			var err error
			lease, err = chat.Bind(reg, registry.Query{}).Acquire(context.Background())
			require.NoError(tb, err)
		})
		require.True(t, s.failed)
		require.Contains(t, s.text(), `1 on provider "p" of service "chat"`)
		require.Contains(t, s.text(), "Done")
		lease.Done(nil)
		synctest.Wait()

		s = spyOn(t, "Test", func(tb testing.TB) {
			reg := registrytest.New(tb, registry.Options{})
			script := registrytest.NewScript(registrytest.Hang())
			add(tb, reg, provider{Name: "p", Instance: fake{script, ""}})
			go func() { _, _ = ask(context.Background(), reg, registry.AttemptTimeout(time.Hour)) }()
			synctest.Wait()
			require.Equal(tb, 1, script.InFlight())
		})
		require.True(t, s.failed, "it ended only because it was told to")
	})
}

// slowToClose is a model that takes its time.
type slowToClose struct{ fake }

func (slowToClose) Close() error {
	time.Sleep(3500 * time.Millisecond)
	return nil
}

func TestNew_SlowCloserIsNotReportedAsACall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := spyOn(t, "Test", func(tb testing.TB) {
			reg := registrytest.New(tb, registry.Options{})
			_, err := chat.Register(context.Background(), reg, provider{Factory: func(context.Context) (chatModel, error) {
				return slowToClose{says("a")}, nil
			}})
			require.NoError(tb, err)
			asked(tb, reg)
		})
		require.True(t, s.failed)
		require.Contains(t, s.text(), "closes instances")
		require.NotContains(t, s.text(), "Done")
	})
}

func TestSwap_EndsWithItsTest(t *testing.T) {
	reg := registrytest.New(t, registry.Options{})
	add(t, reg, provider{Name: "cloud"})
	t.Run("test", func(t *testing.T) {
		registrytest.Swap[chatModel](t, reg, chat, "cloud", says("fake"))
		require.Equal(t, "fake", asked(t, reg))
		t.Run("inside", func(t *testing.T) {
			registrytest.Swap[chatModel](t, reg, chat, "cloud", says("inner"))
			require.Equal(t, "inner", asked(t, reg))
		})
		require.Equal(t, "fake", asked(t, reg))
		undo := registrytest.Override[chatModel](t, reg, chat, says("one"), says("two"))
		require.Equal(t, "one", asked(t, reg))
		undo()
		require.Equal(t, "fake", asked(t, reg))
		undo()
	})
	require.Equal(t, "cloud", asked(t, reg))
}

func TestOverride_FailsOverAmongItsInstances(t *testing.T) {
	t.Parallel()
	reg := registrytest.New(t, registry.Options{ForbidMocks: true})
	add(t, reg, provider{Name: "cloud"})
	down := fake{registrytest.NewScript(registrytest.Error(errDown)), ""}
	undo := registrytest.Override[chatModel](t, reg, chat, down, says("two"))
	require.Equal(t, "two", asked(t, reg))
	undo()
	undo = registrytest.OverrideWith(t, reg, chat, provider{Name: "named", Instance: says("named")})
	record := registrytest.Record(t, reg)
	require.Equal(t, "named", asked(t, reg))
	record.AssertAnsweredBy("named")
	undo()
	undo = registrytest.Override(t, reg, chat)
	_, err := ask(t.Context(), reg)
	require.ErrorIs(t, err, registry.ErrUnavailable, "an outage")
	undo()
	require.Equal(t, "cloud", asked(t, reg))
}

func TestSwap_RefusalEndsTheTestWithAdvice(t *testing.T) {
	t.Parallel()
	reg := registrytest.New(t, registry.Options{})
	add(t, reg, provider{Name: "cloud"})
	s := spyOn(t, "TestA", func(tb testing.TB) {
		registrytest.Swap[chatModel](tb, reg, chat, "clout", says("x"))
		panic("not reached")
	})
	require.Contains(t, s.text(), `there are "cloud"`)
	spyOn(t, "TestA", func(tb testing.TB) {
		registrytest.Swap[chatModel](tb, reg, chat, "cloud", says("a"))
		s := spyOn(t, "TestB", func(tb testing.TB) {
			registrytest.Swap[chatModel](tb, reg, chat, "cloud", says("b"))
			panic("not reached")
		})
		require.Contains(tb, s.text(), `"TestA"`)
		require.Contains(tb, s.text(), "a registry of their own")
		s = spyOn(t, "TestB", func(tb testing.TB) {
			registrytest.Override(tb, reg, chat)
			panic("not reached")
		})
		require.Contains(tb, s.text(), `override of service "chat"`)
		require.Equal(tb, "a", asked(tb, reg))
	})
	require.Equal(t, "cloud", asked(t, reg))
}

func TestSwap_LongCallFailsTheTest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := registrytest.New(t, registry.Options{})
		add(t, reg, provider{Name: "cloud"})
		failure := make(chan error, 1)
		s := spyOn(t, "Test", func(tb testing.TB) {
			registrytest.Swap[chatModel](tb, reg, chat, "cloud", fake{registrytest.NewScript(registrytest.Hang()), ""})
			go func() {
				_, err := ask(context.Background(), reg, registry.OnceOnly())
				failure <- err
			}()
			synctest.Wait()
		})
		require.Contains(t, s.text(), "were told to end")
		require.ErrorIs(t, <-failure, registry.ErrClosed)
	})
}

func TestFail_RegistryGetsEachClass(t *testing.T) {
	t.Parallel()
	for class := verdict.ClassUnknown; class <= verdict.ClassIgnored; class++ {
		if class == verdict.ClassSuccess {
			require.NoError(t, registrytest.NewScript(registrytest.Fail(class)).Play(t.Context()))
			continue
		}
		reg := registrytest.New(t, registry.Options{})
		record := registrytest.Record(t, reg)
		add(t, reg, provider{Name: "p", Instance: fake{registrytest.NewScript(registrytest.Fail(class)), ""}})
		_, err := ask(t.Context(), reg)
		require.Error(t, err)
		require.Equal(t, class, record.Calls()[0].Attempts[0].Class, class)
	}
}

func TestScript_RegistryGetsHangsPanicsAndExits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := registrytest.New(t, registry.Options{PanicsAsErrors: true})
		record := registrytest.Record(t, reg)
		script := registrytest.NewScript(registrytest.Hang(), registrytest.Panic("boom"), registrytest.Exit(), registrytest.Cut(1))
		add(t, reg, provider{Name: "bad", Instance: fake{script, "well again"}})
		add(t, reg, provider{Name: "good", Group: 1})
		require.Equal(t, "good", asked(t, reg))
		require.Equal(t, "good", asked(t, reg))
		exited := make(chan struct{})
		go func() {
			defer close(exited)
			_, _ = ask(context.Background(), reg)
		}()
		<-exited
		require.Equal(t, "good", asked(t, reg))
		require.Equal(t, "well again", asked(t, reg))
		var classes []verdict.Class
		for _, report := range record.Calls() {
			classes = append(classes, report.Attempts[0].Class)
		}
		require.Equal(t, []verdict.Class{
			verdict.ClassAttemptTimeout, verdict.ClassPanic, verdict.ClassExit, verdict.ClassTransport, verdict.ClassSuccess,
		}, classes)
	})
}
