package config

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/startup"
)

const (
	// mostNodes bounds the nodes of a document, aliases followed: a few lines of aliases of aliases stand for billions.
	mostNodes = 1_000_000
	// mostProblems bounds the problems of a document that are told.
	mostProblems = 50
)

//nolint:gochecknoglobals // types are constants that Go cannot declare as such
var (
	settingsType = reflect.TypeFor[Settings]()
	durationType = reflect.TypeFor[time.Duration]()
	secretType   = reflect.TypeFor[Secret]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()

	textMarshalerType = reflect.TypeFor[encoding.TextMarshaler]()
	jsonType          = reflect.TypeFor[json.Unmarshaler]()
)

// decoder reads the nodes of one file strictly into Go values, and collects what is wrong.
type decoder struct {
	file     string
	secrets  *secrets // what references in texts stand for; nil: there are none to be
	literal  bool     // references are texts like any other
	problems []Problem
	places   places
	nodes    int
	within   []*yaml.Node // aliases that are being followed
}

func (d *decoder) problem(path string, n *yaml.Node, format string, args ...any) *Problem {
	d.problems = append(d.problems, Problem{
		File: d.file, Line: n.Line, Column: n.Column, Path: path, Text: fmt.Sprintf(format, args...),
	})
	return &d.problems[len(d.problems)-1]
}

// full reports whether enough is wrong, or the document is too large, to go on.
func (d *decoder) full() bool { return len(d.problems) >= mostProblems || d.nodes > mostNodes }

// value decodes a node into v, which can be set.
func (d *decoder) value(path string, n *yaml.Node, v reflect.Value) {
	if d.nodes++; d.full() {
		if d.nodes == mostNodes+1 {
			d.problem(path, n, "the document has more than %d values, aliases followed", mostNodes)
		}
		return
	}
	if n.Kind == yaml.AliasNode {
		d.follow(path, n, func(n *yaml.Node) { d.value(path, n, v) })
		return
	}
	if d.places != nil {
		d.places[path] = place{d.file, n.Line, n.Column}
	}
	switch t := v.Type(); {
	case t == settingsType:
		d.settings(path, n, v)
	case t == durationType || reflect.PointerTo(t).Implements(textType):
		d.text(path, n, v)
	case reflect.PointerTo(t).Implements(jsonType) && !isPolicy(t):
		d.json(path, n, v)
	default:
		d.kind(path, n, v)
	}
}

// follow decodes what an alias stands for, unless that is a part of itself.
func (d *decoder) follow(path string, n *yaml.Node, decode func(*yaml.Node)) {
	if slices.Contains(d.within, n) {
		d.problem(path, n, "*%s contains itself", n.Value)
		return
	}
	d.within = append(d.within, n)
	decode(n.Alias)
	d.within = d.within[:len(d.within)-1]
}

// isPolicy reports whether a type is a struct of the registry, whose JSON form is that of its fields.
func isPolicy(t reflect.Type) bool {
	switch t {
	case reflect.TypeFor[registry.LimitPolicy](), reflect.TypeFor[registry.RetryPolicy](), reflect.TypeFor[registry.BreakerPolicy](),
		reflect.TypeFor[health.Policy](), reflect.TypeFor[selection.Policy](), reflect.TypeFor[selection.Requirements](), reflect.TypeFor[startup.Restart]():
		return true
	}
	return false
}

func (d *decoder) kind(path string, n *yaml.Node, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(path, n, v.Elem())
	case reflect.Struct:
		d.object(path, n, v)
	case reflect.Map:
		d.mapping(path, n, v)
	case reflect.Slice:
		d.list(path, n, v)
	case reflect.Interface:
		d.json(path, n, v)
	default:
		d.scalar(path, n, v)
	}
}

// settings keeps a node for the kind of the provider, which knows its type.
func (d *decoder) settings(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.problem(path, n, "is %s: want fields", describe(n))
		return
	}
	v.Set(reflect.ValueOf(Settings{node: n, file: d.file}))
}

// object decodes the fields of a struct.
func (d *decoder) object(path string, n *yaml.Node, v reflect.Value) {
	known := fieldsOf(v.Type())
	missing := make(map[string]bool)
	for _, name := range known.required {
		missing[name] = true
	}
	for _, e := range d.entries(path, n) {
		delete(missing, e.key)
		at, ok := known.index[e.key]
		switch {
		case ok:
			d.value(join(path, e.key), e.value, v.FieldByIndex(at))
		case path != "" || !strings.HasPrefix(e.key, "x-"):
			d.problem(join(path, e.key), e.at, "unknown field").Nearest = nearest(e.key, known.names)
		}
	}
	if n.Kind == yaml.MappingNode {
		for _, name := range known.required {
			if missing[name] {
				d.problem(path, n, "%s is missing", name)
			}
		}
	}
}

// mapping decodes a map, whose keys are texts or whole numbers.
func (d *decoder) mapping(path string, n *yaml.Node, v reflect.Value) {
	made := reflect.MakeMap(v.Type())
	for _, e := range d.entries(path, n) {
		key := reflect.New(v.Type().Key()).Elem()
		if key.Kind() == reflect.Int {
			number, err := strconv.Atoi(e.key)
			if err != nil || strconv.Itoa(number) != e.key {
				d.problem(path, e.at, "%q is no whole number", e.key)
				continue
			}
			key.SetInt(int64(number))
		} else {
			key.SetString(e.key)
		}
		value := reflect.New(v.Type().Elem()).Elem()
		d.value(join(path, e.key), e.value, value)
		made.SetMapIndex(key, value)
	}
	v.Set(made)
}

