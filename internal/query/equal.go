package query

import (
	"hash/maphash"
	"slices"
)

// Equal reports whether the query equals one that is normal; keys do not count. It allocates nothing. It may be false
// for an equal query that repeats a word, or that has the global handler: its normal form is the answer.
func (q *Query) Equal(normal *Query) bool {
	return q.Handler == normal.Handler && q.OwnOnly == normal.OwnOnly && q.TryRefused == normal.TryRefused &&
		sameWords(q.Require, normal.Require) &&
		(q.Basic() && normal.Basic() || q.sameRest(normal))
}

// sameRest reports whether the rare fields are those of the normal query.
func (q *Query) sameRest(normal *Query) bool {
	a, b := &q.Where, &normal.Where
	return q.Near == normal.Near && sameWords(q.Only, normal.Only) && sameWords(q.Prefer, normal.Prefer) &&
		a.MaxLatency == b.MaxLatency && a.MaxCost == b.MaxCost && a.MinVersion == b.MinVersion &&
		sameWords(a.Tags, b.Tags) && sameWords(a.Regions, b.Regions) && sameWords(a.Exclude, b.Exclude)
}

// sameWords reports whether words are those of a normal list, in any order.
func sameWords(words, normal []string) bool {
	if len(words) != len(normal) {
		return false
	}
	for _, word := range normal {
		if !slices.Contains(words, word) {
			return false
		}
	}
	return true
}

// Hash returns a hash that is the same for queries that are [Query.Equal]. It allocates nothing for a basic query.
func (q *Query) Hash(seed maphash.Seed) uint64 {
	sum := maphash.String(seed, q.Handler) + hashWords(seed, q.Require)*29 // factors: fields may have the same words
	if q.OwnOnly {
		sum = ^sum
	}
	if q.TryRefused {
		sum *= 31
	}
	if !q.Basic() {
		sum += q.hashRest(seed)
	}
	return sum
}

// hashRest returns the hash of the rare fields.
func (q *Query) hashRest(seed maphash.Seed) uint64 {
	where := &q.Where
	return maphash.String(seed, q.Near)*3 + maphash.String(seed, where.MinVersion)*5 +
		maphash.Comparable(seed, where.MaxLatency)*7 + maphash.Comparable(seed, where.MaxCost)*11 +
		hashWords(seed, q.Prefer)*13 + hashWords(seed, q.Only)*23 + hashWords(seed, where.Tags)*15 +
		hashWords(seed, where.Regions)*17 + hashWords(seed, where.Exclude)*19
}

// hashWords does not depend on the order of the words.
func hashWords(seed maphash.Seed, words []string) (sum uint64) {
	for _, word := range words {
		sum += maphash.String(seed, word)
	}
	return sum
}
