// Package plain makes text that a program did not write itself safe for a terminal.
package plain

import (
	"strings"
	"unicode"
)

// Line returns text without what would move a terminal's cursor, colour it or turn its text around: each such
// character is shown as U+FFFD, line breaks too.
func Line(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) && r != ' ' || unicode.Is(unicode.Bidi_Control, r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

// Lines is Line for text of several lines, which stay apart.
func Lines(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = Line(line)
	}
	return strings.Join(lines, "\n")
}
