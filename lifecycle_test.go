package registry_test

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
)

func TestWaitReadyWithNothingRequiredReturnsAtOnce(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		require.NoError(t, reg.WaitReady(t.Context()))
	})
}

func TestWaitReadyReturnsWhenEachServiceHasAnEligibleProvider(t *testing.T) {
	t.Parallel()
	other := registry.NewService[chatModel]("other")
	bubble(t, registry.Options{Required: []string{"chat", "other"}}, func(t *testing.T, reg *registry.Registry) {
		began := time.Now()
		var changes sync.WaitGroup
		changes.Go(func() {
			time.Sleep(time.Second)
			ill := add(t, reg, provider{Name: "a"})
			if err := ill.MarkUnhealthy(errDown); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
			_, err := other.Register(t.Context(), reg, provider{Name: "b", Handler: "h", Instance: says("b")})
			if err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
			if err := ill.MarkHealthy(); err != nil {
				t.Error(err)
			}
		})
		require.NoError(t, reg.WaitReady(t.Context()))
		require.Equal(t, 3*time.Second, time.Since(began), "it wakes on the change, without polling")
		require.NoError(t, reg.WaitReady(t.Context(), "chat"))
		changes.Wait()
	})
}

func TestWaitReadyWakesWhenABreakerRecovers(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		require.NoError(t, a.ForceOpen(time.Minute, "test"))
		began := time.Now()
		require.NoError(t, reg.WaitReady(t.Context(), "chat"))
		require.Equal(t, time.Minute+time.Nanosecond, time.Since(began))
	})
}

func TestWaitReadyNamesWhatIsMissingAndWhy(t *testing.T) {
	t.Parallel()
	bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := add(t, reg, provider{Name: "a"})
		require.NoError(t, a.MarkUnhealthy(errDown))
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("start-up budget"))
		defer cancel()
		err := reg.WaitReady(ctx, "chat", "nowhere")
		requireOneLine(t, err)
		for _, target := range []error{
			registry.ErrNotReady, registry.ErrUnavailable, registry.ErrUnhealthy, registry.ErrUnknownService,
			errDown, context.DeadlineExceeded,
		} {
			require.ErrorIs(t, err, target)
		}
		require.ErrorContains(t, err, `service "chat": a: unhealthy: down`)
		require.ErrorContains(t, err, `service "nowhere": unknown service`)
		require.ErrorContains(t, err, "start-up budget")
		require.ErrorIs(t, reg.WaitReady(t.Context(), ""), registry.ErrInvalid)
	})
}

func TestCloseEndsThoseWhoWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, registry.Options{})
		var waiting sync.WaitGroup
		waiting.Go(func() { require.ErrorIs(t, reg.WaitReady(t.Context(), "chat"), registry.ErrClosed) })
		synctest.Wait()
		require.NoError(t, reg.Close(t.Context()))
		waiting.Wait()
	})
}

func TestClosedRegistryRefusesEverything(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, registry.Options{})
		a, r := add(t, reg, provider{Name: "a"}), bind(reg)
		require.Equal(t, "a", asked(t, r))
		require.NoError(t, reg.Close(t.Context()))
		_, err := ask(t.Context(), r)
		require.ErrorIs(t, err, registry.ErrClosed)
		require.ErrorIs(t, err, registry.ErrUnavailable)
		_, err = r.Get(t.Context())
		require.ErrorIs(t, err, registry.ErrClosed)
		_, err = r.Acquire(t.Context())
		require.ErrorIs(t, err, registry.ErrClosed)
		_, err = bind(reg, "new query").Get(t.Context())
		require.ErrorIs(t, err, registry.ErrClosed)
		_, err = chat.Register(t.Context(), reg, provider{Instance: says("x")})
		require.ErrorIs(t, err, registry.ErrClosed)
		require.ErrorIs(t, reg.WaitReady(t.Context(), "chat"), registry.ErrClosed)
		require.ErrorIs(t, r.Explain().Err, registry.ErrClosed)
		require.NoError(t, a.Unregister(t.Context()))
		require.Zero(t, reg.Stats().Providers)
		require.NoError(t, reg.Close(t.Context()), "twice")
	})
}

func TestCloseWaitsForCallsAndLeasesInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, registry.Options{})
		add(t, reg, provider{Name: "a", Instance: answers(func() (string, error) { time.Sleep(3 * time.Second); return "a", nil })})
		var caller sync.WaitGroup
		caller.Go(func() { asked(t, bind(reg)) })
		lease, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		time.AfterFunc(5*time.Second, func() { lease.Done(nil) })
		synctest.Wait()
		began := time.Now()
		var closers sync.WaitGroup
		for range 5 {
			closers.Go(func() {
				if err := reg.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		closers.Wait()
		require.Equal(t, 5*time.Second, time.Since(began))
		caller.Wait()
	})
}

