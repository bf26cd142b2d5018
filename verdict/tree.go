package verdict

import "reflect"

// treeSize bounds how many errors of a tree are looked at, so that an error that wraps itself ends too.
const treeSize = 64

// tree has the errors that one wraps, itself first, in the order of [errors.As].
type tree struct {
	nodes  [treeSize]error
	size   int
	linear int // so many of them wrap one another; behind them is a fork
}

func (t *tree) grow(err error) {
	forked := false
	t.add(err, &forked)
	if !forked {
		t.linear = t.size
	}
}

func (t *tree) add(err error, forked *bool) {
	for err != nil && t.size < treeSize {
		t.nodes[t.size] = err
		t.size++
		switch wrapper := err.(type) { //nolint:errorlint // this visits the whole tree
		case interface{ Unwrap() error }:
			err = wrapper.Unwrap()
		case interface{ Unwrap() []error }:
			if !*forked {
				*forked, t.linear = true, t.size
			}
			for _, wrapped := range wrapper.Unwrap() {
				t.add(wrapped, forked)
			}
			return
		default:
			return
		}
	}
}

func (t *tree) all() []error { return t.nodes[:t.size] }

// find returns the first error of the tree that is a T, as [errors.As] does.
func find[T any](t *tree) (found T, ok bool) {
	for _, node := range t.all() {
		if found, ok = node.(T); ok {
			return found, true
		}
		if other, has := node.(interface{ As(target any) bool }); has && other.As(&found) {
			return found, true
		}
	}
	return found, false
}

// has reports whether the first kind of error is in the tree.
func has[T any](t *tree) bool {
	_, found := find[T](t)
	return found
}

// is reports whether one of the targets is in the tree, as [errors.Is] does.
func (t *tree) is(targets ...error) bool {
	for _, node := range t.all() {
		for _, target := range targets {
			if isError(node, target) {
				return true
			}
		}
	}
	return false
}

// isError reports whether an error is the target, or says so; what it wraps is not looked at.
func isError(node, target error) bool {
	if isComparable(node) && node == target { //nolint:errorlint // the tree is visited by the caller
		return true
	}
	other, ok := node.(interface{ Is(target error) bool })
	return ok && other.Is(target)
}

// isComparable reports whether an error can be compared without a panic.
func isComparable(err error) bool { return reflect.ValueOf(err).Comparable() }
