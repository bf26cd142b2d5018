package federation

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/jsonform"
)

const (
	defaultTTL         = 20 * time.Second
	defaultLinger      = 500 * time.Millisecond
	defaultLeaveWithin = 5 * time.Second
	writesAtOnce       = 16
	choreWithin        = time.Minute
	writesInTurn       = 512 // before it is seen to the lease again
)

// Offer says how a provider is called from elsewhere.
type Offer struct {
	// Kind names the way, such as "nats", by which a source finds its [Binding].
	Kind string
	// Address says where, in the form of the kind; at most 1 KiB.
	Address string
}

// AnnouncerOptions configures an [Announcer].
type AnnouncerOptions struct {
	// Store takes the records.
	Store Store
	// Node is the name of this process, of which there is one in the fleet: a word of letters, digits, "-" and "_", of at
	// most 64 bytes.
	Node string
	// Offer says which providers are offered, and how they are called. It must be a pure function of what the provider
	// is; its health and counts are not followed. Providers that a [Source] has brought in are not offered.
	Offer func(registry.Info) (Offer, bool)
	// TTL is the time after which the node is a suspect if it has not renewed its lease, which it does five times in two TTLs;
	// from 100 ms to 10 min. Default: 20 s.
	TTL time.Duration
	// Linger is the time between the announcement that the node leaves and the end of its lease, in which its calls in flight
	// end and others learn of it. Default: 500 ms. Less than zero: none.
	Linger time.Duration
	// LeaveWithin bounds the writes with which it leaves. Default: 5 s.
	LeaveWithin time.Duration
	// Source is asked for the nodes that are suspects here, for the views of others. Default: none.
	Source *Source
}

// AnnouncerState says how far an announcer has come.
type AnnouncerState string

// The states of an announcer.
//
//	from \ event | claimed | records written | lease lost, not taken | taken by another | end of ctx | lease deleted
//	-------------+---------+-----------------+-----------------------+------------------+------------+--------------
//	idle         | (by Run: claiming)
//	claiming     | joining | –               | –                     | idle, ErrTaken   | idle       | –
//	joining      | –       | serving         | joining               | idle, ErrTaken   | leaving    | –
//	serving      | –       | –               | joining               | idle, ErrTaken   | leaving    | –
//	leaving      | –       | –               | idle                  | idle             | –          | idle
//
// A store that cannot be reached changes no state: what failed is tried again.
const (
	// AnnouncerIdle is an announcer that does not run.
	AnnouncerIdle AnnouncerState = "idle"
	// AnnouncerClaiming is one that waits for the lease of its node: for the store, or for the end of an earlier incarnation.
	AnnouncerClaiming AnnouncerState = "claiming"
	// AnnouncerJoining is one that writes all of its records.
	AnnouncerJoining AnnouncerState = "joining"
	// AnnouncerServing is one whose records are complete.
	AnnouncerServing AnnouncerState = "serving"
	// AnnouncerLeaving is one that has said that it leaves.
	AnnouncerLeaving AnnouncerState = "leaving"
)

// Announcement is the state of an [Announcer] at one moment.
type Announcement struct {
	Node        string         `json:"node"`
	State       AnnouncerState `json:"state"`
	Incarnation string         `json:"incarnation,omitempty"`
	Generation  uint64         `json:"generation,omitempty"`
	// Entries counts the records that are written, and Pending the providers whose record is still to be written or deleted.
	Entries int `json:"entries"`
	Pending int `json:"pending"`
	// Silent is the time since the lease was written; zero before it was.
	Silent time.Duration `json:"silent,omitempty"`
	// Cause is the last error of the store, in one line; empty after a success.
	Cause string `json:"cause,omitempty"`
	// Refused has, by service and name with a slash between them, why a provider that is offered is not announced.
	Refused map[string]string `json:"refused,omitempty"`
}

// MarshalJSON returns the fields by their tags, with the duration as text.
func (a Announcement) MarshalJSON() ([]byte, error) { return jsonform.Marshal(a) }

// UnmarshalJSON reads what MarshalJSON writes. The error names the field and matches [registry.ErrInvalid].
func (a *Announcement) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, a) }

