package federation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/fault"
)

var errNotOwn = errors.New("federation: the lease of the node is of another incarnation")

// announcing is one run of an announcer: its lease, step by step, in one goroutine.
type announcing struct {
	*Announcer

	reg      *registry.Registry
	revision uint64
	delay    time.Duration // before the next step, while the store cannot be reached
	unclean  bool          // the store may have records of the node that are not its own
	encoded  Lease         // the last lease that was written, which is often the next one too
	text     []byte        // of that

	// Of the lease that an earlier incarnation has: its revision, and since when it is known.
	earlier uint64
	since   time.Time

	// A chore is what takes long and can wait, in a goroutine of its own, so that the lease is renewed meanwhile. What it
	// finds out is noted by the function that it sends.
	chores   sync.WaitGroup
	done     chan func() error
	busy     bool
	choreErr error // of the last one; it is tried again
	swept    time.Time
	leftover map[string]uint64 // leases, and 0 for records without one, that were there at the last sweep, by key; nil since a fault
	senior   string            // node before this one by name, which had renewed its lease at the last sweep; empty: none
}

// renewal returns the time between renewals of a lease: seldom enough to cost little, and shorter than the half of a TTL for which a
// suspect stays, so that the others hear of each.
func renewal(ttl time.Duration) time.Duration { return 2 * ttl / 5 }

// run announces until ctx ends, and leaves.
func (r *announcing) run(ctx context.Context) error {
	defer r.chores.Wait()
	ctx, end := context.WithCancel(ctx)
	defer end() // before the wait
	for {
		pause, err := r.step(ctx)
		if ctx.Err() != nil {
			return r.leave(context.WithoutCancel(ctx))
		}
		if err != nil {
			return err
		}
		if pause <= 0 {
			continue
		}
		timer := time.NewTimer(pause)
		wake := r.wake
		if r.cause != nil || r.revision == 0 {
			wake = nil // a change of a provider is no reason to ask the store again
		}
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-wake:
		case note := <-r.done:
			r.busy = false
			r.choreErr = note()
		}
		timer.Stop()
	}
}

// step does what is next, and returns how long to wait then. The error ends the run.
func (r *announcing) step(ctx context.Context) (pause time.Duration, err error) {
	if r.revision == 0 {
		pause, err = r.claim(ctx)
	} else {
		pause, err = r.serve(ctx)
	}
	switch {
	case err == nil:
		if pause > 0 {
			r.delay = shortestRetry
		}
		_ = r.note(nil)
		return pause, nil
	case errors.Is(err, ErrTaken):
		return 0, r.note(err)
	}
	_ = r.note(err)
	r.earlier, r.leftover = 0, nil // their owners may have been without the store, too
	pause = r.delay
	r.delay = min(2*r.delay, max(r.options.TTL/6, shortestRetry))
	return pause, nil
}

// within returns the context of one write or read.
func (r *announcing) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, min(max(r.options.TTL/3, shortestRetry), askWithin))
}

// claim takes the lease of the node, or waits for it.
func (r *announcing) claim(ctx context.Context) (pause time.Duration, err error) {
	record, err := r.get(ctx, r.options.Node)
	if err != nil && !errors.Is(err, ErrMissing) {
		return 0, err
	}
	generation := uint64(1)
	if err == nil {
		l, ill := readLease(record)
		ttl := l.TTL
		switch {
		case ill != nil: // it is overwritten like one that is over
			ttl = r.options.TTL
		case l.Incarnation == r.lease.Incarnation: // a write of its own that seemed to fail
			r.revision, r.unclean = record.Revision, true
			r.enter(AnnouncerJoining)
			return 0, nil
		}
		generation = l.Generation + 1
		switch {
		case r.earlier != record.Revision && r.earlier != 0 && ill == nil && l.Phase != Leaving:
			return 0, fmt.Errorf("federation: node %q: incarnation %s renews its lease: %w", r.options.Node, l.Incarnation, ErrTaken)
		case r.earlier != record.Revision:
			r.earlier, r.since = record.Revision, time.Now()
			return min(ttl/4, time.Second), nil
		case time.Since(r.since) < ttl:
			return min(ttl/4, time.Second), nil
		}
	}
	r.mu.Lock()
	r.lease.Generation, r.lease.Phase = generation, Joining
	r.mu.Unlock()
	err = r.renew(ctx, record.Revision)
	if errors.Is(err, ErrChanged) {
		return shortestRetry, nil // its owner is back, or another one was faster
	}
	if err == nil {
		r.unclean = true
		r.enter(AnnouncerJoining)
	}
	return 0, err
}

