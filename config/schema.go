package config

import (
	"encoding/json"
	"maps"
	"math"
	"reflect"
	"slices"

	"github.com/capreg/registry"
)

// Schema returns the JSON Schema (draft 2020-12) of documents, for editors and checks elsewhere. With kinds it has
// their settings, and knows no others; without any it leaves settings open. It is made of the fields that documents
// are decoded into, and says what can be said of each by itself: whether names are known, bounds of policies and what
// several fields have to agree on remain to [Check] and [Manager.Plan].
func Schema(kinds ...Kind) ([]byte, error) {
	known, err := index(kinds)
	if err != nil {
		return nil, err
	}
	g := schemas{kinds: known}
	root := g.of(reflect.TypeFor[Document]())
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Configuration of a registry"
	value := schema{"$ref": "#/$defs/value"}
	root["$defs"] = schema{"value": schema{"anyOf": []schema{
		{"type": []string{"null", "boolean", "number"}},
		schemas{settings: true}.text(),
		{"type": "array", "items": value},
		{"type": "object", "additionalProperties": value},
	}}}
	root["patternProperties"] = schema{"^x-": true}
	root["required"] = []string{"services"}
	properties := root["properties"].(schema) //nolint:forcetypeassert // of a struct
	services := schema{"type": "object", "minProperties": 1}
	if len(kinds) == 0 {
		services["additionalProperties"] = g.service(nil)
	} else {
		named := make(schema)
		for _, name := range slices.Sorted(maps.Keys(known)) {
			named[name] = g.service(known[name])
		}
		services["properties"], services["additionalProperties"] = named, false
	}
	properties["services"] = services
	return json.MarshalIndent(root, "", "  ")
}

// schema is a JSON Schema, or a part of one.
type schema map[string]any

// schemas makes the schemas of types.
type schemas struct {
	kinds    kinds
	settings bool // texts may be references, and stand for values of any type
}

const (
	// durationPattern is the grammar of [time.ParseDuration].
	durationPattern = `^[-+]?(0|(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$`
	// plainPattern matches texts without "${", referencePattern those in which each is a reference, or escaped.
	plainPattern     = `^([^$]|\$+[^${])*\$*$`
	referencePattern = `^([^$]|\$+[^${]|\$\$+\{|\$\{(env|file):[^}]+\})*\$*$`
	somewhere        = `\$\{(env|file):[^}]+\}`
)

// of returns the schema of a type, as a decoder takes it.
func (g schemas) of(t reflect.Type) schema {
	switch {
	case t == settingsType:
		return schema{"type": "object"}
	case t == durationType || t == reflect.TypeFor[Duration]():
		return g.orReference(schema{"type": "string", "pattern": durationPattern, "examples": []string{"1m30s"}})
	case t == reflect.TypeFor[Size]():
		return g.orReference(schema{"type": "string", "pattern": sizeText.String(), "examples": []string{"16MiB"}})
	case t == reflect.TypeFor[registry.Priority]():
		return g.orReference(schema{"anyOf": []schema{
			{"enum": []string{"CRITICAL", "HIGH", "NORMAL", "LOW", "FALLBACK"}},
			{
				"type":    "string",
				"pattern": "^([Cc][Rr][Ii][Tt][Ii][Cc][Aa][Ll]|[Hh][Ii][Gg][Hh]|[Nn][Oo][Rr][Mm][Aa][Ll]|[Ll][Oo][Ww]|[Ff][Aa][Ll][Ll][Bb][Aa][Cc][Kk]|0|1|2|3|9)$",
			},
		}})
	case reflect.PointerTo(t).Implements(textType) || t.Kind() == reflect.String:
		return g.text()
	case reflect.PointerTo(t).Implements(jsonType) && !isPolicy(t):
		return schema{"$ref": "#/$defs/value"}
	}
	return g.kind(t)
}

func (g schemas) text() schema {
	if g.settings {
		return schema{"type": "string", "pattern": referencePattern}
	}
	return schema{"type": "string", "pattern": plainPattern}
}

// orReference lets a reference stand for a value in settings.
func (g schemas) orReference(s schema) schema {
	if !g.settings {
		return s
	}
	return schema{"anyOf": []schema{s, {"allOf": []schema{{"type": "string", "pattern": referencePattern}, {"pattern": somewhere}}}}}
}

func (g schemas) kind(t reflect.Type) schema {
	switch t.Kind() {
	case reflect.Pointer:
		return g.of(t.Elem())
	case reflect.Struct:
		return g.object(t)
	case reflect.Map:
		s := schema{"type": "object", "additionalProperties": g.of(t.Elem())}
		if t.Key().Kind() == reflect.Int {
			s["propertyNames"] = schema{"pattern": "^(0|-?[1-9][0-9]*)$"}
		}
		return s
	case reflect.Slice:
		return schema{"type": "array", "items": g.of(t.Elem())}
	case reflect.Bool:
		return g.orReference(schema{"type": "boolean"})
	case reflect.Float32, reflect.Float64:
		return g.orReference(schema{"type": "number"})
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return g.orReference(schema{"type": "integer", "minimum": math.MinInt64 >> (64 - t.Bits()), "maximum": math.MaxInt64 >> (64 - t.Bits())})
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return g.orReference(schema{"type": "integer", "minimum": 0, "maximum": uint64(math.MaxUint64) >> (64 - t.Bits())})
	case reflect.Interface:
		return schema{"$ref": "#/$defs/value"}
	default:
		return schema{"not": schema{}} // documents cannot hold it
	}
}

func (g schemas) object(t reflect.Type) schema {
	known, properties := fieldsOf(t), make(schema)
	for _, name := range known.names {
		properties[name] = g.of(t.FieldByIndex(known.index[name]).Type)
	}
	s := schema{"type": "object", "properties": properties, "additionalProperties": false}
	if len(known.required) > 0 {
		s["required"] = known.required
	}
	return s
}

// service returns the schema of a service with these kinds; nil: with any.
func (g schemas) service(of map[string]*Kind) schema {
	s := g.of(reflect.TypeFor[Service]())
	if of == nil {
		return s
	}
	properties := s["properties"].(schema)        //nolint:forcetypeassert // of a struct
	providers := properties["providers"].(schema) //nolint:forcetypeassert // of a struct
	provider := providers["items"].(schema)       //nolint:forcetypeassert // of a list
	fields := provider["properties"].(schema)     //nolint:forcetypeassert // of a struct
	names := slices.Sorted(maps.Keys(of))
	fields["kind"] = schema{"enum": names}
	var rules []schema
	for _, name := range names {
		settings := schemas{kinds: g.kinds, settings: true}.of(of[name].settings)
		then := schema{"properties": schema{"settings": settings}}
		if _, required := settings["required"]; required {
			then["required"] = []string{"settings"}
		}
		rules = append(rules, schema{"if": schema{"properties": schema{"kind": schema{"const": name}}}, "then": then})
	}
	provider["allOf"] = rules
	return s
}
