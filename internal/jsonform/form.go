package jsonform

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

// form is the JSON form of a struct type: its fields in the order in which they are written.
type form []field

// field is one member of the object.
type field struct {
	name  string
	key   []byte // the name as it is written, with the colon
	index []int  // where it stands in the struct
	kind  kind

	omitEmpty, omitZero bool
	wanted              string // what is read
}

// kind selects how a field is written and read.
type kind uint8

const (
	plain    kind = iota // by encoding/json
	duration             // a time.Duration
	failure              // an error
)

var (
	durationType = reflect.TypeFor[time.Duration]() //nolint:gochecknoglobals // immutable
	errorType    = reflect.TypeFor[error]()         //nolint:gochecknoglobals // immutable
)

// made is a form, or the reason why a type has none.
type made struct {
	form form
	err  error
}

// forms has the form of each type that was asked for, as encoding/json keeps them.
var forms sync.Map //nolint:gochecknoglobals // a cache: reflect.Type → made

// formOf returns the form of a type.
func formOf(t reflect.Type) (form, error) {
	known, ok := forms.Load(t)
	if !ok {
		var m made
		m.form, m.err = newForm(t)
		known, _ = forms.LoadOrStore(t, m)
	}
	m := known.(made) //nolint:forcetypeassert // nothing else is stored
	return m.form, m.err
}

func newForm(t reflect.Type) (form, error) {
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("jsonform: %v is no struct", t)
	}
	all, err := appendFields(nil, t, nil)
	if err != nil {
		return nil, fmt.Errorf("jsonform: %v: %w", t, err)
	}
	var visible form
	for i := range all {
		hidden, twice := false, false
		for j := range all {
			if i != j && all[i].name == all[j].name {
				hidden = hidden || len(all[j].index) < len(all[i].index)
				twice = twice || len(all[j].index) == len(all[i].index)
			}
		}
		switch {
		case hidden: // by one that is less deep
		case twice:
			return nil, fmt.Errorf("jsonform: %v: two fields are named %q", t, all[i].name)
		default:
			visible = append(visible, all[i])
		}
	}
	return visible, nil
}

// appendFields appends the fields of a struct, with those of the structs that it embeds.
func appendFields(all form, t reflect.Type, path []int) (form, error) {
	for i := range t.NumField() {
		member := t.Field(i)
		index := slices.Concat(path, []int{i})
		tag := member.Tag.Get("json")
		name, options, _ := strings.Cut(tag, ",")
		var err error
		switch {
		case tag == "-":
		case member.Anonymous && name == "" && member.Type.Kind() == reflect.Struct:
			all, err = appendFields(all, member.Type, index)
		case !member.IsExported():
		case member.Anonymous && name == "" && member.Type.Kind() == reflect.Pointer:
			err = fmt.Errorf("%s is an embedded pointer", member.Name)
		default:
			var f field
			f, err = newField(&member, name, options)
			f.index = index
			all = append(all, f)
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// newField returns a field with the name and the options of its tag.
func newField(member *reflect.StructField, name, options string) (field, error) {
	f := field{name: name, wanted: wantedOf(member.Type)}
	if name == "" {
		f.name = member.Name
	}
	for option := range strings.SplitSeq(options, ",") {
		switch option {
		case "omitempty":
			f.omitEmpty = true
		case "omitzero":
			f.omitZero = true
		case "string":
			return f, fmt.Errorf("%s has the option string", member.Name)
		}
	}
	switch {
	case member.Type == durationType:
		f.kind, f.wanted = duration, wantDuration
	case member.Type == errorType:
		f.kind, f.wanted = failure, wantText
	case holds(member.Type, nil):
		return f, fmt.Errorf("%s holds durations or errors in a %v, which has no form", member.Name, member.Type)
	}
	var key bytes.Buffer
	err := encode(&key, f.name)
	f.key = append(key.Bytes(), ':')
	return f, err
}

// holds reports whether encoding/json would find a duration or an error in values of a type.
func holds(t reflect.Type, within []reflect.Type) bool {
	if slices.Contains(within, t) {
		return false // it contains itself
	}
	within = append(within, t)
	switch {
	case t == durationType || t == errorType:
		return true
	case t.Implements(reflect.TypeFor[json.Marshaler]()) || t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return false
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Array, reflect.Pointer, reflect.Map:
		return holds(t.Elem(), within)
	case reflect.Struct:
		for i := range t.NumField() {
			member := t.Field(i)
			if (member.IsExported() || member.Anonymous) && member.Tag.Get("json") != "-" && holds(member.Type, within) {
				return true
			}
		}
	default:
	}
	return false
}

// find returns the field of that name; one in another case only where none has the name as it is.
func (f form) find(name string) (found *field) {
	for i := range f {
		if f[i].name == name {
			return &f[i]
		}
		if found == nil && strings.EqualFold(f[i].name, name) {
			found = &f[i]
		}
	}
	return found
}

// omits reports whether the field is left out of the object.
func (f *field) omits(v reflect.Value) bool {
	if f.omitZero {
		if zero, ok := reflect.TypeAssert[interface{ IsZero() bool }](v); ok {
			if v.Kind() == reflect.Pointer && v.IsNil() || zero.IsZero() {
				return true
			}
		} else if v.IsZero() {
			return true
		}
	}
	if !f.omitEmpty {
		return false
	}
	switch v.Kind() {
	case reflect.Slice, reflect.Map, reflect.Array, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	default:
		return v.IsZero()
	}
}

func (f *field) write(text *bytes.Buffer, v reflect.Value) error {
	value := v.Interface()
	switch f.kind {
	case duration:
		text.WriteString(`"` + DurationText(time.Duration(v.Int())) + `"`)
		return nil
	case failure:
		if value != nil {
			value = textOf(value.(error)) //nolint:forcetypeassert // it is by its kind
		}
	case plain:
	}
	return encode(text, value)
}

func (f *field) read(text []byte, v reflect.Value) (err error) {
	switch f.kind {
	case duration:
		var d time.Duration
		if d, err = durationOf(text, time.Duration(v.Int())); err == nil {
			v.SetInt(int64(d))
		}
		return err
	case failure:
		return errorOf(text, v)
	case plain:
	}
	return explained(decode(text, v), text, f.wanted)
}
