// Package jsonform gives structs a JSON form that is read back as the same value.
//
// The form follows the tags, as encoding/json has it, but for two types of field, which that package cannot write so
// that they are read again: a [time.Duration] is text such as "1m30s", and an error is its text, in one line of at most 2,048 bytes, and is read as an error with
// that text. So the methods MarshalJSON and UnmarshalJSON of such a struct are one line each:
//
//	func (p Policy) MarshalJSON() ([]byte, error)     { return jsonform.Marshal(p) }
//	func (p *Policy) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, p) }
//
// Everything else is as in encoding/json: names are matched without regard to case, unknown ones are ignored, a field that
// is not named keeps its value, and the fields of an embedded struct stand among those of the outer one. The option
// "string", embedded pointers, and durations or errors inside of other types than structs with a form of their own, such as
// a list of durations, are errors, so that no duration becomes a bare number unnoticed.
//
// What cannot be read is an [Error], which names field, value and bound, and changes nothing. A form is made once for each
// type. All functions are safe for concurrent use.
package jsonform

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
)

// Marshal returns the JSON form of a struct.
func Marshal[T any](value T) ([]byte, error) {
	v := reflect.ValueOf(&value).Elem()
	form, err := formOf(v.Type())
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	text.WriteByte('{')
	for i := range form {
		f := &form[i]
		member := v.FieldByIndex(f.index)
		if f.omits(member) {
			continue
		}
		if text.Len() > 1 {
			text.WriteByte(',')
		}
		text.Write(f.key)
		if err := f.write(&text, member); err != nil {
			return nil, within(f.name, err)
		}
	}
	text.WriteByte('}')
	return text.Bytes(), nil
}

// Unmarshal sets the fields of a struct that a JSON object names; null names none. An error changes nothing.
func Unmarshal[T any](text []byte, into *T) error {
	form, err := formOf(reflect.TypeFor[T]())
	if err != nil {
		return err
	}
	if into == nil {
		return errNilTarget
	}
	if !json.Valid(text) {
		return syntaxOf(text)
	}
	switch text = bytes.TrimSpace(text); {
	case string(text) == "null":
		return nil
	case text[0] != '{':
		return refuse(text, "an object")
	}
	changed := *into
	if err := form.read(text, reflect.ValueOf(&changed).Elem()); err != nil {
		return err
	}
	*into = changed
	return nil
}

// read sets the fields of v that an object, which is valid JSON, names.
func (f form) read(object []byte, v reflect.Value) error {
	members := json.NewDecoder(bytes.NewReader(object))
	_, err := members.Token() // the brace
	for err == nil && members.More() {
		var name json.Token
		var value json.RawMessage
		if name, err = members.Token(); err == nil {
			err = members.Decode(&value)
		}
		if err != nil {
			break
		}
		if known := f.find(name.(string)); known != nil { //nolint:forcetypeassert // nothing else stands there
			if err := known.read(value, v.FieldByIndex(known.index)); err != nil {
				return within(known.name, err)
			}
		}
	}
	return err
}

var errNilTarget = errors.New("jsonform: the target is a nil pointer")

// encode appends the JSON form of any value. The encoder around it decides whether <, > and & are escaped.
func encode(text *bytes.Buffer, value any) error {
	encoder := json.NewEncoder(text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return err
	}
	text.Truncate(text.Len() - 1) // the end of the line
	return nil
}

// decode sets target, without a change of what it refers to now: an error must change nothing.
func decode(text []byte, target reflect.Value) error {
	fresh := reflect.New(target.Type())
	switch into := fresh.Elem(); target.Kind() {
	case reflect.Slice, reflect.Interface: // what is read replaces them
	case reflect.Map:
		if !target.IsNil() {
			into.Set(reflect.MakeMapWithSize(target.Type(), target.Len()))
			for each := target.MapRange(); each.Next(); {
				into.SetMapIndex(each.Key(), each.Value())
			}
		}
	case reflect.Pointer:
		if !target.IsNil() {
			into.Set(reflect.New(target.Type().Elem()))
			into.Elem().Set(target.Elem())
		}
	default:
		into.Set(target)
	}
	if err := json.Unmarshal(text, fresh.Interface()); err != nil {
		return err
	}
	target.Set(fresh.Elem())
	return nil
}
