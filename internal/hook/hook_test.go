package hook_test

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/hook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type (
	set  = hook.Set[string, int]
	list = hook.List[string, int]
	key  struct{}
)

// journal notes what runs.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) note(format string, arguments ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, arguments...))
}

// take returns the lines since the last take.
func (j *journal) take() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	lines := j.lines
	j.lines = nil
	return lines
}

// noting returns a set that notes what it sees and appends its name to the value of the context; then is what else
// each of its functions does.
func (j *journal) noting(name string, then func()) set {
	before := func(ctx context.Context) context.Context {
		defer then()
		return context.WithValue(ctx, key{}, valueOf(ctx)+name)
	}
	return set{
		BeforeCall: func(ctx context.Context, r string) context.Context {
			j.note("%s before %s %s", name, r, valueOf(ctx))
			return before(ctx)
		},
		AfterCall: func(ctx context.Context, r string) { j.note("%s after %s %s", name, r, valueOf(ctx)); then() },
		BeforeAttempt: func(ctx context.Context, r string, a int) context.Context {
			j.note("%s before %s/%d %s", name, r, a, valueOf(ctx))
			return before(ctx)
		},
		AfterAttempt: func(ctx context.Context, r string, a int) {
			j.note("%s after %s/%d %s", name, r, a, valueOf(ctx))
			then()
		},
	}
}

func valueOf(ctx context.Context) string {
	value, _ := ctx.Value(key{}).(string)
	return value
}

func report() string { return "call" }

// run runs the functions around one call with one attempt, in a goroutine that they may end.
func run(s *hook.Sets[string, int]) {
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() {
		ctx := s.BeforeCall(context.Background(), report)
		defer s.AfterCall(ctx, report)
		defer s.AfterAttempt(ctx, report, 1)
		s.BeforeAttempt(ctx, report, 1)
	})
}

func nothing() {}

func TestSets_FirstIsAroundTheOthers(t *testing.T) {
	t.Parallel()
	var l list
	var j journal
	require.Nil(t, l.Sets())
	l.Add(j.noting("a", nothing))
	l.Add(j.noting("b", nothing))
	run(l.Sets())
	require.Equal(t, []string{
		"a before call ", "b before call a", "a before call/1 ab", "b before call/1 aba",
		"b after call/1 ab", "a after call/1 ab", "b after call ab", "a after call ab",
	}, j.take())
}

// Each kind of function meets a neighbour that panics, ends the goroutine, or makes no context.
func TestSets_NoFunctionSilencesAnother(t *testing.T) {
	t.Parallel()
	for name, then := range map[string]func(){"panic": func() { panic("hook") }, "exit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var l list
			var j journal
			l.Add(j.noting("a", nothing))
			l.Add(j.noting("b", then))
			l.Add(j.noting("c", nothing))
			run(l.Sets())
			lines := j.take()
			for _, of := range []string{"a", "b", "c"} {
				require.Contains(t, lines, of+" before call"+map[string]string{"a": " ", "b": " a", "c": " a"}[of])
				require.Contains(t, lines, of+" after call ac")
			}
			if name == "panic" {
				require.Contains(t, lines, "c after call/1 ac")
				require.Len(t, lines, 12)
			} else {
				require.Len(t, lines, 6, "the call was over before it began")
			}
		})
	}
	t.Run("nil", func(t *testing.T) {
		t.Parallel()
		var l list
		var j journal
		l.Add(set{
			BeforeCall:    func(context.Context, string) context.Context { return nil },
			BeforeAttempt: func(context.Context, string, int) context.Context { return nil },
		})
		l.Add(j.noting("b", nothing))
		l.Add(set{})
		run(l.Sets())
		require.Equal(t, []string{"b before call ", "b before call/1 b", "b after call/1 b", "b after call b"}, j.take())
	})
}

func TestSets_ExitBeforeAnAttemptLetsTheOthersRun(t *testing.T) {
	t.Parallel()
	var l list
	var j journal
	for range 2 {
		l.Add(set{BeforeAttempt: func(ctx context.Context, _ string, _ int) context.Context { runtime.Goexit(); return ctx }})
	}
	l.Add(j.noting("a", nothing))
	run(l.Sets())
	require.Equal(t, []string{"a before call ", "a before call/1 a", "a after call/1 a", "a after call a"}, j.take())
}

func TestList_CallKeepsTheSetsOfItsBeginningButForRemovedOnes(t *testing.T) {
	t.Parallel()
	var l list
	var j journal
	removeA := l.Add(j.noting("a", nothing))
	removeB := l.Add(j.noting("b", nothing))
	began := l.Sets()
	removeC := l.Add(j.noting("c", nothing))
	removeA()
	removeA()
	run(began)
	require.Equal(t, []string{"b before call ", "b before call/1 b", "b after call/1 b", "b after call b"}, j.take())
	run(l.Sets())
	require.Len(t, j.take(), 8)
	removeB()
	removeC()
	require.Nil(t, l.Sets(), "at no cost again")
	run(began)
	require.Empty(t, j.take())
}

func TestList_AFunctionRemovesItsOwnSet(t *testing.T) {
	t.Parallel()
	var l list
	calls := 0
	var remove func()
	remove = l.Add(set{BeforeCall: func(ctx context.Context, _ string) context.Context {
		calls++
		remove()
		l.Add(set{})
		return ctx
	}})
	run(l.Sets())
	run(l.Sets())
	require.Equal(t, 1, calls)
}

