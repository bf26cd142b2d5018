// Package audit keeps a record of every decision of the agent.
//
// It shows a service of which every provider is wanted, not the best one: a record
// goes to all trails, and one that fails takes nothing from the others.
package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/capreg/registry/examples/agent/internal/lines"
)

// Record is a decision: what a handler wanted, which provider did it, and which
// ones had failed before.
type Record struct {
	Time     time.Time `json:"time"`
	Handler  string    `json:"handler"`
	Service  string    `json:"service"`
	Action   string    `json:"action"`
	Provider string    `json:"provider,omitempty"`
	Failed   []string  `json:"failed,omitempty"` // "openai: server error"
	Err      string    `json:"err,omitempty"`
}

// Trail keeps records. Implementations are safe for concurrent use.
type Trail interface {
	Append(ctx context.Context, r Record) error
}

// ErrAltered is the error of a ledger whose records are not those that were appended.
var ErrAltered = errors.New("audit: the ledger was altered")

// Ledger is a Trail in this process, in which each record is sealed together with
// all before it.
type Ledger struct {
	// mu guards the fields below.
	mu      sync.Mutex
	records []Record
	seals   []string
}

// Append seals the record.
func (l *Ledger) Append(_ context.Context, r Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	sealed, err := seal(l.last(), r)
	if err == nil {
		l.records, l.seals = append(l.records, r), append(l.seals, sealed)
	}
	return err
}

// last returns the seal of the last record. Caller holds mu.
func (l *Ledger) last() string {
	if len(l.seals) == 0 {
		return ""
	}
	return l.seals[len(l.seals)-1]
}

// Records returns a copy of the records, in order.
func (l *Ledger) Records() []Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.records)
}

// Verify checks that the records are those that were appended, in their order.
func (l *Ledger) Verify(records []Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(records) != len(l.seals) {
		return fmt.Errorf("%w: %d records, want %d", ErrAltered, len(records), len(l.seals))
	}
	before := ""
	for i, r := range records {
		sealed, err := seal(before, r)
		if err != nil {
			return err
		}
		if sealed != l.seals[i] {
			return fmt.Errorf("%w: record %d", ErrAltered, i+1)
		}
		before = sealed
	}
	return nil
}

func seal(before string, r Record) (string, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(append([]byte(before), text...))
	return hex.EncodeToString(sum[:]), nil
}

// File is a Trail in a file.
type File struct {
	path string

	// mu keeps the lines of the file whole.
	mu sync.Mutex
}

// NewFile returns the Trail in the file, which is made at the first record.
func NewFile(path string) *File { return &File{path: path} }

// Append writes the record to the end of the file.
func (f *File) Append(_ context.Context, r Record) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return lines.Append(f.path, r)
}

// Records reads the file.
func (f *File) Records() ([]Record, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return lines.Read[Record](f.path)
}
