package graph

import (
	"cmp"
	"slices"
	"unicode"
)

// Nearest returns the words most similar to word, at most so many, the nearest first and then
// by alphabet. The distance of two words is the number of runes to insert, to delete, to
// replace or to swap with their neighbour, ignoring case; it must be at most two here, or a
// third of word if that is more. A word that shares no rune with it is never similar, however
// short both are.
func Nearest(word string, among []string, most int) []string {
	type candidate struct {
		word     string
		distance int
	}
	var (
		candidates []candidate
		measure    distance
		meant      = appendLower(nil, word)
		farthest   = max(2, len(meant)/3)
		runes      []rune
	)
	for _, other := range among {
		runes = appendLower(runes[:0], other)
		limit := min(farthest, max(len(meant), len(runes), 1)-1)
		if d := measure.between(meant, runes, limit); d <= limit {
			candidates = append(candidates, candidate{other, d})
		}
	}
	slices.SortFunc(candidates, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(a.word, b.word))
	})
	candidates = slices.Compact(candidates)
	nearest := make([]string, max(min(most, len(candidates)), 0))
	for i := range nearest {
		nearest[i] = candidates[i].word
	}

	return nearest
}

func appendLower(runes []rune, word string) []rune {
	for _, r := range word {
		runes = append(runes, unicode.ToLower(r))
	}

	return runes
}

// distance measures optimal string alignment, in memory that it keeps: the rows
// of the usual table for the current rune of one word and the two before it.
type distance struct {
	current, before, beforeThat []int
}

// between returns the distance of a and b, or any number above limit if it is more
// than that. It fills in only the part of each row that is so near the diagonal that
// it may matter, between two numbers that are too large.
func (d *distance) between(a, b []rune, limit int) int {
	if apart := max(len(a)-len(b), len(b)-len(a)); apart > limit {
		return apart
	}
	width := len(b) + 1
	d.current = slices.Grow(d.current[:0], width)[:width]
	d.before = slices.Grow(d.before[:0], width)[:width]
	d.beforeThat = slices.Grow(d.beforeThat[:0], width)[:width]
	for j := range d.current {
		d.current[j] = j
	}
	for i := range a {
		d.current, d.before, d.beforeThat = d.beforeThat, d.current, d.before
		from, to := max(i-limit, 0), min(i+limit+1, len(b))
		d.current[from] = limit + 1
		if from == 0 {
			d.current[0] = i + 1
		}
		least := d.fillRow(a, b, i, from, to)
		if to < len(b) {
			d.current[to+1] = limit + 1
		}
		// A swap skips a row, but for the same cost a deletion ends in it.
		if least > limit {
			return least
		}
	}

	return d.current[len(b)]
}

// fillRow fills in the row of a[i] behind column from, up to column to, and returns the least number
// from there on.
func (d *distance) fillRow(a, b []rune, i, from, to int) (least int) {
	least = d.current[from]
	for j := from; j < to; j++ {
		steps := d.before[j]
		if a[i] != b[j] {
			steps = min(steps, d.before[j+1], d.current[j]) + 1
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				steps = min(steps, d.beforeThat[j-1]+1)
			}
		}
		d.current[j+1] = steps
		least = min(least, steps)
	}

	return least
}