func (r *announcing) get(ctx context.Context, node string) (record Record, err error) {
	within, cancel := r.within(ctx)
	defer cancel()
	err = fault.Run(func() error {
		record, err = r.options.Store.Get(within, leaseKey(node))
		return err
	})
	return record, err
}

// renew writes the lease over the one of that revision.
func (r *announcing) renew(ctx context.Context, over uint64) error {
	var suspects []string
	if r.options.Source != nil {
		suspects = r.options.Source.Suspects()
	}
	r.mu.Lock()
	r.lease.Entries, r.lease.Sum, r.lease.Suspects = len(r.written), r.sum, suspects
	lease := r.lease
	r.mu.Unlock()
	if r.text == nil || !reflect.DeepEqual(lease, r.encoded) {
		text, err := json.Marshal(lease)
		if err != nil {
			return err
		}
		r.encoded, r.text = lease, text
	}
	within, cancel := r.within(ctx)
	defer cancel()
	begun := time.Now()
	err := fault.Run(func() error {
		revision, err := r.options.Store.Update(within, leaseKey(r.options.Node), r.text, over)
		if err == nil {
			r.revision = revision
		}
		return err
	})
	if err == nil {
		r.mu.Lock()
		r.renewed = begun
		r.mu.Unlock()
	}
	return err
}

// serve renews the lease and writes what has changed.
func (r *announcing) serve(ctx context.Context) (pause time.Duration, err error) {
	every := renewal(r.options.TTL)
	r.mu.Lock()
	due, state := r.renewed.Add(every), r.state
	r.mu.Unlock()
	if time.Until(due) <= 0 {
		return 0, r.keep(ctx)
	}
	if names := r.take(writesInTurn); len(names) > 0 {
		within, cancel := context.WithTimeout(ctx, max(time.Until(due), every))
		defer cancel()
		return 0, r.flush(within, r.reg, names)
	}
	if state == AnnouncerJoining {
		r.mu.Lock()
		r.lease.Phase = Serving
		r.mu.Unlock()
		if err := r.keep(ctx); err != nil {
			return 0, err
		}
		if r.lease.Phase == Serving {
			r.enter(AnnouncerServing)
		}
		return 0, nil
	}
	if err := r.choreErr; err != nil {
		r.choreErr = nil
		return 0, err
	}
	switch {
	case r.busy:
	case r.unclean:
		r.chore(ctx, r.clean)
	case time.Since(r.swept) >= 10*r.options.TTL:
		before, senior := r.leftover, r.senior
		r.swept, r.leftover = time.Now(), map[string]uint64{}
		r.chore(ctx, func(ctx context.Context) func() error { return r.sweep(ctx, before, senior) })
	}
	return time.Until(due), nil
}

// chore begins a chore.
func (r *announcing) chore(ctx context.Context, work func(ctx context.Context) func() error) {
	r.busy = true
	r.chores.Go(func() {
		within, cancel := context.WithTimeout(ctx, choreWithin)
		defer cancel()
		note := work(within)
		select {
		case r.done <- note:
		case <-ctx.Done():
		}
	})
}

