package changeset

import (
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/status"
)

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
			Field: field.Name, From: text(from), To: text(to), InPlace: inPlace(field.Name),
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

// text returns a value in one line: its own text, else its own JSON form. Of a function, and of what an interface holds,
// the text could be anything, or a secret: only the type is shown.
func text(v reflect.Value) string {
	value := v.Interface()
	shown := fmt.Sprintf("%+v", value)
	switch shape := value.(type) {
	case fmt.Stringer:
	case json.Marshaler:
		form, _ := shape.MarshalJSON()
		shown = string(form)
	}
	if kind := v.Kind(); kind == reflect.Interface || kind == reflect.Func {
		if shown = fmt.Sprintf("a %T", value); v.IsNil() {
			shown = "as it is"
		}
	}
	return oneline.Cut(shown, 256)
}
