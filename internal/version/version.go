// Package version compares versions.
package version

import (
	"cmp"
	"strings"
)

// Compare returns -1, 0 or 1 when a is older than, as old as or newer than b. It is the
// order of Semantic Versioning 2.0.0 for any number of numbers: a leading v does not matter,
// missing numbers are 0, everything after a + is ignored, and a version with a - is older than
// the same without it. Parts that are no number come after numbers, in the order of their
// bytes.
func Compare(a, b string) int {
	a, before := cutVersion(a)
	b, beforeB := cutVersion(b)
	if order := compareParts(a, b, "0"); order != 0 {
		return order
	}
	switch {
	case before == beforeB:
		return 0
	case before == "":
		return 1
	case beforeB == "":
		return -1
	}
	return compareParts(before, beforeB, "")
}

// cutVersion splits a version into its numbers and its pre-release part.
func cutVersion(version string) (numbers, before string) {
	version = strings.TrimPrefix(version, "v")
	version, _, _ = strings.Cut(version, "+")
	numbers, before, _ = strings.Cut(version, "-")
	return numbers, before
}

// compareParts compares part by part; missing replaces the parts that one side lacks.
func compareParts(a, b, missing string) int {
	for a != "" || b != "" {
		var one, other string
		one, a = nextPart(a, missing)
		other, b = nextPart(b, missing)
		if order := comparePart(one, other); order != 0 {
			return order
		}
	}
	return 0
}

func nextPart(text, missing string) (part, rest string) {
	if text == "" {
		return missing, ""
	}
	part, rest, _ = strings.Cut(text, ".")
	return part, rest
}

func comparePart(a, b string) int {
	numberA, numberB := isNumber(a), isNumber(b)
	switch {
	case numberA && numberB: // of any length
		a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
		return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
	case a == b:
		return 0
	case a == "" || b == "": // fewer parts come first
		return cmp.Compare(len(a), len(b))
	case numberA:
		return -1
	case numberB:
		return 1
	}
	return strings.Compare(a, b)
}

func isNumber(text string) bool {
	return text != "" && strings.Trim(text, "0123456789") == ""
}