// keep renews the lease. Where the store has lost it, or has an older one, all records are written again.
func (r *announcing) keep(ctx context.Context) error {
	err := r.renew(ctx, r.revision)
	if !errors.Is(err, ErrChanged) {
		return err
	}
	record, err := r.get(ctx, r.options.Node)
	switch {
	case errors.Is(err, ErrMissing):
		record = Record{}
	case err != nil:
		return err
	default:
		if l, ill := readLease(record); ill == nil && l.Incarnation != r.lease.Incarnation {
			return fmt.Errorf("federation: node %q: incarnation %s has taken its lease: %w", r.options.Node, l.Incarnation, ErrTaken)
		}
		if record.Revision > r.revision { // a write of its own that seemed to fail
			r.revision = record.Revision
			return r.renew(ctx, r.revision)
		}
	}
	r.mu.Lock()
	for name := range r.written {
		r.dirty[name] = struct{}{}
	}
	clear(r.written)
	r.sum, r.lease.Phase, r.state = 0, Joining, AnnouncerJoining
	r.mu.Unlock()
	if err := r.renew(ctx, record.Revision); err != nil {
		if errors.Is(err, ErrChanged) {
			return nil // it is looked at again
		}
		return err
	}
	r.unclean, r.leftover = true, nil
	return nil
}

// clean deletes the records of earlier incarnations of the node, and has those of this one deleted that it does not offer any more.
func (r *announcing) clean(ctx context.Context) func() error {
	r.mu.Lock()
	incarnation := r.lease.Incarnation
	r.mu.Unlock()
	records, err := r.list(ctx, entryPrefix+r.options.Node+".")
	if err == nil {
		err = r.own(ctx, incarnation)
	}
	for _, key := range slices.Sorted(maps.Keys(records)) {
		_, of, name, ill := parseEntryKey(key)
		switch {
		case err != nil:
		case ill == nil && of == incarnation:
			r.strays(name)
		default:
			err = r.remove(ctx, key)
		}
	}
	return func() error {
		r.unclean = err != nil
		return err
	}
}

// own returns an error if the lease of the node is not that of the incarnation: then what was listed before may be of a later one.
func (r *announcing) own(ctx context.Context, incarnation string) error {
	record, err := r.get(ctx, r.options.Node)
	if err != nil {
		return err
	}
	if l, ill := readLease(record); ill != nil || l.Incarnation != incarnation {
		return errNotOwn
	}
	return nil
}

// strays has the record of a provider deleted if it is not one that was written.
func (r *announcing) strays(name title) {
	r.mu.Lock()
	_, written := r.written[name]
	if !written {
		r.stray[name] = true
	}
	r.mu.Unlock()
	if !written {
		r.mark(name)
	}
}

func (r *announcing) list(ctx context.Context, prefix string) (records map[string]Record, err error) {
	err = fault.Run(func() error {
		records, err = list(ctx, r.options.Store, prefix)
		return err
	})
	return records, err
}

func (r *announcing) remove(ctx context.Context, key string) error {
	return fault.Run(func() error { return r.options.Store.Delete(ctx, key, 0) })
}

