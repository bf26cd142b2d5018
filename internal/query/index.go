package query

// Index has members by each of their words, without empty sets. Its owner guards it.
type Index[M comparable] map[string]map[M]struct{}

// Insert adds a member with its words.
func (x Index[M]) Insert(m M, words []string) {
	for _, word := range words {
		having, ok := x[word]
		if !ok {
			having = make(map[M]struct{})
			x[word] = having
		}
		having[m] = struct{}{}
	}
}

// Delete removes a member with its words.
func (x Index[M]) Delete(m M, words []string) {
	for _, word := range words {
		delete(x[word], m)
		if len(x[word]) == 0 {
			delete(x, word)
		}
	}
}

// Fewest returns the members of the word that has the fewest. There must be a word. The set must not be changed.
func (x Index[M]) Fewest(words []string) map[M]struct{} {
	fewest := x[words[0]]
	for _, word := range words[1:] {
		if having := x[word]; len(having) < len(fewest) {
			fewest = having
		}
	}
	return fewest
}