func TestCloseTellsCallsByTheirContextsWhenItsTimeIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, registry.Options{})
		a := add(t, reg, provider{Name: "a", Instance: hangs(), AttemptTimeout: time.Hour})
		var caller sync.WaitGroup
		caller.Go(func() {
			_, err := ask(t.Context(), bind(reg))
			require.ErrorIs(t, err, registry.ErrClosed)
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.NoError(t, reg.Close(ctx), "code that heeds its context is not stuck")
		caller.Wait()
		<-a.Left()
		require.NoError(t, a.Unregister(t.Context()))
	})
}

func TestCloseNamesUserCodeThatDoesNotEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, registry.Options{})
		release := make(chan struct{})
		wait := func() { <-release }
		deaf := add(t, reg, provider{Name: "deaf", Instance: answers(func() (string, error) { wait(); return "", nil })})
		add(t, reg, provider{Name: "closer", Capabilities: []string{"c"}, Factory: func(context.Context) (chatModel, error) {
			return &closer{do: wait}, nil
		}})
		add(t, reg, provider{Name: "maker", Capabilities: []string{"m"}, AttemptTimeout: time.Second, Factory: func(context.Context) (chatModel, error) {
			wait()
			return nil, errDown
		}})
		asked(t, bind(reg, "c"))
		_, err := ask(t.Context(), bind(reg, "m"))
		require.Error(t, err)
		var caller sync.WaitGroup
		caller.Go(func() { asked(t, bind(reg)) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = reg.Close(ctx)
		requireOneLine(t, err)
		require.ErrorIs(t, err, registry.ErrStuck)
		require.ErrorContains(t, err, `provider "deaf": still running: 1 call in flight`)
		require.ErrorContains(t, err, `provider "closer": still running: closing its instance`)
		require.ErrorContains(t, err, `factory of provider "maker"`)
		again, cancelAgain := context.WithTimeout(t.Context(), time.Minute)
		defer cancelAgain()
		began := time.Now()
		require.ErrorIs(t, reg.Close(again), registry.ErrStuck, "waited for again")
		require.Equal(t, time.Minute+2*time.Second, time.Since(began))
		close(release)
		caller.Wait()
		<-deaf.Left()
		require.NoError(t, reg.Close(t.Context()))
	})
}

func TestCloseClosesWhatFactoriesMadeInReverseAndJoinsTheErrors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, registry.Options{})
		var order []string
		errA := errors.New("a failed")
		for _, name := range []string{"a", "b", "c", "d"} {
			product := &closer{do: func() {
				order = append(order, name)
				switch name {
				case "b":
					panic("b panicked")
				case "c":
					runtime.Goexit()
				}
			}}
			if name == "a" {
				product.err = errA
			}
			add(t, reg, provider{Name: name, Capabilities: []string{name}, Factory: func(context.Context) (chatModel, error) {
				return product, nil
			}})
			asked(t, bind(reg, name))
		}
		err := reg.Close(t.Context())
		requireOneLine(t, err)
		require.Equal(t, []string{"d", "c", "b", "a"}, order)
		require.ErrorIs(t, err, errA)
		var panicked *registry.PanicError
		require.ErrorAs(t, err, &panicked)
		require.ErrorContains(t, err, `closing provider "b": registry: panic: b panicked`)
		require.ErrorContains(t, err, `closing provider "c": registry: goroutine exited`)
	})
}

func TestCloseWithAContextThatHasEndedClosesWhatIsIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, registry.Options{})
		add(t, reg, provider{Name: "a"})
		product := &closer{}
		add(t, reg, provider{Name: "b", Group: -1, Factory: func(context.Context) (chatModel, error) { return product, nil }})
		asked(t, bind(reg))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, reg.Close(ctx))
		require.Equal(t, 1, product.closed)
	})
}

func TestCloseWaitsForProvidersThatLeftBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, registry.Options{})
		a := add(t, reg, provider{Name: "a"})
		lease, err := bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		add(t, reg, provider{Name: "a", Replace: true})
		time.AfterFunc(2*time.Second, func() { lease.Done(nil) })
		began := time.Now()
		require.NoError(t, reg.Close(t.Context()))
		require.Equal(t, 2*time.Second, time.Since(began))
		<-a.Left()
	})
}

func TestRegistryHasNoGoroutineAtRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := newRegistry(t, registry.Options{})
		for i := range 100 {
			a := add(t, reg, provider{Name: strconv.Itoa(i)})
			require.NoError(t, a.ForceOpen(time.Hour, "test"))
		}
		// A bubble whose test returns while a goroutine is blocked fails: a
		// registry that was dropped without Close must not do that.
	})
}