func (r *announcing) removeAll(ctx context.Context, keys []string) error {
	for _, key := range keys {
		if err := r.remove(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// sweep deletes what nodes have left behind that are gone for good: leases that were not renewed for ten TTLs in which this node
// could renew its own each time, and records without a lease. One node does so for all: the first by name of those that renew
// their leases. Another one asks for the lease of one before it, and reads the leases of all only where that was not renewed.
func (r *announcing) sweep(ctx context.Context, before map[string]uint64, senior string) func() error {
	found := map[string]uint64{}
	renewed, err := r.isRenewed(ctx, senior, before, found)
	switch {
	case err != nil:
	case renewed:
		for key, revision := range before {
			if _, asked := found[key]; !asked {
				found[key] = revision
			}
		}
	default:
		senior, err = r.sweepLeases(ctx, before, found)
	}
	return func() error {
		if r.leftover != nil { // no fault since it began
			r.leftover, r.senior = found, senior
		}
		return err
	}
}

// isRenewed reports whether a node has renewed its lease since the last sweep, and notes that in found.
func (r *announcing) isRenewed(ctx context.Context, node string, before, found map[string]uint64) (bool, error) {
	key := leaseKey(node)
	if _, was := before[key]; !was {
		return false, nil
	}
	record, err := r.get(ctx, node)
	if errors.Is(err, ErrMissing) {
		return false, nil
	}
	if _, ill := readLease(record); err != nil || ill != nil || record.Revision == before[key] {
		return false, err
	}
	found[key] = record.Revision
	return true, nil
}

// sweepLeases reads all leases, and sweeps if this node is the first. It returns the one before it, if any: the first that has renewed its lease.
func (r *announcing) sweepLeases(ctx context.Context, before, found map[string]uint64) (senior string, err error) {
	leases, err := r.list(ctx, leasePrefix)
	if err != nil {
		return "", err
	}
	living := map[string]bool{} // nodes by incarnation
	for key, record := range leases {
		found[key] = record.Revision
		l, ill := readLease(record)
		if ill != nil {
			continue
		}
		living[l.Node+"."+l.Incarnation] = true
		if l.Node < r.options.Node && before[key] != record.Revision && (senior == "" || l.Node < senior) {
			senior = l.Node
		}
	}
	if senior != "" {
		return senior, nil
	}
	for key, record := range leases {
		l, ill := readLease(record)
		if ill != nil || before[key] != record.Revision || l.TTL > r.options.TTL {
			continue
		}
		if err := r.bury(ctx, &l, record); err != nil {
			return "", err
		}
	}
	return "", r.sweepRecords(ctx, before, found, living)
}

// sweepRecords deletes the records without a lease that were there at the last sweep too.
func (r *announcing) sweepRecords(ctx context.Context, before, found map[string]uint64, living map[string]bool) error {
	records, err := r.list(ctx, entryPrefix)
	if err != nil {
		return err
	}
	for key := range records {
		node, incarnation, _, err := parseEntryKey(key)
		if err == nil && living[node+"."+incarnation] {
			continue
		}
		found[key] = 0
		if _, was := before[key]; !was {
			continue
		}
		if err := r.remove(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// bury deletes the lease of a node that is gone, if it still is, and then its records.
func (r *announcing) bury(ctx context.Context, l *Lease, record Record) error {
	err := fault.Run(func() error { return r.options.Store.Delete(ctx, record.Key, record.Revision) })
	if errors.Is(err, ErrChanged) {
		return nil
	}
	if err != nil {
		return err
	}
	records, err := r.list(ctx, entryPrefix+l.Node+"."+l.Incarnation+".")
	if err != nil {
		return err
	}
	return r.removeAll(ctx, slices.Sorted(maps.Keys(records)))
}

// leave says that the node leaves, waits a while, and deletes its records.
func (r *announcing) leave(ctx context.Context) error {
	if r.revision == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.options.LeaveWithin+max(r.options.Linger, 0))
	defer cancel()
	r.mu.Lock()
	r.lease.Phase = Leaving
	r.mu.Unlock()
	r.enter(AnnouncerLeaving)
	err := r.renew(ctx, r.revision)
	if errors.Is(err, ErrChanged) {
		// The last write seemed to fail, or the lease is another's.
		record, missing := r.get(ctx, r.options.Node)
		l, ill := readLease(record)
		if missing != nil || ill != nil || l.Incarnation != r.lease.Incarnation {
			return nil
		}
		err = r.renew(ctx, record.Revision)
	}
	if err != nil {
		return r.note(fmt.Errorf("federation: the store could not be told that node %q leaves: %w", r.options.Node, err))
	}
	if r.options.Linger > 0 {
		sleep(ctx, r.options.Linger)
	}
	err = fault.Run(func() error { return r.options.Store.Delete(ctx, leaseKey(r.options.Node), r.revision) })
	if err == nil {
		r.mu.Lock()
		var keys []string
		for name := range r.written {
			keys = append(keys, entryKey(r.options.Node, r.lease.Incarnation, name))
		}
		r.mu.Unlock()
		slices.Sort(keys)
		err = r.removeAll(ctx, keys)
	}
	if err != nil && !errors.Is(err, ErrChanged) {
		return r.note(fmt.Errorf("federation: records of node %q are left in the store: %w", r.options.Node, err))
	}
	return nil
}
