package federationtest

import (
	"context"
	"sync"

	"github.com/capreg/registry/federation"
)

// Link is the way from one process to a store, which can be cut. Its methods are safe for concurrent use. Use [NewLink] to
// create one.
type Link struct {
	store federation.Store

	mu    sync.Mutex // guards what follows
	lossy bool
	works chan struct{} // closed while the link works
	isCut bool
}

// NewLink returns a link to the store that works.
func NewLink(store federation.Store) *Link {
	l := &Link{store: store, works: make(chan struct{})}
	close(l.works)
	return l
}

// Cut cuts the link without a sign of it: operations wait until it is mended, or until their contexts end, and watches tell nothing.
// What happened meanwhile is told when the link is mended; with lossy it never is.
func (l *Link) Cut(lossy bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isCut {
		l.isCut, l.works = true, make(chan struct{})
	}
	l.lossy = lossy
}

// Mend ends what [Link.Cut] began.
func (l *Link) Mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isCut {
		l.isCut, l.lossy = false, false
		close(l.works)
	}
}

// pass waits until the link works. It reports what is lost.
func (l *Link) pass(ctx context.Context) (lost bool, err error) {
	l.mu.Lock()
	works, lossy := l.works, l.isCut && l.lossy
	l.mu.Unlock()
	if lossy {
		return true, nil
	}
	select {
	case <-works:
		return false, ctx.Err()
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// wait waits until the link works, whether or not it is lossy.
func (l *Link) wait(ctx context.Context) error {
	l.mu.Lock()
	works := l.works
	l.mu.Unlock()
	select {
	case <-works:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// String returns the name of the store.
func (l *Link) String() string { return l.store.String() }

// Get implements [federation.Store], as the methods below do.
func (l *Link) Get(ctx context.Context, key string) (federation.Record, error) {
	if err := l.wait(ctx); err != nil {
		return federation.Record{}, err
	}
	return l.store.Get(ctx, key)
}

// Put writes a record.
func (l *Link) Put(ctx context.Context, key string, value []byte) error {
	if err := l.wait(ctx); err != nil {
		return err
	}
	return l.store.Put(ctx, key, value)
}

// Update writes a record if it has the revision.
func (l *Link) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	if err := l.wait(ctx); err != nil {
		return 0, err
	}
	return l.store.Update(ctx, key, value, revision)
}

// Delete removes a record.
func (l *Link) Delete(ctx context.Context, key string, revision uint64) error {
	if err := l.wait(ctx); err != nil {
		return err
	}
	return l.store.Delete(ctx, key, revision)
}

// Watch watches the store through the link.
func (l *Link) Watch(ctx context.Context, prefix string, tell func(federation.Record)) error {
	if err := l.wait(ctx); err != nil {
		return err
	}
	return l.store.Watch(ctx, prefix, func(record federation.Record) {
		if lost, err := l.pass(ctx); err == nil && !lost {
			tell(record)
		}
	})
}
