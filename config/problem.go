package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
)

// Problem is one thing that is wrong with a document.
type Problem struct {
	// File, Line and Column are the place, as far as it is known. Lines and columns count from 1.
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	// Path is the field, such as "services.llm.providers[0].priority".
	Path string `json:"path,omitempty"`
	// Text states what is wrong, and what is wanted.
	Text string `json:"text"`
	// Nearest is the known name that an unknown one resembles most; empty: none does.
	Nearest string `json:"nearest,omitempty"`
	// Err is the cause, where there is one.
	Err error `json:"-"`
}

// String returns the problem in one line, as in "agent.yaml:7:9: services.llm.providers[0].prority: unknown field,
// did you mean \"priority\"?".
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File + ":")
	}
	if p.Line > 0 {
		fmt.Fprintf(&b, "%d:%d:", p.Line, p.Column)
	}
	if b.Len() > 0 {
		b.WriteString(" ")
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Text)
	if p.Nearest != "" {
		fmt.Fprintf(&b, ", did you mean %q?", p.Nearest)
	}
	return b.String()
}

// Error is a document that is refused, with all that is known to be wrong with it. It matches what its problems were
// caused by.
type Error struct {
	Problems []Problem `json:"problems"`
}

// Error returns the problems in one line.
func (e *Error) Error() string {
	texts := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		texts[i] = p.String()
	}
	return "config: " + strings.Join(texts, "; ")
}

// Unwrap returns the causes.
func (e *Error) Unwrap() (causes []error) {
	for _, p := range e.Problems {
		if p.Err != nil {
			causes = append(causes, p.Err)
		}
	}
	return causes
}

// refusal returns the problems as an error, in the order of their places; nil without any.
func refusal(problems []Problem) error {
	if len(problems) == 0 {
		return nil
	}
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return &Error{Problems: problems}
}

// nearest returns the known name that the given one resembles most, if it is near at all.
func nearest(name string, known []string) (found string) {
	least := max(2, len(name)/3) + 1
	for _, each := range known {
		if d := levenshtein.ComputeDistance(strings.ToLower(name), strings.ToLower(each)); d < least {
			least, found = d, each
		}
	}
	return found
}

// place is the position of a field in a file.
type place struct {
	file         string
	line, column int
}

// places are the positions of the fields of a document, by path.
type places map[string]place

// of returns a problem of the field, at the place of it or of the nearest one around it.
func (s places) of(path, format string, args ...any) Problem {
	p := Problem{Path: path, Text: fmt.Sprintf(format, args...)}
	for around := path; ; around = around[:strings.LastIndexAny(around, ".[")] {
		if at, ok := s[around]; ok {
			p.File, p.Line, p.Column = at.file, at.line, at.column
			return p
		}
		if !strings.ContainsAny(around, ".[") {
			return p
		}
	}
}
