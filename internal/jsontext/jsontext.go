// Package jsontext checks and reads JSON texts. encoding/json does so too, byte by byte through a function for each; where all of what
// passes has to be checked, that is the largest part of the work.
package jsontext

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/bits"
)

// deepest is the number of objects and arrays that may stand in one another, as encoding/json has it.
const deepest = 10_000

// Valid reports what json.Valid does: whether the text is one JSON value with white space around it.
func Valid(text []byte) bool {
	at := value(text, space(text, 0), 0)
	return at > 0 && space(text, at) == len(text)
}

// Object calls field with each key, without escapes, and the place of its value, and reports whether the text is one JSON object
// with white space around it. Each value is valid, whatever stands behind it.
func Object(text []byte, field func(key []byte, from, to int)) bool {
	return whole(text, '{', func(key, from, to int) { field(plain(text[key:quoted(text, key)]), from, to) })
}

// List calls element with the place of each value, and reports whether the text is one JSON array, as [Object] does.
func List(text []byte, element func(from, to int)) bool {
	return whole(text, '[', func(_, from, to int) { element(from, to) })
}

// whole reports whether the text is one value that begins with a bracket, with white space around it.
func whole(text []byte, bracket byte, visit visitor) bool {
	at := space(text, 0)
	if at == len(text) || text[at] != bracket {
		return false
	}
	at = composed(text, at, 1, visit)
	return at > 0 && space(text, at) == len(text)
}

// visitor is called with the place of a key, where there is one, and that of the value.
type visitor func(key, from, to int)

// plain returns the text of a JSON string.
func plain(quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	var text string
	_ = json.Unmarshal(quoted, &text) // it is valid
	return []byte(text)
}

// EndOfString returns the place behind the JSON string whose quotation mark is at a place, or -1 if there is no valid one.
func EndOfString(text []byte, at int) int { return quoted(text, at) }

// invalid is the place behind a value that is none.
const invalid = -1

// value returns the place behind the value at a place, or invalid, as which it also takes the place.
func value(text []byte, at, depth int) int {
	if at < 0 || at >= len(text) {
		return invalid
	}
	switch c := text[at]; {
	case c == '"':
		return quoted(text, at)
	case c == '{' || c == '[':
		return composed(text, at, depth+1, nil)
	case c == '-' || c >= '0' && c <= '9':
		return number(text, at)
	case c == 't':
		return word(text, at, "true")
	case c == 'f':
		return word(text, at, "false")
	case c == 'n':
		return word(text, at, "null")
	}
	return invalid
}

// composed is value for an object or an array, whose values are shown to visit; nil: they are not.
func composed(text []byte, at, depth int, visit visitor) int {
	object, end := text[at] == '{', text[at]+2 // of both brackets
	if at = space(text, at+1); depth > deepest || at >= len(text) {
		return invalid
	}
	if text[at] == end {
		return at + 1
	}
	for {
		begun := at
		if object {
			at = key(text, at)
		}
		from := at
		if at = value(text, at, depth); at < 0 {
			return invalid
		}
		if visit != nil {
			visit(begun, from, at)
		}
		switch at = space(text, at); {
		case at >= len(text):
			return invalid
		case text[at] == end:
			return at + 1
		case text[at] != ',':
			return invalid
		}
		at = space(text, at+1)
	}
}

// key returns the place of the value whose key is at the place, or invalid.
func key(text []byte, at int) int {
	if at >= len(text) || text[at] != '"' {
		return invalid
	}
	if at = quoted(text, at); at < 0 {
		return invalid
	}
	if at = space(text, at); at >= len(text) || text[at] != ':' {
		return invalid
	}
	return space(text, at+1)
}

// quoted is value for a string.
func quoted(text []byte, at int) int {
	for at = ordinary(text, at+1); at < len(text); at = ordinary(text, at+1) {
		switch text[at] {
		case '"':
			return at + 1
		case '\\':
			if at = escaped(text, at+1); at < 0 {
				return invalid
			}
		default: // a control character
			return invalid
		}
	}
	return invalid
}

// ordinary returns the place of the first byte from a place on that is a quotation mark, a backslash or a control character.
func ordinary(text []byte, at int) int {
	const each, highest = 0x0101010101010101, 0x8080808080808080
	for ; len(text)-at >= 8; at += 8 { // eight bytes at once
		word := binary.LittleEndian.Uint64(text[at:])
		mark, slash := word^each*'"', word^each*'\\' // zero where the byte is the one
		found := ((word-each*' ')&^word | (mark-each)&^mark | (slash-each)&^slash) & highest
		if found != 0 { // a borrow makes bits behind the first one wrong, and never the first one
			return at + bits.TrailingZeros64(found)/8
		}
	}
	for at < len(text) && text[at] >= ' ' && text[at] != '"' && text[at] != '\\' {
		at++
	}
	return at
}

// escaped returns the place of the last byte of the escape whose second byte is at the place, or invalid.
func escaped(text []byte, at int) int {
	if at >= len(text) {
		return invalid
	}
	switch text[at] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return at
	case 'u':
		if at+4 >= len(text) {
			return invalid
		}
		for _, c := range text[at+1 : at+5] {
			if !isDigit(c) && (c|0x20 < 'a' || c|0x20 > 'f') {
				return invalid
			}
		}
		return at + 4
	}
	return invalid
}

// number is value for a number.
func number(text []byte, at int) int {
	if text[at] == '-' {
		at++
	}
	begun := at
	if at = digits(text, at); at < 0 || text[begun] == '0' && at > begun+1 {
		return invalid
	}
	if at < len(text) && text[at] == '.' {
		if at = digits(text, at+1); at < 0 {
			return invalid
		}
	}
	if at < len(text) && text[at]|0x20 == 'e' {
		if at++; at < len(text) && (text[at] == '+' || text[at] == '-') {
			at++
		}
		return digits(text, at)
	}
	return at
}

// digits returns the place behind one digit or more, or invalid.
func digits(text []byte, at int) int {
	begun := at
	for at < len(text) && isDigit(text[at]) {
		at++
	}
	if at == begun {
		return invalid
	}
	return at
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// word is value for a word.
func word(text []byte, at int, is string) int {
	if len(text)-at < len(is) || string(text[at:at+len(is)]) != is {
		return invalid
	}
	return at + len(is)
}

// space returns the place of what is no white space.
func space(text []byte, at int) int {
	for at < len(text) && (text[at] == ' ' || text[at] == '\n' || text[at] == '\r' || text[at] == '\t') {
		at++
	}
	return at
}