// Announcer puts providers of a registry out, as records of one node in a [Store], and follows their changes. Use
// [NewAnnouncer] to create one. Its methods are safe for concurrent use.
type Announcer struct {
	options AnnouncerOptions

	mu      sync.Mutex // guards what follows; no code of users, no store and no registry is called with it
	state   AnnouncerState
	lease   Lease
	renewed time.Time
	cause   error
	dirty   map[title]struct{} // providers whose record may have to change
	written map[title]string   // records by provider, as the store has them
	sum     uint64             // of the hashes of those
	ill     map[title]error
	stray   map[title]bool // providers whose records are in the store and not in written
	wake    chan struct{}
}

// NewAnnouncer returns an announcer, which does nothing before [Announcer.Run]. The error names the option and matches
// [registry.ErrInvalid].
func NewAnnouncer(options AnnouncerOptions) (*Announcer, error) {
	if err := checkNode("AnnouncerOptions.Node", options.Node); err != nil {
		return nil, err
	}
	switch {
	case options.Store == nil || options.Offer == nil:
		return nil, fmt.Errorf("federation: AnnouncerOptions needs a Store and an Offer: %w", registry.ErrInvalid)
	case options.TTL != 0 && (options.TTL < ShortestTTL || options.TTL > LongestTTL):
		return nil, fmt.Errorf("federation: AnnouncerOptions.TTL is %v: want 0 (%v), or %v to %v: %w",
			options.TTL, defaultTTL, ShortestTTL, LongestTTL, registry.ErrInvalid)
	case options.LeaveWithin < 0:
		return nil, fmt.Errorf("federation: AnnouncerOptions.LeaveWithin is %v: want 0 (%v) or more: %w",
			options.LeaveWithin, defaultLeaveWithin, registry.ErrInvalid)
	}
	if options.TTL == 0 {
		options.TTL = defaultTTL
	}
	if options.Linger == 0 {
		options.Linger = defaultLinger
	}
	if options.LeaveWithin == 0 {
		options.LeaveWithin = defaultLeaveWithin
	}
	return &Announcer{options: options, state: AnnouncerIdle}, nil
}

// Announcement returns the present state.
func (a *Announcer) Announcement() Announcement {
	a.mu.Lock()
	defer a.mu.Unlock()
	view := Announcement{
		Node: a.options.Node, State: a.state, Incarnation: a.lease.Incarnation, Generation: a.lease.Generation,
		Entries: len(a.written), Pending: len(a.dirty), Cause: short(a.cause),
	}
	if !a.renewed.IsZero() {
		view.Silent = time.Since(a.renewed)
	}
	for name, err := range a.ill {
		if view.Refused == nil {
			view.Refused = map[string]string{}
		}
		view.Refused[name.String()] = short(err)
	}
	return view
}

// Run announces the providers until ctx ends or the registry is closed. Then it says that the node leaves, waits
// [AnnouncerOptions.Linger], deletes its records, and returns the error of ctx or one that matches
// [registry.ErrClosed], joined with that of a store that could not be told. End ctx before what serves the calls.
//
// Where the store has a lease of the node, Run waits until that was not renewed for its TTL, and takes it over. If it is
// renewed, or if another process has taken the lease of this one over, the error matches [ErrTaken]. A store that cannot
// be reached is no error: it is tried again. Run runs once at a time, else the error matches [registry.ErrState].
// It waits for the goroutines that it has started.
func (a *Announcer) Run(ctx context.Context, reg *registry.Registry) error {
	if ctx == nil || reg == nil {
		return fmt.Errorf("federation: Run needs a context and a registry: %w", registry.ErrInvalid)
	}
	a.mu.Lock()
	if a.state != AnnouncerIdle {
		a.mu.Unlock()
		return fmt.Errorf("federation: the announcer runs already: %w", registry.ErrState)
	}
	a.state, a.cause, a.renewed = AnnouncerClaiming, nil, time.Time{}
	a.lease = Lease{Node: a.options.Node, Incarnation: rand.Text(), TTL: a.options.TTL}
	a.dirty, a.written, a.sum, a.ill = map[title]struct{}{}, map[title]string{}, 0, map[title]error{}
	a.stray = map[title]bool{}
	a.wake = make(chan struct{}, 1)
	a.mu.Unlock()

	living, end := context.WithCancelCause(ctx)
	var all sync.WaitGroup
	changes := reg.Subscribe(4096, event.Filter{Kinds: []event.Kind{event.Registered, event.Draining, event.Changed}})
	defer changes.Close()
	a.markAll(reg)
	all.Go(func() { end(a.followRegistry(living, reg, changes)) })
	run := &announcing{Announcer: a, reg: reg, delay: shortestRetry, done: make(chan func() error)}
	err := run.run(living)
	end(nil)
	all.Wait()
	if cause := context.Cause(living); errors.Is(cause, registry.ErrClosed) && ctx.Err() == nil {
		err = errors.Join(cause, err)
	}
	err = errors.Join(ctx.Err(), err)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state = AnnouncerIdle
	return err
}

