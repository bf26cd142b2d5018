// Package record keeps what has happened for later questions: how often, by reason, and the latest of it.
package record

import (
	"slices"
	"sync"

	"github.com/capreg/registry/internal/ring"
)

// Counter counts by reason. It is for few reasons: it finds one faster than a map does. The zero value is empty and
// ready to use; it must not be copied. All methods are safe for concurrent use.
type Counter[R comparable] struct {
	// mu guards counts. Nothing is called while it is held.
	mu     sync.Mutex
	counts []count[R]
}

type count[R comparable] struct {
	reason R
	times  uint64
}

// Add counts one more of each of the reasons.
func (c *Counter[R]) Add(reasons ...R) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, reason := range reasons {
		at := slices.IndexFunc(c.counts, func(known count[R]) bool { return known.reason == reason })
		if at < 0 {
			at = len(c.counts)
			c.counts = append(c.counts, count[R]{reason: reason})
		}
		c.counts[at].times++
	}
}

// ByReason returns a copy of the counts; nil when there are none.
func (c *Counter[R]) ByReason() map[R]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.counts) == 0 {
		return nil
	}
	counts := make(map[R]uint64, len(c.counts))
	for _, known := range c.counts {
		counts[known.reason] = known.times
	}
	return counts
}

// Latest keeps the latest values. All methods are safe for concurrent use; those of nil keep nothing.
type Latest[T any] struct {
	// mu guards values. Nothing is called while it is held.
	mu     sync.Mutex
	values *ring.Ring[T]
}

// NewLatest returns a record of at most limit values; nil for a limit of zero.
func NewLatest[T any](limit int) *Latest[T] {
	if limit <= 0 {
		return nil
	}
	return &Latest[T]{values: ring.New[T](limit)}
}

// Add keeps one more value, in place of the oldest when the record is full.
func (l *Latest[T]) Add(value T) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.values.Push(value)
}

// Values returns a copy of the values, oldest first; nil for a record that is nil.
func (l *Latest[T]) Values() []T {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.values.Values()
}
