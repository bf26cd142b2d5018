package query

import (
	"hash/maphash"
	"sync/atomic"
)

const (
	// MostAttached bounds the queries that have a plan of their own, and the plans that followers share.
	MostAttached = 256
	// MostFollowers bounds the followers that are remembered. Beyond it all are forgotten, and look for their plans
	// once more.
	MostFollowers = 1 << 14
)

// Cache finds the owner of the plan of a query, which equal queries share. An owner is in one of three states:
//
//	attached  one of the first [MostAttached] queries: it has a plan of its own
//	follower  a query beyond those: it has the plan of a shared owner while it is in use
//	shared    has the plan of all followers of one kind, such as those with the same candidates
//
// So any number of queries stay fair, and a lookup costs what one costs. All methods but [Cache.Find] are called with
// the lock of the owner of the cache held, and so is drop, which puts the plan of an owner out of force.
type Cache[O any] struct {
	seed      maphash.Seed
	drop      func(O)
	known     atomic.Pointer[table[O]] // of attached owners and followers
	attached  []*entry[O]
	following []O          // the followers that have a plan now
	shared    map[string]O // by kind
	kinds     []string     // of shared, oldest first
}

// entry is the owner of the plan of a query, which is normal.
type entry[O any] struct {
	hash    uint64
	query   *Query
	owner   O
	follows bool
}

// table finds entries by their hash. It is read without a lock, and at most half full: a search ends at the first
// empty place. Nothing is removed from it; another one takes its place instead.
type table[O any] struct {
	places []atomic.Pointer[entry[O]] // a power of two
	count  int                        // guarded by the lock of the owner of the cache
}

func newTable[O any](places int) *table[O] {
	return &table[O]{places: make([]atomic.Pointer[entry[O]], places)}
}

// find returns the entry of an equal query; nil: none.
func (t *table[O]) find(hash uint64, q *Query) *entry[O] {
	mask := uint64(len(t.places)) - 1
	for at := hash & mask; ; at = (at + 1) & mask {
		e := t.places[at].Load()
		if e == nil || e.hash == hash && q.Equal(e.query) {
			return e
		}
	}
}

// add enters e, of which there is no equal, and returns the table that has it.
func (t *table[O]) add(e *entry[O]) *table[O] {
	if 2*(t.count+1) > len(t.places) {
		larger := newTable[O](2 * len(t.places))
		for i := range t.places {
			if known := t.places[i].Load(); known != nil {
				larger.add(known)
			}
		}
		t = larger
	}
	mask := uint64(len(t.places)) - 1
	at := e.hash & mask
	for t.places[at].Load() != nil {
		at = (at + 1) & mask
	}
	t.places[at].Store(e)
	t.count++
	return t
}

// NewCache returns an empty cache that puts plans out of force with drop.
func NewCache[O any](seed maphash.Seed, drop func(O)) *Cache[O] {
	c := &Cache[O]{seed: seed, drop: drop, shared: make(map[string]O)}
	c.known.Store(newTable[O](fewestPlaces))
	return c
}

// fewestPlaces is the size of an empty table.
const fewestPlaces = 8

// Find returns the owner of an equal query, if it is known. It takes no lock and may be called at any time.
func (c *Cache[O]) Find(q *Query) (owner O, ok bool) {
	if known := c.known.Load().find(q.Hash(c.seed), q); known != nil {
		return known.owner, true
	}
	return owner, false
}

// Add returns the owner of an equal query, or the one that was passed, which it keeps: attached while there are few,
// or else as a follower. The query must be normal and must not change.
func (c *Cache[O]) Add(normal *Query, created O) (owner O, follows bool) {
	hash, all := normal.Hash(c.seed), c.known.Load()
	if known := all.find(hash, normal); known != nil {
		return known.owner, known.follows
	}
	e := &entry[O]{hash: hash, query: normal, owner: created, follows: len(c.attached) >= MostAttached}
	if !e.follows {
		c.attached = append(c.attached, e)
	} else if all.count-len(c.attached) >= MostFollowers {
		all = newTable[O](4 * MostAttached)
		for _, kept := range c.attached {
			all = all.add(kept)
		}
	}
	c.known.Store(all.add(e))
	return created, e.follows
}

// Shared returns the shared owner of the kind, which create makes where there is none. It drops the plan of the oldest
// one, and those of all followers, when there are too many.
func (c *Cache[O]) Shared(kind string, create func() O) O {
	if known, ok := c.shared[kind]; ok {
		return known
	}
	if len(c.kinds) >= MostAttached {
		c.release()
		c.drop(c.shared[c.kinds[0]])
		delete(c.shared, c.kinds[0])
		c.kinds = append(c.kinds[:0], c.kinds[1:]...)
	}
	created := create()
	c.shared[kind], c.kinds = created, append(c.kinds, kind)
	return created
}

// Follow notes that the follower is about to get the plan of a shared owner, which is dropped with it.
func (c *Cache[O]) Follow(follower O) {
	if len(c.following) >= MostFollowers {
		c.release()
	}
	c.following = append(c.following, follower)
}

// Outdate drops all plans. The owners stay.
func (c *Cache[O]) Outdate() {
	for _, known := range c.attached {
		c.drop(known.owner)
	}
	for _, owner := range c.shared {
		c.drop(owner)
	}
	c.release()
}

// release drops the plans of all followers.
func (c *Cache[O]) release() {
	for _, follower := range c.following {
		c.drop(follower)
	}
	clear(c.following)
	c.following = c.following[:0]
}
