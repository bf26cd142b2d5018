package registrytest

import (
	"context"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/capreg/registry/verdict"
)

// Step is the outcome of one call of a fake. The zero value answers at once, as [OK] does.
// Steps are values: the methods return changed copies.
type Step struct {
	kind  kind
	err   error
	value any // of a panic
	items int // before a stream is cut or stalls
	times int // in a row; zero is once

	delay time.Duration
	until <-chan struct{}
	deaf  bool
}

type kind uint8

const (
	kindOK kind = iota
	kindError
	kindHang
	kindPanic
	kindExit
	kindCut
	kindStall
)

// OK returns a step that answers.
func OK() Step { return Step{} }

// Error returns a step that fails with the error; nil is an answer.
func Error(err error) Step {
	if err == nil {
		return OK()
	}
	return Step{kind: kindError, err: err}
}

// Fail returns a step that fails with an error of that class, independent of classifiers; a
// success is an answer. See [Panic], [Exit] and [Hang] for outcomes without an error.
func Fail(class verdict.Class) Step {
	if class == verdict.ClassSuccess {
		return OK()
	}
	return Error(verdict.As(fmt.Errorf("scripted: %v", class), verdict.Verdict{Class: class}))
}

// RateLimit returns a step that is refused by a rate limit, with the given delay; zero leaves
// the delay to the registry.
func RateLimit(after time.Duration) Step {
	return Error(verdict.RateLimited(&statusError{http.StatusTooManyRequests, after, ""}, after))
}

// HTTPStatus returns a step that fails with an HTTP status code and, if it is more than zero,
// the delay of a Retry-After header. It is classified by [verdict.OfHTTPStatus], unless a
// classifier takes precedence; servers of this package answer with the code.
func HTTPStatus(code int, retryAfter time.Duration) Step {
	return Error(&statusError{code, retryAfter, ""})
}

// statusError is an error of a server.
type statusError struct {
	code  int
	after time.Duration
	what  string // the vendor's word for it
}

func (e *statusError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("scripted: %d %s %s", e.code, http.StatusText(e.code), e.what))
}

func (e *statusError) HTTPStatusCode() int { return e.code }

func (e *statusError) RetryAfter() time.Duration { return e.after }

// Hang returns a step that waits for the end of the call's context, and returns its error.
func Hang() Step { return Step{kind: kindHang} }

// Panic returns a step that panics with the value.
func Panic(value any) Step { return Step{kind: kindPanic, value: value} }

// Exit returns a step that ends the goroutine with [runtime.Goexit].
func Exit() Step { return Step{kind: kindExit} }

// Cut returns a step that ends a stream after so many items as if it were complete, but without
// its end mark. A call that is no stream fails with an error that wraps [io.ErrUnexpectedEOF].
func Cut(items int) Step { return CutWith(items, nil) }

// CutWith returns a step that ends a stream after so many items with the given error. A call
// that is no stream fails with it.
func CutWith(items int, err error) Step { return Step{kind: kindCut, items: max(items, 0), err: err} }

// Stall returns a step whose stream gives so many items, and then nothing until the context of
// the call ends. A call that is no stream hangs.
func Stall(items int) Step { return Step{kind: kindStall, items: max(items, 0)} }

// After makes the step wait for the given time first, or until the context of the call ends,
// whose error it then returns.
func (s Step) After(delay time.Duration) Step { s.delay = delay; return s }

// Until makes the step wait first until the channel is closed, or until the context of the call
// ends. It serves tests on real time: a waiting call goes on when the test closes the channel.
func (s Step) Until(released <-chan struct{}) Step { s.until = released; return s }

// Deaf makes [Step.After] and [Step.Until] ignore the context of the call, as code does that
// cannot be cancelled.
func (s Step) Deaf() Step { s.deaf = true; return s }

// Times repeats the step for so many calls in a row of a sequence; less than one is one.
// Outside a sequence it has no effect.
func (s Step) Times(n int) Step { s.times = n; return s }

// String returns the step in words.
func (s Step) String() string {
	var text strings.Builder
	switch s.kind {
	case kindOK:
		text.WriteString("answer")
	case kindError:
		fmt.Fprintf(&text, "error %q", s.err)
	case kindHang:
		text.WriteString("hang")
	case kindPanic:
		fmt.Fprintf(&text, "panic %v", s.value)
	case kindExit:
		text.WriteString("exit")
	case kindCut:
		fmt.Fprintf(&text, "cut after %d items", s.items)
		if s.err != nil {
			fmt.Fprintf(&text, " with %q", s.err)
		}
	case kindStall:
		fmt.Fprintf(&text, "stall after %d items", s.items)
	}
	if s.delay > 0 {
		fmt.Fprintf(&text, " after %v", s.delay)
	}
	if s.until != nil {
		text.WriteString(" when released")
	}
	if s.deaf {
		text.WriteString(", deaf")
	}
	if s.times > 1 {
		fmt.Fprintf(&text, ", %d times", s.times)
	}
	return text.String()
}

// wait waits for the delay and the channel of the step, and returns the error of the context
// when that ends first.
func (s Step) wait(ctx context.Context) error {
	ended := ctx.Done()
	if s.deaf {
		ended = nil
	}
	if s.delay > 0 {
		timer := time.NewTimer(s.delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ended:
			return ctx.Err()
		}
	}
	if s.until != nil {
		select {
		case <-s.until:
		case <-ended:
			return ctx.Err()
		}
	}
	return nil
}

