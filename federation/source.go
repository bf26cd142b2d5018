package federation

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/fault"
)

const (
	defaultMostEntries = 100_000
	shortestRetry      = 100 * time.Millisecond
	longestRetry       = 5 * time.Second
	askWithin          = 5 * time.Second
)

var errStale = errors.New("the watch misses what the store has")

// SourceOptions configures a [Source].
type SourceOptions struct {
	// Store has the records of announcers. Default: none, for a source of Listings alone.
	Store Store
	// Listings are further places that list providers.
	Listings []Listing
	// Bindings say how entries become providers. An entry of a service and kind without one is not brought in.
	Bindings []Binding
	// Node is the name of this process, whose own entries are not brought in. Default: none.
	Node string
	// Name names the provider of an entry in the registry. It must be a pure function, and tell entries apart. Default: the node,
	// a slash and the name that the provider has there.
	Name func(Entry) string
	// Accept refuses an entry by an error, which explanations repeat. It must be a pure function. Default: all are accepted.
	Accept func(Entry) error
	// MaxEntries bounds the records that are kept. Default: 100,000.
	MaxEntries int
	// KeepListed bounds the time for which the providers of a listing that cannot be read stay. Default: for ever.
	KeepListed time.Duration
}

// Source brings the providers of other processes into a registry, and follows what becomes of them. Use [NewSource] to
// create one. Its methods are safe for concurrent use.
type Source struct {
	options  SourceOptions
	bindings map[[2]string]Binding // by service and kind

	mu      sync.Mutex // guards what follows; no code of users, no store and no registry is called with it
	running bool
	roster  *roster
	brought map[providerID]*brought
	cause   error         // why the store cannot be reached
	again   func()        // reads the store from the start
	apply   chan struct{} // has one element while there are changes to apply
	look    chan struct{} // has one element while silence is to be looked at
}

// brought holds what became of an entry in the registry.
type brought struct {
	entry        Entry
	name         string
	registration *registry.Registration // nil if it was refused
	refused      error
}

// NewSource returns a source, which does nothing before [Source.Run]. The error names the option and matches
// [registry.ErrInvalid].
func NewSource(options SourceOptions) (*Source, error) {
	s := &Source{
		options: options, bindings: map[[2]string]Binding{}, brought: map[providerID]*brought{},
		apply: make(chan struct{}, 1), look: make(chan struct{}, 1), again: func() {},
	}
	switch {
	case options.Store == nil && len(options.Listings) == 0:
		return nil, fmt.Errorf("federation: SourceOptions has neither a Store nor Listings: %w", registry.ErrInvalid)
	case options.MaxEntries < 0:
		return nil, fmt.Errorf("federation: SourceOptions.MaxEntries is %d: want 0 (the default) or more: %w", options.MaxEntries, registry.ErrInvalid)
	case options.KeepListed < 0:
		return nil, fmt.Errorf("federation: SourceOptions.KeepListed is %v: want 0 (for ever) or more: %w", options.KeepListed, registry.ErrInvalid)
	}
	if options.Node != "" {
		if err := checkNode("SourceOptions.Node", options.Node); err != nil {
			return nil, err
		}
	}
	for i, b := range options.Bindings {
		if err := b.check(i); err != nil {
			return nil, err
		}
		key := [2]string{b.service, b.kind}
		if _, twice := s.bindings[key]; twice {
			return nil, fmt.Errorf("federation: Bindings[%d] repeats the service %q and the kind %q: %w", i, b.service, b.kind, registry.ErrInvalid)
		}
		s.bindings[key] = b
	}
	if s.options.MaxEntries == 0 {
		s.options.MaxEntries = defaultMostEntries
	}
	s.roster = newRoster(s.options.MaxEntries)
	return s, nil
}

