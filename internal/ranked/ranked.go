// Package ranked reads and writes a few values in an order, each with a name and a rank: in text by name, and read by
// rank as well.
package ranked

import (
	"strconv"
	"strings"
)

// Names are the names of values in their order, which begin at First.
type Names struct {
	First int
	Names []string
	Ranks []int
}

// Valid reports whether the value is one of them.
func (n *Names) Valid(value int) bool { return value >= n.First && value < n.First+len(n.Names) }

// Rank returns the rank of the value; 255 for one that is none of them.
func (n *Names) Rank(value int) int {
	if !n.Valid(value) {
		return 255
	}
	return n.Ranks[value-n.First]
}

// String returns the name of the value; kind and number for one that is none of them.
func (n *Names) String(kind string, value int) string {
	if !n.Valid(value) {
		return kind + "(" + strconv.Itoa(value) + ")"
	}
	return n.Names[value-n.First]
}

// Read returns the value of a name, in any case, or of a rank.
func (n *Names) Read(text string) (value int, ok bool) {
	for i, name := range n.Names {
		if strings.EqualFold(text, name) || text == strconv.Itoa(n.Ranks[i]) {
			return n.First + i, true
		}
	}
	return 0, false
}
