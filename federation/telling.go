package federation

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"

	"github.com/capreg/registry/internal/fault"
)

// tellable is a record that holds for some time.
type tellable interface {
	// now returns the record as it is to be written now, and whether it still holds.
	now() (record any, holds bool)
	// resets reports whether it ends what was told before.
	resets() bool
}

// telling has what a node tells written, in one goroutine. What the store does not take is tried again, until it is out of date or
// something else is to be told under its key: a store may be away, or slow, without the end of a watch.
type telling struct {
	store Store
	more  chan struct{} // has one element while there is something to write

	mu  sync.Mutex          // guards what follows; no store is called with it
	due map[string]*pending // by key
}

// pending is a record to be written; nil is one to be deleted.
type pending struct{ record tellable }

func newTelling(store Store) *telling {
	return &telling{store: store, more: make(chan struct{}, 1), due: map[string]*pending{}}
}

// put has a record written. More than can be kept is told when the store is read again.
func (t *telling) put(key string, record tellable) {
	t.mu.Lock()
	if _, known := t.due[key]; known || len(t.due) < waitingCooldowns {
		t.due[key] = &pending{record}
	}
	t.mu.Unlock()
	wake(t.more)
}

// yields notes that another node has told something under the key, so that this one has nothing to tell any more. It reports whether that
// counts here: a reset that the store does not have yet is of more recent date.
func (t *telling) yields(key string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.due[key]; p != nil && p.record != nil && p.record.resets() {
		return false
	}
	delete(t.due, key)
	return true
}

// run writes until ctx ends.
func (t *telling) run(ctx context.Context) {
	for delay := shortestRetry; ; {
		select {
		case <-ctx.Done():
			return
		case <-t.more:
		}
		for !t.writeAll(ctx) {
			if !sleep(ctx, delay) {
				return
			}
			delay = min(2*delay, longestRetry)
		}
		delay = shortestRetry
	}
}

// writeAll writes what is due, and reports whether nothing is left of it.
func (t *telling) writeAll(ctx context.Context) bool {
	t.mu.Lock()
	due := maps.Clone(t.due)
	t.mu.Unlock()
	all := true
	for _, key := range slices.Sorted(maps.Keys(due)) {
		if !t.is(due[key], key, false) {
			continue // another node was faster, or there is something else to tell
		}
		if t.write(ctx, key, due[key]) != nil {
			all = false
			continue
		}
		t.is(due[key], key, true)
	}
	return all
}

// is reports whether that is still what is to be written under the key, and forgets it once it is done.
func (t *telling) is(p *pending, key string, done bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	same := t.due[key] == p
	if same && done {
		delete(t.due, key)
	}
	return same
}

func (t *telling) write(ctx context.Context, key string, p *pending) error {
	within, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	if p.record == nil {
		return fault.Run(func() error { return t.store.Delete(within, key, 0) })
	}
	record, holds := p.record.now()
	if !holds {
		return nil
	}
	text, err := json.Marshal(record)
	if err != nil || len(text) > MaxRecord {
		return nil // it will never be otherwise
	}
	return fault.Run(func() error { return t.store.Put(within, key, text) })
}
