package llm

import (
	"bytes"

	"github.com/capreg/registry/internal/jsontext"
)

// mostPatterns bounds how often a stream is given a pattern: the pieces of some have none.
const mostPatterns = 4

// textOfPiece stands before the text of a piece, as servers write it.
const textOfPiece = `:{"content":"`

// pattern is a piece of a stream without its text. Most pieces of a stream differ in nothing else: where one has nothing else
// to say, no other of its pattern has.
type pattern struct {
	before, after []byte // nil: there is none
	made          int
}

// note makes the pattern that of a valid piece which has nothing but its text to say.
func (p *pattern) note(piece []byte) {
	text, found := bytes.CutPrefix(behind(piece, "delta"), []byte(textOfPiece))
	if !found || p.made == mostPatterns {
		return
	}
	p.made++
	from := len(piece) - len(text)
	kept := append(bytes.Clone(piece[:from]), piece[jsontext.EndOfString(piece, from-1)-1:]...)
	p.before, p.after = kept[:from], kept[from:]
}

// fits reports whether a piece is of the pattern, and so valid.
func (p *pattern) fits(piece []byte) bool {
	from, to := len(p.before), len(piece)-len(p.after)
	return p.before != nil && from <= to && bytes.HasPrefix(piece, p.before) && bytes.HasSuffix(piece, p.after) &&
		jsontext.EndOfString(piece, from-1) == to+1
}

// addsText reports whether an event is the usual piece of text, which is no preamble.
func addsText(name string, piece []byte) bool {
	text, found := bytes.CutPrefix(behind(piece, "delta"), []byte(textOfPiece))
	return found && name == "" && text[0] != '"'
}
