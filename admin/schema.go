package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// duration is a time.Duration as the registry writes it: text such as "1m30s".
type duration time.Duration

// UnmarshalText reads a duration.
func (d *duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return errors.New(`expected a duration such as "1m30s"`)
	}
	*d = duration(parsed)
	return nil
}

// Schema describes it.
func (duration) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Description: "Duration such as 1m30s", Examples: []any{"1m30s"}}
}

// errorText is an error as the registry writes it.
type errorText string

// newRegistry returns the registry of schemas: they are those of the JSON forms of the registry, which has durations and
// errors as text, and are named by package and type.
func newRegistry() huma.Registry {
	schemas := huma.NewMapRegistry("#/components/schemas/", func(t reflect.Type, hint string) string {
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		if t.Name() == "" {
			return hint
		}
		name := strings.ToUpper(t.Name()[:1]) + t.Name()[1:]
		if from := path.Base(t.PkgPath()); from != "control" && from != "admin" && from != "registry" {
			name = strings.ToUpper(from[:1]) + from[1:] + name
		}
		return strings.NewReplacer("[", "_", "]", "", "/", "_", ".", "_").Replace(name)
	})
	schemas.RegisterTypeAlias(reflect.TypeFor[time.Duration](), reflect.TypeFor[duration]())
	schemas.RegisterTypeAlias(reflect.TypeFor[error](), reflect.TypeFor[errorText]())
	return schemas
}

// strictJSON is the format of all bodies.
func strictJSON() huma.Format {
	return huma.Format{
		Marshal: func(w io.Writer, v any) error {
			encoder := json.NewEncoder(w)
			return encoder.Encode(v)
		},
		Unmarshal: func(text []byte, v any) error {
			if _, first := v.(*any); first { // the whole body, before it is checked
				if err := checkNames(text); err != nil {
					return err
				}
			}
			return json.Unmarshal(text, v)
		},
	}
}

// checkNames refuses objects that have a name twice, also where only the case differs: which one counts would depend on
// the reader.
func checkNames(text []byte) error {
	type level struct {
		names  map[string]bool // nil in an array
		isName bool            // the next token is a name
	}
	var levels []level
	decoder := json.NewDecoder(bytes.NewReader(text))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		at := len(levels) - 1
		switch delimiter, _ := token.(json.Delim); {
		case delimiter == '}' || delimiter == ']':
			levels = levels[:at]
			continue
		case at >= 0 && levels[at].isName:
			name := strings.ToLower(token.(string)) //nolint:forcetypeassert // it is, by the grammar
			if levels[at].names[name] {
				return fmt.Errorf("the name %q is there twice", name)
			}
			levels[at].names[name], levels[at].isName = true, false
			continue
		case at >= 0 && levels[at].names != nil:
			levels[at].isName = true
		}
		switch token {
		case json.Delim('{'):
			levels = append(levels, level{map[string]bool{}, true})
		case json.Delim('['):
			levels = append(levels, level{})
		}
	}
}
