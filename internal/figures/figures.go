// Package figures writes the measurements of programs into documents, so that no figure is
// typed by hand.
package figures

import (
	"fmt"
	"os"
	"strings"
)

// Replace replaces the text of a document between the two marks of a block, <!-- name: begin
// --> and <!-- name: end -->, each on a line of its own.
func Replace(path, name, content string) error {
	text, err := os.ReadFile(path) //nolint:gosec // a document of the tree
	if err != nil {
		return err
	}
	begin, end := "<!-- "+name+": begin -->\n", "<!-- "+name+": end -->"
	before, rest, found := strings.Cut(string(text), begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		return fmt.Errorf("%s has no block %q", path, name)
	}
	replaced := before + begin + strings.TrimRight(content, "\n") + "\n" + end + after
	return os.WriteFile(path, []byte(replaced), 0o644) //nolint:gosec // a document that all may read
}
