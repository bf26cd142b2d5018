package changeset

// table maps keys to values that stay where they are, in the order in which they were first asked for. The first one
// costs no allocation: most sets are of one change. The zero table is empty.
type table[K comparable, V any] struct {
	used  bool
	key   K
	value V
	more  map[K]*V
	order []K // of more
}

// at returns the value of the key, and whether it is a new one.
func (t *table[K, V]) at(key K) (value *V, added bool) {
	if !t.used {
		t.used, t.key = true, key
		return &t.value, true
	}
	if known := t.find(key); known != nil {
		return known, false
	}
	if t.more == nil {
		t.more = make(map[K]*V)
	}
	another := new(V) // not value, which would make every table escape
	t.more[key], t.order = another, append(t.order, key)
	return another, true
}

// find returns the value of the key, or nil.
func (t *table[K, V]) find(key K) *V {
	if t.used && t.key == key {
		return &t.value
	}
	return t.more[key]
}

// all yields every key and its value.
func (t *table[K, V]) all(yield func(K, *V) bool) {
	if !t.used || !yield(t.key, &t.value) {
		return
	}
	for _, key := range t.order {
		if !yield(key, t.more[key]) {
			return
		}
	}
}
