// Package memory keeps what the agent is to remember.
//
// It shows a service whose answer "not there" is an answer and not a failure
// ([ErrUnknown] has [verdict.ClassResource]), and whose failures are those of a disk.
package memory

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/capreg/registry/examples/agent/internal/lines"
	"github.com/capreg/registry/verdict"
)

// ErrUnknown is the answer of a memory that does not have the key.
var ErrUnknown = verdict.As(errors.New("memory: nothing is known of it"), verdict.Verdict{Class: verdict.ClassResource})

// Memory keeps texts by their keys; the latest text counts. Implementations are
// safe for concurrent use.
type Memory interface {
	Memorize(ctx context.Context, key, text string) error
	Find(ctx context.Context, key string) (string, error)
}

// Scratch is a Memory that ends with the process.
type Scratch struct {
	texts sync.Map
}

// Memorize keeps the text.
func (s *Scratch) Memorize(_ context.Context, key, text string) error {
	s.texts.Store(key, text)
	return nil
}

// Find returns the text of the key, or ErrUnknown.
func (s *Scratch) Find(_ context.Context, key string) (string, error) {
	text, ok := s.texts.Load(key)
	if !ok {
		return "", ErrUnknown
	}
	return text.(string), nil //nolint:forcetypeassert // Memorize stores nothing else
}

// Journal is a Memory in a file.
type Journal struct {
	path string

	// mu keeps the lines of the file whole.
	mu sync.Mutex
}

// NewJournal returns the Memory in the file, which is made at the first text.
func NewJournal(path string) *Journal { return &Journal{path: path} }

type entry struct {
	Key  string `json:"key"`
	Text string `json:"text"`
}

// Memorize appends the text to the file.
func (j *Journal) Memorize(_ context.Context, key, text string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return lines.Append(j.path, entry{key, text})
}

// Find reads the file for the latest text of the key, or returns ErrUnknown.
func (j *Journal) Find(_ context.Context, key string) (string, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	entries, err := lines.Read[entry](j.path)
	if err != nil {
		return "", err
	}
	for _, e := range slices.Backward(entries) {
		if e.Key == key {
			return e.Text, nil
		}
	}
	return "", ErrUnknown
}
