package control

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin/action"
	"github.com/capreg/registry/event"
)

// Entry is one thing that happened: an event of the registry, or a record of an action.
type Entry struct {
	// ID names the entry for those that read on after it, also in another process.
	ID   string    `json:"id"`
	Time time.Time `json:"time"`
	// Event is set for an event of the registry, Audit for a record.
	Event *event.Event   `json:"event,omitempty"`
	Audit *action.Record `json:"audit,omitempty"`

	number uint64
	text   func() []byte
}

// Kind is the name of the entry's kind: "registry" or "audit".
func (e *Entry) Kind() string {
	if e.Audit != nil {
		return "audit"
	}
	return "registry"
}

// Text returns the JSON form, which is made once for all readers. It is not to be changed.
func (e *Entry) Text() []byte { return e.text() }

// Of reports whether the entry is of the service; every entry is of the empty one.
func (e *Entry) Of(service string) bool {
	switch {
	case service == "":
		return true
	case e.Audit != nil:
		return e.Audit.Service == service
	}
	return e.Event.Service == service
}

// feed keeps the latest entries, and wakes those that wait for more.
type feed struct {
	boot  string
	limit int

	mu       sync.Mutex // guards what follows; nothing waits under it, and no code of users runs
	entries  []*Entry   // the latest, oldest first; a prefix that is too old is cut off now and then
	numbered uint64     // entries so far
	audited  uint64     // records so far
	ended    bool
	more     chan struct{} // closed with the next entry, and at the end
}

func newFeed(boot string, limit int) *feed {
	return &feed{boot: boot, limit: limit, more: make(chan struct{})}
}

// follow enters the events of the subscription until it ends.
func (f *feed) follow(ctx context.Context, events *registry.Subscription) {
	for {
		e, err := events.Next(ctx)
		if err != nil {
			if errors.Is(err, registry.ErrClosed) {
				f.end()
			}
			return
		}
		f.add(&Entry{Time: e.Time, Event: &e})
	}
}

// audit numbers a record and enters it.
func (f *feed) audit(r action.Record) action.Record {
	f.mu.Lock()
	f.audited++
	r.Sequence = f.audited
	f.mu.Unlock()
	f.add(&Entry{Time: r.Time, Audit: &r})
	return r
}

func (f *feed) add(e *Entry) {
	e.text = sync.OnceValue(func() []byte {
		text, _ := json.Marshal(e) // plain data
		return text
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.numbered++
	e.number = f.numbered
	e.ID = f.boot + "-" + strconv.FormatUint(e.number, 10)
	if f.entries = append(f.entries, e); len(f.entries) >= 2*f.limit {
		f.entries = slices.Clone(f.entries[len(f.entries)-f.limit:])
	}
	if !f.ended {
		close(f.more)
		f.more = make(chan struct{})
	}
}

// end wakes all readers for good.
func (f *feed) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ended {
		f.ended = true
		close(f.more)
	}
}

// latest returns the entries that there are, oldest first.
func (f *feed) latest() []*Entry {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.entries[max(0, len(f.entries)-f.limit):])
}

// Cursor reads the entries in their order. Use [Control.Follow]. It is for one reader.
type Cursor struct {
	feed *feed
	next uint64 // the number of the next entry
}

// at returns a cursor that begins after the entry of that ID; the one of another process, or an unknown one, begins
// with the oldest entry that there is. Without an ID it begins with what comes next.
func (f *feed) at(after string) *Cursor {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &Cursor{feed: f, next: f.numbered + 1}
	if after == "" {
		return c
	}
	c.next = 1
	if text, ok := strings.CutPrefix(after, f.boot+"-"); ok {
		if number, err := strconv.ParseUint(text, 10, 64); err == nil && number <= f.numbered {
			c.next = number + 1
		}
	} else if len(f.entries) > 0 {
		c.next = f.entries[0].number // those before were never its own
	}
	return c
}

// Read returns what has come since, and the number of the entries that were lost since, as they came too fast. Where
// nothing has come, wait is closed with the next entry; where nothing will come any more, ended is set.
func (c *Cursor) Read() (entries []*Entry, lost uint64, wait <-chan struct{}, ended bool) {
	f := c.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	first := f.numbered + 1 - uint64(len(f.entries))
	if c.next < first {
		lost, c.next = first-c.next, first
	}
	entries = slices.Clone(f.entries[c.next-first:])
	c.next += uint64(len(entries))
	return entries, lost, f.more, f.ended && len(entries) == 0
}
