package errtree_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/errtree"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errCause = errors.New("cause")

// itself wraps itself.
type itself struct{ name string }

func (i *itself) Error() string { return i.name }
func (i *itself) Unwrap() error { return i }

// endless wraps another one each time.
type endless struct{ n int }

func (e endless) Error() string { return "endless" }
func (e endless) Unwrap() error { return endless{e.n + 1} }

// twice wraps itself twice, and something to find.
type twice struct{}

func (t *twice) Error() string   { return "twice" }
func (t *twice) Unwrap() []error { return []error{errCause, t, t} }

// panics panics when it is unwrapped.
type panics struct{}

func (panics) Error() string { return "panics" }
func (panics) Unwrap() error { panic("Unwrap") }

// list is not comparable.
type list []error

func (list) Error() string     { return "list" }
func (l list) Unwrap() []error { return append(l, l) }

// matcher has methods of its own for both searches.
type matcher struct{ itself }

func (m *matcher) Unwrap() error   { return m }
func (m *matcher) Is(t error) bool { return t == errCause }
func (m *matcher) As(target any) bool {
	found, ok := target.(*endless)
	if ok {
		found.n = 42
	}
	return ok
}

// Variants: a cycle of one and of several errors, an endless chain of new ones, a tree that grows
// without end, a method that panics, values that can't be compared, and each of them inside other errors.
func TestBound_EndsEveryTree(t *testing.T) {
	t.Parallel()
	for _, err := range []error{
		&itself{"loop"},
		endless{},
		&twice{},
		panics{},
		list{errCause},
		&matcher{},
		fmt.Errorf("around: %w", &itself{"loop"}), errors.Join(errCause, &twice{}), fmt.Errorf("%w, %w", endless{}, panics{}),
	} {
		bounded := errtree.Bound(err)
		require.NotErrorIs(t, bounded, errors.New("another"))
		require.Equal(t, err.Error(), bounded.Error())
		require.Equal(t, err.Error(), fmt.Sprintf("%+v", bounded))
		require.NoError(t, errors.Unwrap(bounded))
		require.Same(t, bounded, errtree.Bound(bounded))
		var none interface{ Nothing() }
		require.NotErrorAs(t, fmt.Errorf("again: %w", bounded), &none)
	}
}

func TestBound_MatchesTheOutermostErrorsOfWhatItCuts(t *testing.T) {
	t.Parallel()
	loop := &itself{"loop"}
	bounded := errtree.Bound(fmt.Errorf("around: %w", loop))
	require.ErrorIs(t, bounded, loop)
	var found *itself
	require.ErrorAs(t, bounded, &found)
	require.Same(t, loop, found)
	require.ErrorIs(t, errtree.Bound(&twice{}), errCause)
	require.ErrorIs(t, errtree.Bound(&matcher{}), errCause)
	var number endless
	require.ErrorAs(t, errtree.Bound(&matcher{}), &number)
	require.Equal(t, 42, number.n)
}

// All but the searched error are of one type, and none is another's equal.
func TestBound_KeepsTheFirst64ErrorsOfWhatItCuts(t *testing.T) {
	t.Parallel()
	chain := errtree.Bound(endless{})
	require.ErrorIs(t, chain, endless{63})
	require.NotErrorIs(t, chain, endless{64})

	fill := make([]error, 62)
	for i := range fill {
		fill[i] = fmt.Errorf("%d", i)
	}
	wide := errtree.Bound(errors.Join(errors.Join(fill...), panics{}, errCause))
	require.ErrorIs(t, wide, fill[61])
	require.NotErrorIs(t, wide, panics{}, "the 65th")
	for i := range fill {
		fill[i] = fill[0]
	}
	again := errtree.Bound(errors.Join(errors.Join(fill...), errors.Join(fill...), panics{}, errCause))
	require.ErrorIs(t, again, errCause, "an error counts once")
}

func TestBound_LeavesOthersAlone(t *testing.T) {
	t.Parallel()
	require.NoError(t, errtree.Bound(nil))
	deep := errCause
	for range 500 {
		deep = fmt.Errorf("x: %w", deep)
	}
	many := make([]error, 20_000)
	for i := range many {
		many[i] = errCause
	}
	for _, err := range []error{errCause, deep, errors.Join(many...), errors.Join(nil, errCause)} {
		require.Same(t, err, errtree.Bound(err))
	}
}

// tree returns an error of that many errors around one another, and one of that many beside each other, which counts
// the error around them.
func tree(depth, width int) (deep, wide error) {
	deep = errCause
	for range depth - 1 {
		deep = fmt.Errorf("x: %w", deep)
	}
	all := make([]error, width-1)
	for i := range all {
		all[i] = errCause
	}
	return deep, errors.Join(all...)
}

func TestBound_AllowsAThousandErrorsAroundOneAnotherAnd65536InAll(t *testing.T) {
	t.Parallel()
	deep, wide := tree(1000, 1<<16)
	require.Same(t, deep, errtree.Bound(deep))
	require.Same(t, wide, errtree.Bound(wide))
	deep, wide = tree(1001, 1<<16+1)
	require.NotSame(t, deep, errtree.Bound(deep))
	require.NotSame(t, wide, errtree.Bound(wide))
	beside, _ := tree(999, 2)
	require.NotSame(t, beside, errtree.Bound(errors.Join(beside, errCause)))
	joined := errors.Join(beside, beside)
	require.Same(t, joined, errtree.Bound(joined), "the depth of one branch says nothing of the next")
}