// Run brings providers in until ctx ends, or the registry is closed; then they leave, and Run returns the error of ctx or one
// that matches [registry.ErrClosed]. It runs once at a time, else the error matches [registry.ErrState]. A store that
// cannot be reached is no error: it is tried again, and what is known stays meanwhile.
//
// Run applies changes one after the other in the goroutine of its caller. While one takes its time, such as in an admission
// hook, later ones of the same provider are put together. It waits for the goroutines that it has started.
func (s *Source) Run(ctx context.Context, reg *registry.Registry) error {
	if ctx == nil || reg == nil {
		return fmt.Errorf("federation: Run needs a context and a registry: %w", registry.ErrInvalid)
	}
	s.mu.Lock()
	if s.running {
		s.mu.Unlock()
		return fmt.Errorf("federation: the source runs already: %w", registry.ErrState)
	}
	s.running = true
	s.roster, s.brought = newRoster(s.options.MaxEntries), map[providerID]*brought{}
	s.mu.Unlock()
	for _, b := range s.bindings {
		b.bind(reg)
	}

	living, end := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer func() {
		end()
		all.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.running = false
	}()
	all.Go(func() { s.retryNames(living, reg) })
	if s.options.Store != nil {
		all.Go(func() { s.watch(living) })
		all.Go(func() { s.watchSilence(living) })
	} else if s.options.KeepListed > 0 {
		all.Go(func() { s.watchSilence(living) })
	}
	for _, listing := range s.options.Listings {
		all.Go(func() { s.follow(living, listing) })
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.apply:
		}
		if err := s.applyAll(living, reg); err != nil {
			return err
		}
	}
}

// wake marks that there is something to do.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is known
	}
}

// change changes the roster, and has what follows from that done.
func (s *Source) change(f func(r *roster, now time.Time)) {
	s.mu.Lock()
	f(s.roster, time.Now())
	changed := len(s.roster.changed) > 0
	s.mu.Unlock()
	if changed {
		wake(s.apply)
	}
}

// watch follows the store, from the start again whenever it may have missed something.
func (s *Source) watch(ctx context.Context) {
	for delay := shortestRetry; ; delay = min(2*delay, longestRetry) {
		begun, stale, err := s.watchOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		if !stale {
			s.unreachable(err)
		}
		if begun {
			delay = shortestRetry
		}
		if !sleep(ctx, delay) {
			return
		}
	}
}

// watchOnce follows the store until that ends, or until it is stale, as it has missed something. It reports whether it has told
// anything.
func (s *Source) watchOnce(ctx context.Context) (begun, stale bool, err error) {
	watching, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	s.mu.Lock()
	s.again = func() { stop(errStale) }
	s.mu.Unlock()
	err = fault.Run(func() error {
		return s.options.Store.Watch(watching, "", func(record Record) {
			if !begun {
				begun = true
				s.change(func(r *roster, _ time.Time) { r.begin() })
			}
			s.take(record)
		})
	})
	return begun, errors.Is(context.Cause(watching), errStale), err
}

// sleep reports whether ctx goes on after the time.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (s *Source) unreachable(err error) {
	if err == nil {
		err = errors.New("the watch has ended")
	}
	s.change(func(r *roster, _ time.Time) {
		r.lost()
		s.cause = err
	})
	wake(s.look)
}

// take notes one record of the store.
func (s *Source) take(record Record) {
	look := record.Synced
	s.change(func(r *roster, now time.Time) {
		if record.Synced {
			r.read(now)
			s.cause = nil
		} else if node, isLease := cutPrefix(record.Key, leasePrefix); isLease {
			look = s.takeLease(r, record, node, now)
		} else if _, isEntry := cutPrefix(record.Key, entryPrefix); isEntry {
			takeEntry(r, record)
		}
	})
	if look {
		wake(s.look)
	}
}

func cutPrefix(key, prefix string) (rest string, found bool) {
	if len(key) < len(prefix) || key[:len(prefix)] != prefix {
		return "", false
	}
	return key[len(prefix):], true
}

