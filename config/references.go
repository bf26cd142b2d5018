package config

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

// reference matches what stands for a value from outside: ${env:NAME} or ${file:PATH}, with a default as in
// ${env:NAME:-text}; and "$${", which stands for "${" itself.
var reference = regexp.MustCompile(`\$\$\{|\$\{(?:(env|file):([^}]*?)(?::-([^}]*))?\}|[^}]*\}?)`)

// refers reports whether a text has references.
func refers(text string) bool { return strings.Contains(text, "${") }

// mostOfFile bounds the file of a reference.
const mostOfFile = 1 << 20

// Secret is a text that is never shown: it prints, formats and marshals as "[secret]". Use it in settings for keys
// and passwords, so that a factory that prints its settings does not show them.
type Secret string

const hidden = "[secret]"

// Reveal returns the text itself.
func (s Secret) Reveal() string { return string(s) }

// String returns "[secret]".
func (Secret) String() string { return hidden }

// GoString returns "[secret]".
func (Secret) GoString() string { return hidden }

// MarshalText returns "[secret]".
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// UnmarshalText takes the text as it is.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = Secret(text)
	return nil
}

// secrets are the values that the references of one document stand for. They are in no error and no log.
type secrets struct {
	mu     sync.Mutex
	values map[string]string // what stands for the value, by value
	seen   map[string]string // values by reference: one reference has one value in a document
	kept   int               // calls of keep
}

func newSecrets() *secrets {
	return &secrets{values: make(map[string]string), seen: make(map[string]string)}
}

// expand replaces the references in a text.
func (s *secrets) expand(text string) (string, error) {
	if !refers(text) {
		return text, nil
	}
	var wrong []error
	expanded := reference.ReplaceAllStringFunc(text, func(found string) string {
		if found == "$${" {
			return "${"
		}
		parts := reference.FindStringSubmatch(found)
		if parts[1] == "" || parts[2] == "" {
			wrong = append(wrong, fmt.Errorf(`%q is no reference: want ${env:NAME} or ${file:PATH}, or $${ for the text "${"`, found))
			return ""
		}
		value, err := s.look(parts[1], parts[2])
		switch {
		case err != nil && strings.Contains(found, ":-"):
			return parts[3]
		case err != nil:
			wrong = append(wrong, fmt.Errorf("%s: %w", found, err))
			return ""
		}
		s.keep(value, found)
		return value
	})
	return expanded, errors.Join(wrong...)
}

func (s *secrets) look(kind, name string) (string, error) {
	s.mu.Lock()
	value, ok := s.seen[kind+":"+name]
	s.mu.Unlock()
	if ok {
		return value, nil
	}
	value, err := look(kind, name)
	if err == nil {
		s.mu.Lock()
		s.seen[kind+":"+name] = value
		s.mu.Unlock()
	}
	return value, err
}

// look returns the value of an environment variable, or of a file without the line feed at its end.
func look(kind, name string) (string, error) {
	if kind == "env" {
		value, ok := os.LookupEnv(name)
		if !ok {
			return "", errors.New("the variable is not set")
		}
		return value, nil
	}
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular() || info.Size() > mostOfFile:
		return "", errors.New("no regular file of at most 1 MiB")
	}
	text, err := os.ReadFile(name) //nolint:gosec // the operator names it
	return strings.TrimRight(string(text), "\r\n"), err
}

// referenceFiles returns the files that the references of a document name, in order.
func (d *Document) referenceFiles() []string {
	found := make(map[string]bool)
	for _, s := range d.Services {
		for i := range s.Providers {
			addReferenceFiles(s.Providers[i].Settings.node, found)
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// addReferenceFiles adds those of a node. What an alias stands for is read where it is written.
func addReferenceFiles(n *yaml.Node, found map[string]bool) {
	switch {
	case n == nil:
	case n.Kind == yaml.ScalarNode && refers(n.Value):
		for _, parts := range reference.FindAllStringSubmatch(n.Value, -1) {
			if parts[1] == "file" {
				found[parts[2]] = true
			}
		}
	case n.Kind == yaml.AliasNode:
		addReferenceFiles(n.Alias, found)
	}
	if n != nil {
		for _, child := range n.Content {
			addReferenceFiles(child, found)
		}
	}
}

// digestOf returns a hash of what is in the files of references now, that of one that cannot be read included.
func digestOf(files []string) (digest [sha256.Size]byte) {
	for _, name := range files {
		value, err := look("file", name)
		of := sha256.Sum256([]byte(value))
		digest = sha256.Sum256(fmt.Append(digest[:], name, "\x00", of, err))
	}
	return digest
}

// leastSecret is the length from which a value is taken for a secret: a shorter one is part of ordinary words.
const leastSecret = 4

// keep notes a secret, and the forms in which it stands in URLs and quoted texts.
func (s *secrets) keep(value, standsFor string) {
	if len(value) < leastSecret {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept++
	quoted := strconv.Quote(value)
	for _, form := range []string{value, url.QueryEscape(value), url.PathEscape(value), quoted[1 : len(quoted)-1]} {
		if _, known := s.values[form]; !known { // as a reference rather than as a secret of no name
			s.values[form] = standsFor
		}
	}
}

// count returns how often a secret was noted, known or not.
func (s *secrets) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept
}

// scrub replaces each secret in a text by its reference, the longest first.
func (s *secrets) scrub(text string) string {
	if s == nil {
		return text
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	values := make([]string, 0, len(s.values))
	for value := range s.values {
		values = append(values, value)
	}
	slices.SortFunc(values, func(a, b string) int { return len(b) - len(a) })
	for _, value := range values {
		text = strings.ReplaceAll(text, value, s.values[value])
	}
	return text
}

// scrubbed is an error whose text had secrets in it.
type scrubbed struct {
	text  string
	cause error
}

func (e *scrubbed) Error() string        { return e.text }
func (e *scrubbed) Is(target error) bool { return errors.Is(e.cause, target) }

// hide returns the error without secrets. One that had some still matches what it matched, but does not give away
// its causes, whose texts may have them too.
func (s *secrets) hide(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if clean := s.scrub(text); clean != text {
		return &scrubbed{clean, err}
	}
	return err
}