func TestSet_EmptyWithoutFunctions(t *testing.T) {
	t.Parallel()
	require.True(t, new(set).Empty())
	full := new(journal).noting("a", nothing)
	for _, one := range []set{
		{BeforeCall: full.BeforeCall},
		{AfterCall: full.AfterCall},
		{BeforeAttempt: full.BeforeAttempt},
		{AfterAttempt: full.AfterAttempt},
	} {
		require.False(t, one.Empty())
	}
}

func TestList_SetsComeAndGoWhileCallsRun(t *testing.T) {
	t.Parallel()
	var l list
	var work sync.WaitGroup
	for caller := range 4 {
		work.Go(func() {
			for range 200 {
				var present, removed int // runs within this goroutine's calls; those of the others may see the set too
				count := &present
				remove := l.Add(set{AfterCall: func(ctx context.Context, _ string) {
					if ctx.Value(key{}) == caller {
						*count++
					}
				}})
				own, ctx := l.Sets(), context.WithValue(t.Context(), key{}, caller)
				own.AfterCall(ctx, report)
				remove()
				count = &removed
				own.AfterCall(ctx, report)
				l.Sets().AfterCall(ctx, report)
				if present != 1 || removed != 0 {
					t.Errorf("ran %d times while it was there, and %d times once removed", present, removed)
				}
			}
		})
	}
	work.Wait()
	require.Nil(t, l.Sets())
}

func TestSets_SkippedOnesSeeNothingOfTheCall(t *testing.T) {
	t.Parallel()
	wanted := context.WithValue(t.Context(), key{}, "wanted")
	skip := func(ctx context.Context) bool { return valueOf(ctx) == "" }
	var l list
	require.Nil(t, l.For(t.Context()))
	add := func(name string, skip func(context.Context) bool) {
		l.Add(set{Skip: skip, BeforeCall: func(ctx context.Context, _ string) context.Context {
			return context.WithValue(ctx, key{}, valueOf(ctx)+name)
		}})
	}
	seenBy := func(ctx context.Context) string {
		return valueOf(l.For(ctx).BeforeCall(context.WithValue(ctx, key{}, ""), report))
	}
	add("a", skip)
	require.Nil(t, l.For(t.Context()), "all skip it")
	require.Same(t, l.Sets(), l.For(wanted))
	add("b", nil)
	add("c", skip)
	add("d", func(context.Context) bool { panic("skip") })
	add("e", func(context.Context) bool { return false })
	require.Equal(t, "abcde", seenBy(wanted))
	require.Equal(t, "bde", seenBy(t.Context()), "also one whose Skip panics")
	require.Equal(t, "bde", seenBy(t.Context()), "the list is as before")
}

func TestSets_BeforeAndBehindASkippedOneSeeTheCall(t *testing.T) {
	t.Parallel()
	var l list
	var seen []string
	for i, skips := range []bool{false, false, true, false, true, false} {
		l.Add(set{Skip: func(context.Context) bool { return skips }, AfterCall: func(context.Context, string) {
			seen = append(seen, strconv.Itoa(i))
		}})
	}
	l.For(t.Context()).AfterCall(t.Context(), report)
	require.Equal(t, []string{"5", "3", "1", "0"}, seen)
}

func TestAsked_CallIsUnseenWhereAllSkipItAndTheOwnerDoesNotAttend(t *testing.T) {
	t.Parallel()
	for _, attends := range []bool{false, true} {
		var l list
		if attends {
			l.Attend()
		}
		unseen := func(ctx context.Context) bool { return new(hook.Asked[string, int]).Unseen(ctx, &l) }
		require.Equal(t, !attends, unseen(t.Context()))
		remove := l.Add(set{Skip: func(ctx context.Context) bool { return valueOf(ctx) == "" }, AfterCall: func(context.Context, string) {}})
		require.Equal(t, !attends, unseen(t.Context()))
		require.False(t, unseen(context.WithValue(t.Context(), key{}, "seen")))
		remove()
		require.Equal(t, !attends, unseen(context.WithValue(t.Context(), key{}, "seen")))
	}
}

func TestAsked_SetsAreAskedOnce(t *testing.T) {
	t.Parallel()
	var l list
	times := 0
	l.Add(set{Skip: func(context.Context) bool { times++; return times == 1 }, AfterCall: func(context.Context, string) {}})
	var asked hook.Asked[string, int]
	for range 2 {
		require.True(t, asked.Unseen(t.Context(), &l))
		require.Nil(t, asked.Seeing(t.Context(), &l))
	}
	require.Equal(t, 1, times)
	require.Same(t, l.Sets(), new(hook.Asked[string, int]).Seeing(t.Context(), &l), "of another call")
}

func TestSets_SkipOfARemovedSetIsNotAsked(t *testing.T) {
	t.Parallel()
	var l list
	asked := 0
	remove := l.Add(set{Skip: func(context.Context) bool { asked++; return true }, AfterCall: func(context.Context, string) {}})
	require.Nil(t, l.For(t.Context()))
	remove()
	require.Nil(t, l.For(t.Context()))
	require.Equal(t, 1, asked)
}
