package registrytest

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
)

// ProbeSuite makes the probes under test. Each function sets up a target in the state of its
// name, until the end of the test, and returns a probe of it. A nil function is left out.
type ProbeSuite struct {
	// Well makes a probe of a healthy target.
	Well func(tb testing.TB) health.Probe
	// Limping makes a probe of a target that answers, but badly; see [health.Limp].
	Limping func(tb testing.TB) health.Probe
	// Ill makes a probe of a target that fails.
	Ill func(tb testing.TB) health.Probe
	// Silent makes a probe of a target that never answers.
	Silent func(tb testing.TB) health.Probe
}

// TestProbe checks that probes fulfil the contract of [health.Probe]:
//
//   - they report the state of the target, each time and several at a time, and so does a
//     registry that uses them;
//   - they return when their context ends, with an error where there was no answer (which needs
//     Silent), and when it has ended before;
//   - they neither panic nor end their goroutine, and their errors are one line.
//
// The targets do not change, so a probe that remembers an answer passes: a test of your own
// must check that changes are noticed.
//
// It starts goroutines and waits for them; it works in a bubble of [testing/synctest] if the
// probes do.
func TestProbe(tb testing.TB, suite ProbeSuite) {
	tb.Helper()
	for _, kind := range []struct {
		name  string
		make  func(testing.TB) health.Probe
		want  string
		state health.State
	}{
		{"Well", suite.Well, outcomeWell, health.Healthy},
		{"Limping", suite.Limping, outcomeLimping, health.Degraded},
		{"Ill", suite.Ill, outcomeIll, health.Unhealthy},
	} {
		if kind.make == nil {
			continue
		}
		probe := kind.make(tb)
		if probe == nil {
			tb.Errorf("registrytest: %s made no probe", kind.name)
			continue
		}
		p := probing{tb, kind.name, probe, map[string]bool{}}
		p.finds(kind.want)
		p.findsAtOnce(kind.want)
		p.heedsEnd()
		p.isWorthIn(kind.state)
	}
	if suite.Silent == nil {
		return
	}
	probe := suite.Silent(tb)
	if probe == nil {
		tb.Errorf("registrytest: Silent made no probe")
		return
	}
	p := probing{tb, "Silent", probe, map[string]bool{}}
	p.givesUp()
	p.heedsEnd()
}

const (
	outcomeWell    = "nil"
	outcomeLimping = "an error made by health.Limp"
	outcomeIll     = "an error"
)

// probing is one probe under test.
type probing struct {
	tb    testing.TB
	kind  string
	probe health.Probe
	said  map[string]bool
}

func (p probing) fail(format string, args ...any) {
	p.tb.Helper()
	text := fmt.Sprintf(format, args...)
	if !p.said[text] {
		p.tb.Errorf("registrytest: %s probe: %s", strings.ToLower(p.kind), text)
	}
	p.said[text] = true
}

var (
	errExited = errors.New("it ended its goroutine")
	errStuck  = errors.New("it did not return")
)

// panicked is a panic of the code under test.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("it panicked: %v\n%s", p.value, p.stack) }

// outcome is the end of a function under test: its error, or the fault in its end.
type outcome struct{ err, wrong error }

// begin runs f in a goroutine of its own.
func begin(f func() error) <-chan outcome {
	ended := make(chan outcome, 1)
	go func() {
		is := outcome{wrong: errExited}
		defer func() {
			if value := recover(); value != nil {
				is.wrong = &panicked{value, debug.Stack()}
			}
			ended <- is
		}()
		is = outcome{err: f()}
	}()
	return ended
}

// within runs f, and gives up when it takes too long.
func within(f func() error) outcome {
	enough := time.NewTimer(testLimit)
	defer enough.Stop()
	select {
	case is := <-begin(f):
		return is
	case <-enough.C:
		return outcome{wrong: errStuck}
	}
}

// run runs the probe once.
func (p probing) run(ctx context.Context) outcome {
	return within(func() error { return p.probe(ctx) })
}

// testLimit bounds operations under test that should take no time.
const testLimit = 10 * time.Second

func (p probing) finds(want string) {
	p.tb.Helper()
	for range 2 {
		ctx, cancel := context.WithTimeout(context.Background(), testLimit)
		is := p.run(ctx)
		cancel()
		p.check(want, is)
	}
}

func (p probing) findsAtOnce(want string) {
	p.tb.Helper()
	const many = 8
	ctx, cancel := context.WithTimeout(context.Background(), testLimit)
	defer cancel()
	var outcomes [many]outcome
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() { outcomes[i] = p.run(ctx) })
	}
	all.Wait()
	for _, is := range outcomes {
		p.check(want, is)
	}
}

func (p probing) check(want string, is outcome) {
	p.tb.Helper()
	got := outcomeWell
	switch {
	case is.wrong != nil:
		p.fail("%v", is.wrong)
		return
	case health.IsLimp(is.err):
		got = outcomeLimping
	case is.err != nil:
		got = outcomeIll
	}
	if got != want {
		p.fail("it found %s (%v), want %s", got, is.err, want)
	}
	if is.err != nil {
		p.checkText(is.err)
	}
}

func (p probing) checkText(err error) {
	p.tb.Helper()
	if text := err.Error(); text == "" || strings.ContainsAny(text, "\r\n") {
		p.fail("its error is %q, want one line", text)
	}
}

// heedsEnd checks a probe whose context has ended before.
func (p probing) heedsEnd() {
	p.tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if is := p.run(ctx); is.wrong != nil {
		p.fail("with a context that has ended %v", is.wrong)
	}
}

// givesUp checks a probe whose context ends meanwhile.
func (p probing) givesUp() {
	p.tb.Helper()
	const limit = 50 * time.Millisecond
	for name, bound := range map[string]func() (context.Context, context.CancelFunc){
		"has a deadline": func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), limit)
		},
		"is cancelled": func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(context.Background())
			timer := time.AfterFunc(limit, cancel)
			return ctx, func() { timer.Stop(); cancel() }
		},
	} {
		ctx, cancel := bound()
		is := p.run(ctx)
		switch {
		case is.wrong != nil:
			p.fail("when its context %s %v", name, is.wrong)
		case ctx.Err() == nil:
			p.fail("it returned (%v) before its context ended: is the target silent?", is.err)
		case is.err == nil:
			p.fail("when its context %s it reported a healthy target", name)
		case health.IsLimp(is.err):
			p.fail("when its context %s it found an answer (%v)", name, is.err)
		default:
			p.checkText(is.err)
		}
		cancel()
	}
}

// isWorthIn checks the state that a registry derives from the probe.
func (p probing) isWorthIn(want health.State) {
	p.tb.Helper()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		p.tb.Fatalf("registrytest: %v", err)
	}
	defer closeRegistry(p.tb, reg)
	service := registry.NewService[*ProbeSuite]("suite")
	registration, err := service.Register(context.Background(), reg, registry.Provider[*ProbeSuite]{
		Instance: new(ProbeSuite), Health: health.Policy{Probe: p.probe, Fall: 1},
	})
	if err != nil {
		p.tb.Fatalf("registrytest: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*testLimit)
	defer cancel()
	status, err := registration.CheckHealth(ctx)
	if err != nil || status.State != want {
		p.fail("a registry finds its provider %v (%v), want %v", status.State, err, want)
	}
}
