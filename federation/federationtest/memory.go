package federationtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/capreg/registry/federation"
)

// Memory is a [federation.Store] in memory. Its methods are safe for concurrent use. Use [NewMemory] to create one.
type Memory struct {
	mu       sync.Mutex // guards what follows
	records  map[string]federation.Record
	revision uint64
	watches  map[*memoryWatch]struct{}
	down     bool
}

// memoryWatch is a watch in progress.
type memoryWatch struct {
	prefix string
	queue  []federation.Record // guarded by Memory.mu, as ended
	ended  bool
	more   chan struct{}
}

var errDown = errors.New("the memory store is down")

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{records: map[string]federation.Record{}, watches: map[*memoryWatch]struct{}{}}
}

// String returns "memory".
func (*Memory) String() string { return "memory" }

// Stop makes every operation fail, and ends all watches with an error, until [Memory.Start].
func (m *Memory) Stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = true
	for w := range m.watches {
		w.ended = true
		w.wake()
	}
	clear(m.watches)
}

// Start ends what [Memory.Stop] began. With wiped the records are gone, and revisions begin at 1.
func (m *Memory) Start(wiped bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = false
	if wiped {
		m.revision = 0
		clear(m.records)
	}
}

// Save returns a copy of all records, for [Memory.Restore].
func (m *Memory) Save() map[string]federation.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.records)
}

// Restore replaces all records by those of [Memory.Save], as a backup does: their revisions are the old ones. Watches
// are not told.
func (m *Memory) Restore(records map[string]federation.Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.records, m.revision = maps.Clone(records), 0
	for _, record := range records {
		m.revision = max(m.revision, record.Revision)
	}
}

func (w *memoryWatch) wake() {
	select {
	case w.more <- struct{}{}:
	default: // it is known
	}
}

// begin locks the store, or returns an error.
func (m *Memory) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	if m.down {
		m.mu.Unlock()
		return errDown
	}
	return nil
}

// Get implements [federation.Store], as the methods below do.
func (m *Memory) Get(ctx context.Context, key string) (federation.Record, error) {
	if err := m.begin(ctx); err != nil {
		return federation.Record{}, err
	}
	defer m.mu.Unlock()
	record, there := m.records[key]
	if !there {
		return federation.Record{}, fmt.Errorf("%q: %w", key, federation.ErrMissing)
	}
	return record, nil
}

// Put writes a record whatever there is.
func (m *Memory) Put(ctx context.Context, key string, value []byte) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	m.write(key, value)
	return nil
}

// Update writes a record if it has the revision.
func (m *Memory) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	if err := m.begin(ctx); err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	if m.records[key].Revision != revision {
		return 0, fmt.Errorf("%q: %w", key, federation.ErrChanged)
	}
	return m.write(key, value), nil
}

// Delete removes a record if it has the revision.
func (m *Memory) Delete(ctx context.Context, key string, revision uint64) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	record, there := m.records[key]
	switch {
	case !there:
		return nil
	case revision != 0 && record.Revision != revision:
		return fmt.Errorf("%q: %w", key, federation.ErrChanged)
	}
	delete(m.records, key)
	m.revision++
	m.tell(federation.Record{Key: key, Revision: m.revision, Deleted: true})
	return nil
}

// write writes a record, with mu held.
func (m *Memory) write(key string, value []byte) uint64 {
	m.revision++
	record := federation.Record{Key: key, Value: slices.Clone(value), Revision: m.revision}
	m.records[key] = record
	m.tell(record)
	return m.revision
}

// tell gives a change to the watches, with mu held.
func (m *Memory) tell(record federation.Record) {
	for w := range m.watches {
		if strings.HasPrefix(record.Key, w.prefix) {
			w.queue = append(w.queue, record)
			w.wake()
		}
	}
}

// Watch tells the records, and then the changes.
func (m *Memory) Watch(ctx context.Context, prefix string, tell func(federation.Record)) error {
	if err := m.begin(ctx); err != nil {
		return err
	}
	w := &memoryWatch{prefix: prefix, more: make(chan struct{}, 1)}
	for _, record := range m.records {
		if strings.HasPrefix(record.Key, prefix) {
			w.queue = append(w.queue, record)
		}
	}
	slices.SortFunc(w.queue, func(a, b federation.Record) int { return cmp.Compare(a.Revision, b.Revision) })
	w.queue = append(w.queue, federation.Record{Synced: true})
	m.watches[w] = struct{}{}
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.watches, w)
	}()
	for {
		m.mu.Lock()
		queue, ended := w.queue, w.ended
		w.queue = nil
		m.mu.Unlock()
		for _, record := range queue {
			if err := ctx.Err(); err != nil {
				return err
			}
			tell(record)
		}
		if ended {
			return errDown
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.more:
		}
	}
}
