package federation

import (
	"context"
	"errors"
	"strings"
)

// The errors of a [Store], for errors.Is.
var (
	// ErrMissing reports a key that is not there.
	ErrMissing = errors.New("no such record")
	// ErrChanged reports a compare-and-set that met another revision.
	ErrChanged = errors.New("the record has another revision")
	// ErrTaken reports a node whose name another living process has.
	ErrTaken = errors.New("the node is announced by another process")
)

// Record is a key of a [Store] at one revision, or news of one.
type Record struct {
	Key   string
	Value []byte
	// Revision grows with each write of the store, until it loses its data. It is never zero.
	Revision uint64
	// Deleted reports, in a watch, that the key is not there any more.
	Deleted bool
	// Synced, in a watch, ends what was there when it began. The record has nothing else.
	Synced bool
}

// Store has the operations that federation needs of a key-value engine, such as NATS JetStream or etcd. Package federationtest has the suite that
// an implementation must pass, and one in memory for tests.
//
// Keys consist of letters, digits, "-", "_", "=" and ".", and have at most 900 bytes; values have at most 64 KiB. All methods block
// until the engine has answered or ctx ends, and are safe for concurrent use. An error that is neither of those that a
// method names means that the engine cannot be reached, and that a write may have happened.
type Store interface {
	// String names the store in one line, for errors and views.
	String() string
	// Get returns the record as the engine has it now, not a copy nearer by, or an error that matches [ErrMissing].
	Get(ctx context.Context, key string) (Record, error)
	// Put writes a record whatever there is.
	Put(ctx context.Context, key string, value []byte) error
	// Update writes a record if it still has the revision, with zero if there is none, and returns the new revision.
	// Otherwise the error matches [ErrChanged].
	Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error)
	// Delete removes a record if it still has the revision, with zero whatever it has. A record that is not there
	// is no error; one of another revision is [ErrChanged].
	Delete(ctx context.Context, key string, revision uint64) error
	// Watch tells all records whose key begins with the prefix, then one that is Synced, then each change, in the
	// order of the writes and in one goroutine at a time. It returns when ctx ends, or with an error when it may
	// have missed something; it is then called again. A change that was made and undone may be left out.
	Watch(ctx context.Context, prefix string, tell func(Record)) error
}

// NodeOf returns the node whose record has the key, or "" if it is not that of a node, and whether it is the lease of the node.
// It is for an engine that deletes the records of a process that is gone by itself, such as etcd: a node that still
// lives writes them again, and until then nothing of it is to be removed.
func NodeOf(key string) (node string, lease bool) {
	if rest, ok := strings.CutPrefix(key, leasePrefix); ok && isWord(rest) {
		return rest, true
	}
	if rest, ok := strings.CutPrefix(key, entryPrefix); ok {
		if node, _, more := strings.Cut(rest, "."); more && isWord(node) {
			return node, false
		}
	}
	return "", false
}

// list returns the records below a prefix, by their keys.
func list(ctx context.Context, store Store, prefix string) (map[string]Record, error) {
	watching, stop := context.WithCancel(ctx)
	defer stop()
	records, synced := make(map[string]Record), false
	err := store.Watch(watching, prefix, func(record Record) {
		switch {
		case synced:
		case record.Synced:
			synced = true
			stop()
		case record.Deleted:
			delete(records, record.Key)
		default:
			records[record.Key] = record
		}
	})
	if synced {
		return records, nil
	}
	if err == nil {
		err = errors.New("the watch has ended early")
	}
	return nil, err
}
