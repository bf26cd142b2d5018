package query

import (
	"hash/maphash"
	"maps"
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
	attached  atomic.Pointer[map[uint64]entry[O]] // by hash; copied on write
	followers map[uint64]entry[O]                 // by hash
	following []O                                 // the followers that have a plan now
	shared    map[string]O                        // by kind
	kinds     []string                            // of shared, oldest first
}

// entry is the owner of the plan of a query, which is normal.
type entry[O any] struct {
	query *Query
	owner O
}

// NewCache returns an empty cache that puts plans out of force with drop.
func NewCache[O any](seed maphash.Seed, drop func(O)) *Cache[O] {
	c := &Cache[O]{seed: seed, drop: drop, followers: make(map[uint64]entry[O]), shared: make(map[string]O)}
	c.attached.Store(&map[uint64]entry[O]{})
	return c
}

// Find returns the attached owner of an equal query, if any. It takes no lock and may be called at any time.
func (c *Cache[O]) Find(q *Query) (owner O, ok bool) {
	if known, ok := (*c.attached.Load())[q.Hash(c.seed)]; ok && q.Equal(known.query) {
		return known.owner, true
	}
	return owner, false
}

// Add returns the owner of an equal query, or the one that was passed, which it keeps: attached while there are few,
// and where no other query has the same hash, or else as a follower. The query must be normal and must not change.
func (c *Cache[O]) Add(normal *Query, created O) (owner O, follows bool) {
	if known, ok := c.Find(normal); ok {
		return known, false
	}
	hash, attached := normal.Hash(c.seed), *c.attached.Load()
	if _, taken := attached[hash]; !taken && len(attached) < MostAttached {
		all := maps.Clone(attached)
		all[hash] = entry[O]{normal, created}
		c.attached.Store(&all)
		return created, false
	}
	if known, ok := c.followers[hash]; ok && normal.Equal(known.query) {
		return known.owner, true
	}
	if len(c.followers) >= MostFollowers {
		clear(c.followers)
	}
	c.followers[hash] = entry[O]{normal, created}
	return created, true
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
	for _, known := range *c.attached.Load() {
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
