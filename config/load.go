package config

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// mostOfDocument bounds the text of one file, in bytes.
const mostOfDocument = 16 << 20

// Parse reads a document from YAML or JSON. The name stands for the text in problems. It reads no other file, and no
// reference: those are resolved when the document is planned. The error is an [Error].
func Parse(name string, text []byte) (*Document, error) {
	d, problems := decode(name, text)
	if len(problems) == 0 && len(d.Include) > 0 {
		problems = append(problems, d.places.of("include", "only a document of a file can include others"))
	}
	if len(problems) == 0 {
		problems = d.check()
	}
	if err := refusal(problems); err != nil {
		return nil, err
	}
	return d, nil
}

// Load reads the document of a file with all that it includes, or those of a directory: its files named *.yaml,
// *.yml and *.json in the order of their names, without hidden ones, as one document. It blocks on the file system.
// What is wrong with the document is an [Error]; a file that cannot be read is an error of package os.
func Load(path string) (*Document, error) {
	d, _, err := load(path)
	return d, err
}

// load also returns the files that were read, or were to be.
func load(path string) (*Document, []string, error) {
	l := loader{seen: make(map[string]bool), whole: newDocument()}
	d, err := l.document(path)
	return d, slices.Sorted(maps.Keys(l.seen)), err
}

func (l *loader) document(path string) (*Document, error) {
	if err := l.load(path); err != nil {
		return nil, err
	}
	if len(l.problems) == 0 {
		l.problems = l.whole.check()
	}
	if err := refusal(l.problems); err != nil {
		return nil, err
	}
	l.whole.Include = nil
	return l.whole, nil
}

func newDocument() *Document {
	return &Document{
		Domains: make(map[string]Domain), Services: make(map[string]Service), Queries: make(map[string]Query),
		Components: make(map[string]Component),
		places:     make(places),
	}
}

// loader puts the documents of several files together.
type loader struct {
	seen     map[string]bool
	whole    *Document
	problems []Problem
}

func (l *loader) load(path string) error {
	files, err := fragments(path)
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := l.file(file); err != nil {
			return err
		}
	}
	return nil
}

// fragments returns the files that a path stands for.
func fragments(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return []string{path}, err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, entry := range entries {
		if name := entry.Name(); isFragment(name) {
			files = append(files, filepath.Join(path, name))
		}
	}
	if len(files) == 0 {
		return nil, &Error{Problems: []Problem{{File: path, Text: "the directory has no document: want a file named *.yaml, *.yml or *.json"}}}
	}
	return files, nil
}

// isFragment reports whether a file of a directory is part of its document. Editors keep their temporary files beside
// the one they write, under names that begin with a dot or end otherwise.
func isFragment(name string) bool {
	return !strings.HasPrefix(name, ".") && !strings.HasPrefix(name, "#") &&
		slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

func (l *loader) file(path string) error {
	resolved, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if l.seen[resolved] {
		return nil // one that is included by several is one
	}
	l.seen[resolved] = true
	text, err := read(path)
	if err != nil {
		return err
	}
	d, problems := decode(path, text)
	l.problems = append(l.problems, problems...)
	l.merge(d)
	for i, include := range d.Include {
		if !filepath.IsAbs(include) {
			include = filepath.Join(filepath.Dir(path), include)
		}
		if err := l.load(include); err != nil {
			var refused *Error
			if errors.As(err, &refused) {
				return err
			}
			p := d.places.of("include["+strconv.Itoa(i)+"]", "%s", err.Error())
			p.Err = err
			l.problems = append(l.problems, p)
		}
	}
	return nil
}

func read(path string) ([]byte, error) {
	file, err := os.Open(path) //nolint:gosec // the operator names it
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(file, mostOfDocument+1))
	if err == nil && len(text) > mostOfDocument {
		err = fmt.Errorf("config: %s has more than 16 MiB", path)
	}
	return text, err
}

// merge adds the document of one file to the whole.
func (l *loader) merge(d *Document) {
	w := l.whole
	again := func(path string) {
		p := d.places.of(path, "is there twice: also in %s", w.places.where(path))
		l.problems = append(l.problems, p)
	}
	for _, name := range d.Required {
		if !slices.Contains(w.Required, name) {
			w.Required = append(w.Required, name)
		}
	}
	add(w.Domains, d.Domains, "domains", again)
	add(w.Queries, d.Queries, "queries", again)
	add(w.Components, d.Components, "components", again)
	for _, name := range slices.Sorted(maps.Keys(d.Services)) {
		w.Services[name] = w.Services[name].merged("services."+name, d.Services[name], again)
	}
	w.digest = sha256.Sum256(append(w.digest[:], d.digest[:]...))
	for path, at := range d.places {
		if _, there := w.places[path]; !there {
			w.places[path] = at
		}
	}
}

// merged returns the service with what another file has of it.
func (s Service) merged(path string, more Service, again func(path string)) Service {
	if more.Selection != nil && s.Selection != nil {
		again(path + ".selection")
	} else if s.Selection == nil {
		s.Selection = more.Selection
	}
	if s.Groups == nil {
		s.Groups = make(map[int]Group)
	}
	add(s.Groups, more.Groups, path+".groups", again)
	for _, p := range more.Providers {
		if slices.ContainsFunc(s.Providers, func(other Provider) bool { return other.Name == p.Name }) {
			again(path + ".providers[" + p.Name + "]")
		}
	}
	s.Providers = append(s.Providers, more.Providers...)
	return s
}

// add adds what one map has to another, and tells what both have.
func add[K comparable, V any](to, from map[K]V, path string, again func(path string)) {
	for key, value := range from {
		if _, there := to[key]; there {
			again(fmt.Sprintf("%s.%v", path, key))
		}
		to[key] = value
	}
}

// where returns the place of a field as text.
func (s places) where(path string) string {
	at := s[path]
	return at.file + ":" + strconv.Itoa(at.line)
}

var lineOfSyntax = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// decode reads the document of one text. It always returns a document; what is wrong with it is among the problems.
func decode(name string, text []byte) (*Document, []Problem) {
	document := newDocument()
	document.digest = sha256.Sum256(append([]byte(name+"\x00"), text...))
	root, problem := rootOf(name, text)
	if problem != nil {
		return document, []Problem{*problem}
	}
	d := &decoder{file: name, places: document.places}
	d.value("", root, reflect.ValueOf(document).Elem())
	return document, d.problems
}

// rootOf returns the value that a text is, or what keeps it from being one.
func rootOf(name string, text []byte) (*yaml.Node, *Problem) {
	reader := yaml.NewDecoder(bytes.NewReader(text))
	var root, more yaml.Node
	err := reader.Decode(&root)
	switch {
	case errors.Is(err, io.EOF) || err == nil && len(root.Content) == 0 || err == nil && root.Content[0].Tag == "!!null":
		return nil, &Problem{File: name, Text: "is empty: want a document"}
	case err == nil:
		if err = reader.Decode(&more); err == nil {
			return nil, &Problem{File: name, Line: more.Line, Column: more.Column, Text: "is a second document: want one"}
		}
	}
	if !errors.Is(err, io.EOF) {
		p := &Problem{File: name, Text: strings.TrimPrefix(err.Error(), "yaml: ")}
		if found := lineOfSyntax.FindStringSubmatch(err.Error()); found != nil {
			p.Text = strings.TrimPrefix(err.Error(), found[0])
			if p.Line, _ = strconv.Atoi(found[1]); p.Line > 0 { // none: zero
				p.Column = 1
			}
		}
		return nil, p
	}
	return root.Content[0], nil
}