// takeLease notes the record of a lease. It reports whether silence may be due sooner than before: a lease that is renewed
// as it was only makes it later.
func (s *Source) takeLease(r *roster, record Record, node string, now time.Time) (look bool) {
	delete(r.ill, record.Key)
	if record.Deleted {
		r.leaseGone(node, now)
		return true
	}
	n := r.nodes[node]
	if n != nil && n.revision == record.Revision && n.text == string(record.Value) {
		n.reread()
		return false
	}
	var l Lease
	var err error
	if n != nil && n.text != "" && n.text == string(record.Value) {
		l = n.lease
		look = n.state != NodePresent
	} else {
		l, err = readLease(record)
		look = true
	}
	switch {
	case err == nil:
		if !r.reading && !r.reachable { // what was asked was not answered, and the watch goes on
			r.back(now)
			s.cause = nil
		}
		stale := r.leased(&l, record.Revision, now)
		r.nodes[node].text = string(record.Value)
		if stale {
			s.again()
		}
	case len(r.ill) < mostSuspects && len(record.Key) <= longestName:
		r.ill[record.Key] = err
	}
	return look
}

func takeEntry(r *roster, record Record) {
	node, incarnation, of, err := parseEntryKey(record.Key)
	switch {
	case err != nil:
		if len(r.ill) < mostSuspects && len(record.Key) <= 4*longestName {
			r.ill[record.Key] = err
		}
	case record.Deleted:
		r.gone(node, incarnation, of)
	default:
		e, err := readEntry(record, node, incarnation, of)
		if err != nil { // none of it is kept but what its key says
			e = Entry{Node: node, Incarnation: incarnation, Definition: registry.Definition{Service: of.service, Name: of.name}}
		}
		r.put(node, incarnation, of, &item{entry: e, refused: err, sum: sumOf(record.Key, record.Value)})
	}
}

// watchSilence asks the store about nodes that are silent.
func (s *Source) watchSilence(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.look:
		case <-timer.C:
		}
		next := time.Hour
		for s.askAll(ctx, &next) {
			if ctx.Err() != nil {
				return
			}
		}
		timer.Reset(next)
	}
}

// askAll asks about each silent node, and sets when to do so again. It reports whether something may be due already.
func (s *Source) askAll(ctx context.Context, next *time.Duration) (more bool) {
	s.mu.Lock()
	names, at := s.roster.silent(time.Now())
	s.mu.Unlock()
	for _, name := range names {
		if !s.ask(ctx, name) {
			*next = shortestRetry * 5
			return false
		}
	}
	*next = time.Hour
	if !at.IsZero() {
		*next = max(time.Until(at), 0)
	}
	return len(names) > 0
}

// ask asks the store about one node. It reports whether the store has answered.
func (s *Source) ask(ctx context.Context, name string) bool {
	listed := false
	s.change(func(r *roster, now time.Time) { listed = r.expire(name, now) })
	if listed {
		return true
	}
	within, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	var record Record
	err := fault.Run(func() (err error) {
		record, err = s.options.Store.Get(within, leaseKey(name))
		return err
	})
	switch {
	case errors.Is(err, ErrMissing):
		record = Record{}
	case err != nil:
		if ctx.Err() == nil {
			s.change(func(r *roster, _ time.Time) {
				r.lost()
				s.cause = err
			})
		}
		return false
	}
	s.change(func(r *roster, now time.Time) {
		if !r.reachable {
			r.back(now) // and this one has a TTL more, as all have
			return
		}
		if r.asked(name, record.Revision, now) {
			r.nodes[name].behind = false
			s.again()
		}
	})
	return true
}

// follow follows a listing.
func (s *Source) follow(ctx context.Context, listing Listing) {
	name := ""
	for delay := shortestRetry; ; delay = min(2*delay, longestRetry) {
		err := fault.Run(func() error {
			return listing.Follow(ctx, func(list List) {
				if list.Node == "" {
					list.Node = listing.String()
				}
				delay = shortestRetry
				name = s.takeList(&list, name)
			})
		})
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("the listing has ended")
		}
		s.change(func(r *roster, now time.Time) { r.unlisted(name, short(err), s.options.KeepListed, now) })
		wake(s.look)
		if !sleep(ctx, delay) {
			return
		}
	}
}

// takeList notes a list, and forgets the node that the listing had listed before. It returns the node that it lists now.
func (s *Source) takeList(list *List, before string) string {
	s.change(func(r *roster, now time.Time) {
		if n := r.nodes[before]; n != nil && before != list.Node {
			r.leave(before, n)
		}
		r.listedAll(list, now)
	})
	return list.Node
}
