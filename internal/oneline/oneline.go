// Package oneline makes text that fits one line: of an error, a log entry, a table.
//
// It is safe for concurrent use, and runs no code but its own.
package oneline

import (
	"fmt"
	"strings"
	"unicode"
)

// Of replaces everything in text that could end a line by a space, so that one error
// is one line of a log.
func Of(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, text)
}

// Cut shortens text to at most n bytes, without splitting a character.
func Cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n], "") + "…"
}

// Short returns text as valid UTF-8 in one line of at most n bytes.
func Short(text string, n int) string {
	const mark = "…"
	if text = Of(strings.ToValidUTF8(text, "\uFFFD")); len(text) > n {
		return Cut(text, n-len(mark))
	}
	return text
}

// Plural counts things in words, such as "1 call" and "2 calls".
func Plural[N int | uint64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// First returns at most n of the texts; one more says how many there are besides, after the given word.
func First(texts []string, n int, word string) []string {
	if more := len(texts) - n; more > 0 {
		return append(texts[:n:n], fmt.Sprintf("%s%d more", word, more))
	}
	return texts
}
