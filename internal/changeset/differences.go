package changeset

import (
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/status"
)

// Another is a field of a [Differences] that says whether something else is wanted that has no text.
type Another bool

// String returns "another" or "the same".
func (a Another) String() string {
	if a {
		return "another"
	}
	return "the same"
}

// Differences returns the fields in which two structs of one type differ, in their order, with those of embedded
// structs. An empty list is equal to none, and functions are never equal.
func Differences(before, after any, inPlace func(field string) bool) (all []status.Difference) {
	a, b := reflect.ValueOf(before), reflect.ValueOf(after)
	for _, field := range reflect.VisibleFields(a.Type()) {
		from, to := a.FieldByIndex(field.Index), b.FieldByIndex(field.Index)
		if field.Anonymous || equal(from, to) {
			continue
		}
		all = append(all, status.Difference{
			Field: field.Name, From: text(from.Interface()), To: text(to.Interface()), InPlace: inPlace(field.Name),
		})
	}
	return all
}

func equal(a, b reflect.Value) bool {
	if kind := a.Kind(); (kind == reflect.Slice || kind == reflect.Map) && a.Len()+b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

// text returns a value in one line: its own text, else the JSON form that is its own.
func text(value any) string {
	shown := fmt.Sprintf("%+v", value)
	if _, named := value.(fmt.Stringer); !named {
		if marshaler, ok := value.(json.Marshaler); ok {
			form, _ := marshaler.MarshalJSON()
			shown = string(form)
		}
	}
	return oneline.Cut(shown, 256)
}