// open plays the step up to the first item, if there are any.
func (s Step) open(ctx context.Context) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	switch s.kind {
	case kindError:
		return s.err
	case kindHang:
		return hang(ctx)
	case kindPanic:
		panic(s.value)
	case kindExit:
		runtime.Goexit()
	case kindOK, kindCut, kindStall:
	}
	return nil
}

func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// play plays the step of a call that is no stream.
func (s Step) play(ctx context.Context) error {
	if err := s.open(ctx); err != nil {
		return err
	}
	switch s.kind {
	case kindCut:
		if s.err == nil {
			return fmt.Errorf("scripted: cut: %w", io.ErrUnexpectedEOF)
		}
		return s.err
	case kindStall:
		return hang(ctx)
	default:
		return nil
	}
}

// Script decides the outcome of each call of a fake. In this order, it is
//
//  1. the step of a period that includes now ([Script.During]),
//  2. a random step ([Script.Sometimes]),
//  3. the next step of the sequence ([NewScript], [Script.Then]),
//  4. the step after the end of the sequence ([Script.Always]): an answer by default.
//
// The zero value answers every call. Its methods are safe for concurrent use, return the
// script, and may be called while it is in use.
type Script struct {
	// mu guards the fields below; it is not held while a step is played.
	mu       sync.Mutex
	steps    []Step
	rest     Step
	chances  []chance
	periods  []period
	begun    int
	inFlight int
}

type chance struct {
	random      *rand.Rand
	probability float64
	step        Step
}

type period struct {
	from, until time.Time
	step        Step
}

// NewScript returns a script with a sequence: one step for each call, in order. After its end
// calls are answered; see [Script.Always].
func NewScript(steps ...Step) *Script { return new(Script).Then(steps...) }

// Then adds steps to the sequence.
func (s *Script) Then(steps ...Step) *Script {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps = append(s.steps, steps...)
	return s
}

// Always sets the outcome of calls after the end of the sequence.
func (s *Script) Always(step Step) *Script {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rest = step
	return s
}

// Sometimes gives calls the step with the given probability, from 0 to 1, in a random sequence
// that depends on the seed alone. It panics for other probabilities. Several are drawn in the
// order in which they were added, each only for calls that the earlier ones did not take: give
// them different seeds.
func (s *Script) Sometimes(seed uint64, probability float64, step Step) *Script {
	if !(probability >= 0 && probability <= 1) {
		panic(fmt.Sprintf("registrytest: probability is %v: want 0 to 1", probability))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chances = append(s.chances, chance{rand.New(rand.NewPCG(seed, 0)), probability, step}) //nolint:gosec // to be repeated
	return s
}

// During gives the step to calls that begin in a period; its ends are counted from now.
func (s *Script) During(from, until time.Duration, step Step) *Script {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.periods = append(s.periods, period{now.Add(from), now.Add(until), step})
	return s
}

// Clear drops all later steps: calls are answered.
func (s *Script) Clear() *Script {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps, s.rest, s.chances, s.periods = nil, OK(), nil, nil
	return s
}

// Calls returns the number of calls that have begun.
func (s *Script) Calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun
}

// InFlight returns the number of calls that have begun and not ended. Streams count while they
// are being read.
func (s *Script) InFlight() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inFlight
}

// Left returns the number of calls in the rest of the sequence.
func (s *Script) Left() (calls int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, step := range s.steps {
		calls += max(step.times, 1)
	}
	return calls
}

// Play plays the step of the next call and returns its error; nil leaves the answer to the
// fake. It blocks, panics or exits where the step does.
func (s *Script) Play(ctx context.Context) error {
	step := s.next()
	defer s.done()
	return step.play(ctx)
}

// next begins a call.
func (s *Script) next() Step {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun++
	s.inFlight++
	now := time.Now()
	for _, p := range s.periods {
		if !now.Before(p.from) && now.Before(p.until) {
			return p.step
		}
	}
	for _, c := range s.chances {
		if c.random.Float64() < c.probability {
			return c.step
		}
	}
	if len(s.steps) == 0 {
		return s.rest
	}
	step := s.steps[0]
	if step.times > 1 {
		s.steps[0].times--
	} else {
		s.steps = s.steps[1:]
	}
	return step
}

// skip begins a call that plays no step of the script.
func (s *Script) skip() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight++
}

func (s *Script) done() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight--
}

// Stream plays the step of the next call on a stream of the given items: an error comes before
// the first item, a cut or a stall after some of them. The items can be read once, until ctx
// ends.
func Stream[I any](ctx context.Context, s *Script, items ...I) (iter.Seq2[I, error], error) {
	step := s.next()
	opened := false
	defer func() {
		if !opened {
			s.done()
		}
	}()
	if err := step.open(ctx); err != nil {
		return nil, err
	}
	opened = true
	given := len(items)
	if step.kind == kindCut || step.kind == kindStall {
		given = min(step.items, given)
	}
	var once sync.Once
	return func(yield func(I, error) bool) {
		defer once.Do(s.done)
		var none I
		for _, item := range items[:given] {
			if err := ctx.Err(); err != nil {
				yield(none, err)
				return
			}
			if !yield(item, nil) {
				return
			}
		}
		if err := step.endOfStream(ctx); err != nil {
			yield(none, err)
		}
	}, nil
}

// endOfStream returns the error that a stream has after its items: that of a cut, or of a context for
// whose end a stall has waited.
func (s Step) endOfStream(ctx context.Context) error {
	switch s.kind {
	case kindCut:
		return s.err
	case kindStall:
		return hang(ctx)
	default:
		return nil
	}
}