// followRegistry marks the providers that have changed.
func (a *Announcer) followRegistry(ctx context.Context, reg *registry.Registry, changes *registry.Subscription) error {
	for {
		e, err := changes.Next(ctx)
		if err != nil {
			return fmt.Errorf("federation: %w", err)
		}
		if e.Lost > 0 {
			a.markAll(reg)
		}
		a.mark(title{e.Service, e.Provider})
	}
}

func (a *Announcer) mark(name title) {
	a.mu.Lock()
	a.dirty[name] = struct{}{}
	a.mu.Unlock()
	wake(a.wake)
}

func (a *Announcer) markAll(reg *registry.Registry) {
	a.mu.Lock()
	for name := range a.written {
		a.dirty[name] = struct{}{}
	}
	a.mu.Unlock()
	for _, registration := range reg.Registrations() {
		a.mark(title{registration.Definition().Service, registration.Name()})
	}
	wake(a.wake)
}

// note keeps the last error of the store.
func (a *Announcer) note(err error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cause = err
	return err
}

func (a *Announcer) enter(state AnnouncerState) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state = state
}

// record returns the record of a provider, or none where it is not offered.
func (a *Announcer) record(reg *registry.Registry, name title) (string, error) {
	registration, there := reg.Provider(name.service, name.name)
	if !there {
		return "", nil
	}
	info := registration.Info()
	if info.Metadata[MetadataNode] != "" {
		return "", nil
	}
	var offer Offer
	offered := false
	if err := fault.Run(func() error { offer, offered = a.options.Offer(info); return nil }); err != nil || !offered {
		return "", err
	}
	e := Entry{
		Node: a.options.Node, Incarnation: a.lease.Incarnation, Kind: offer.Kind, Address: offer.Address, Definition: info.Definition,
	}
	if err := e.check(); err != nil {
		return "", err
	}
	text, err := json.Marshal(e)
	if err == nil && len(text) > MaxRecord {
		err = refused(fmt.Sprintf("its record has %d bytes: want at most %d", len(text), MaxRecord))
	}
	return string(text), err
}

// take returns at most that many of the providers whose records may have to change.
func (a *Announcer) take(most int) []title {
	a.mu.Lock()
	defer a.mu.Unlock()
	names := slices.SortedFunc(maps.Keys(a.dirty), title.compare)
	names = names[:min(len(names), most)]
	for _, name := range names {
		delete(a.dirty, name)
	}
	return names
}

// flush writes what has to change of the named records. The first error is that of the store.
func (a *Announcer) flush(ctx context.Context, reg *registry.Registry, names []title) error {
	var all sync.WaitGroup
	var first error
	turns := make(chan title)
	for range min(writesAtOnce, len(names)) {
		all.Go(func() {
			for name := range turns {
				if err := a.write(ctx, reg, name); err != nil {
					a.mark(name)
					a.mu.Lock()
					first = errors.Join(first, err)
					a.mu.Unlock()
				}
			}
		})
	}
	for _, name := range names {
		turns <- name
	}
	close(turns)
	all.Wait()
	return first
}

func (a *Announcer) write(ctx context.Context, reg *registry.Registry, name title) error {
	text, ill := a.record(reg, name)
	a.mu.Lock()
	before, there := a.written[name]
	stray := a.stray[name]
	if ill != nil {
		text, a.ill[name] = "", ill
	} else {
		delete(a.ill, name)
	}
	key := entryKey(a.options.Node, a.lease.Incarnation, name)
	a.mu.Unlock()
	if text == before && !stray {
		return nil
	}
	var err error
	switch {
	case text != "":
		err = fault.Run(func() error { return a.options.Store.Put(ctx, key, []byte(text)) })
	case there || stray:
		err = fault.Run(func() error { return a.options.Store.Delete(ctx, key, 0) })
	}
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.stray, name)
	if there {
		a.sum -= sumOf(key, []byte(before))
	}
	if text == "" {
		delete(a.written, name)
		return nil
	}
	a.written[name] = text
	a.sum += sumOf(key, []byte(text))
	return nil
}