func (d *decoder) list(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		d.problem(path, n, "is %s: want a list", describe(n))
		return
	}
	made := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		d.value(path+"["+label(item, i)+"]", item, made.Index(i))
	}
	v.Set(made)
}

// label returns the name of an item that has one, which stays when others come before it, or else its index.
func label(item *yaml.Node, i int) string {
	if item.Kind == yaml.MappingNode {
		for k := 0; k+1 < len(item.Content); k += 2 {
			if name := item.Content[k+1]; item.Content[k].Value == "name" && name.Tag == "!!str" && name.Value != "" {
				return name.Value
			}
		}
	}
	return strconv.Itoa(i)
}

// entry is one field of a mapping.
type entry struct {
	key   string
	at    *yaml.Node // the key
	value *yaml.Node
}

// entries returns the fields of a mapping, those that it merges from others included; its own take precedence.
func (d *decoder) entries(path string, n *yaml.Node) (all []entry) {
	if n.Kind != yaml.MappingNode {
		d.problem(path, n, "is %s: want fields", describe(n))
		return nil
	}
	all = d.own(path, n)
	var seen map[string]bool // made by the first merge
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Tag != "!!merge" {
			continue
		}
		if seen == nil {
			seen = make(map[string]bool)
			for _, e := range all {
				seen[e.key] = true
			}
		}
		for _, e := range d.merged(path, n.Content[i+1]) {
			if !seen[e.key] {
				seen[e.key] = true
				all = append(all, e)
			}
		}
	}
	return all
}

// own returns the fields of a mapping itself.
func (d *decoder) own(path string, n *yaml.Node) (all []entry) {
	var many map[string]bool // of the keys, where a look at each of them would take long
	if len(n.Content) > fewKeys {
		many = make(map[string]bool)
	}
	all = make([]entry, 0, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case key.Tag == "!!merge":
			continue
		case key.Kind != yaml.ScalarNode || key.Tag != "!!str" && key.Tag != "!!int":
			d.problem(path, key, "a key is %s: want a text", describe(key))
		case many[key.Value] || many == nil && has(all, key.Value):
			d.problem(join(path, key.Value), key, "is there twice")
		default:
			if many != nil {
				many[key.Value] = true
			}
			all = append(all, entry{key.Value, key, n.Content[i+1]})
		}
	}
	return all
}

const fewKeys = 64 // and values

func has(all []entry, key string) bool {
	return slices.ContainsFunc(all, func(e entry) bool { return e.key == key })
}

// merged returns the fields that a merge key brings: those of one mapping, or of several, the first one first.
func (d *decoder) merged(path string, n *yaml.Node) (all []entry) {
	if d.nodes++; d.full() {
		return nil
	}
	switch n.Kind {
	case yaml.AliasNode:
		d.follow(path, n, func(n *yaml.Node) { all = d.merged(path, n) })
		return all
	case yaml.SequenceNode:
		for _, item := range n.Content {
			all = append(all, d.merged(path, item)...)
		}
		return all
	default:
		return d.entries(path, n)
	}
}

// json decodes a value of a type with a JSON form of its own.
func (d *decoder) json(path string, n *yaml.Node, v reflect.Value) {
	var value any
	d.free(path, n, &value)
	if d.full() {
		return
	}
	text, err := jsonOf(value)
	if err == nil {
		err = json.Unmarshal(text, v.Addr().Interface())
	}
	if err != nil {
		d.problem(path, n, "%s", d.secrets.scrub(err.Error()))
	}
}

// free decodes a node into what JSON knows: maps, lists, texts, numbers and truth values.
func (d *decoder) free(path string, n *yaml.Node, into *any) {
	if d.nodes++; d.full() {
		return
	}
	switch n.Kind {
	case yaml.AliasNode:
		d.follow(path, n, func(n *yaml.Node) { d.free(path, n, into) })
	case yaml.MappingNode:
		made := make(map[string]any)
		for _, e := range d.entries(path, n) {
			var value any
			d.free(join(path, e.key), e.value, &value)
			made[e.key] = value
		}
		*into = made
	case yaml.SequenceNode:
		made := make([]any, len(n.Content))
		for i, item := range n.Content {
			d.free(path+"["+strconv.Itoa(i)+"]", item, &made[i])
		}
		*into = made
	default:
		*into = d.freeScalar(path, n)
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// fields are the fields of a struct, by their names in documents.
type fields struct {
	index    map[string][]int
	names    []string
	at       [][]int // the indices in the order of names
	required []string

	comparable []bool // in that order
}

var knownFields sync.Map //nolint:gochecknoglobals // a cache by type, as in encoding/json

func fieldsOf(t reflect.Type) *fields {
	if known, ok := knownFields.Load(t); ok {
		return known.(*fields) //nolint:forcetypeassert // the only type of the cache
	}
	f := &fields{index: make(map[string][]int)}
	for _, field := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if !field.IsExported() || name == "-" || field.Anonymous && name == "" {
			continue
		}
		if name == "" {
			name = field.Name
		}
		if _, hidden := f.index[name]; hidden {
			continue
		}
		f.index[name] = field.Index
		f.names, f.at = append(f.names, name), append(f.at, field.Index)
		f.comparable = append(f.comparable, field.Type.Comparable() && field.Type.Kind() != reflect.Interface)
		if slices.Contains(strings.Split(field.Tag.Get("jsonschema"), ","), "required") {
			f.required = append(f.required, name)
		}
	}
	knownFields.Store(t, f)
	return f
}
