package llm

import (
	"errors"
	"sync/atomic"

	"github.com/capreg/registry/verdict"
)

// ErrMemory reports that a [Memory] is used up. It says nothing about the provider.
var ErrMemory = errors.New("llm: too many bytes are held at once")

// Memory bounds the bytes that requests and answers hold together. Use [NewMemory] to create one; nil is without a bound.
// It is safe for concurrent use, and does not block.
type Memory struct {
	left atomic.Int64
}

// NewMemory returns a memory of so many bytes.
func NewMemory(bytes int64) *Memory {
	m := &Memory{}
	m.left.Store(bytes)
	return m
}

// Take takes n bytes, or none with an error that matches [ErrMemory].
func (m *Memory) Take(n int64) error {
	if m == nil {
		return nil
	}
	for left := m.left.Load(); left >= n; left = m.left.Load() {
		if m.left.CompareAndSwap(left, left-n) { // what is refused is at no time missing for others
			return nil
		}
	}
	return verdict.Ignore(ErrMemory)
}

// Free gives back n bytes that were taken.
func (m *Memory) Free(n int64) {
	if m != nil {
		m.left.Add(n)
	}
}
