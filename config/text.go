package config

import (
	"encoding"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/capreg/registry"
)

// text decodes a text into a type that reads texts, or into a time.Duration.
func (d *decoder) text(path string, n *yaml.Node, v reflect.Value) {
	text, shown, ok := d.expanded(path, n)
	if !ok {
		return
	}
	if n.Tag != "!!str" {
		d.problem(path, n, "is %s: want a text", shown)
		return
	}
	if v.Type() == secretType && d.secrets != nil {
		d.secrets.keep(text, hidden)
	}
	var err error
	if v.Type() == durationType {
		var value time.Duration
		value, err = parseDuration(text)
		v.SetInt(int64(value))
	} else {
		err = v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)) //nolint:forcetypeassert // checked by its caller
	}
	if err != nil {
		text = err.Error()
		var field *registry.FieldError
		if errors.As(err, &field) {
			text = "want " + field.Bound
		}
		d.problem(path, n, "is %s: %s", shown, d.secrets.scrub(text))
	}
}

// expanded returns the text of a scalar, references replaced by what they stand for, and the text that may be shown.
func (d *decoder) expanded(path string, n *yaml.Node) (text, shown string, ok bool) {
	if n.Kind != yaml.ScalarNode {
		d.problem(path, n, "is %s: want one value", describe(n))
		return "", "", false
	}
	if n.Tag != "!!str" || d.literal {
		return n.Value, describe(n), true
	}
	if d.secrets == nil {
		if refers(n.Value) {
			d.problem(path, n, "%q is a reference: want it in the settings of a provider, which are not shown", n.Value)
			return "", "", false
		}
		return n.Value, describe(n), true
	}
	text, err := d.secrets.expand(n.Value)
	if err != nil {
		p := d.problem(path, n, "%s", err.Error())
		if outside := (*fs.PathError)(nil); errors.As(err, &outside) {
			p.Err = err
		}
		return "", "", false
	}
	return text, describe(n), true
}

// scalar decodes a text, a truth value or a number. A reference stands for one of any type.
func (d *decoder) scalar(path string, n *yaml.Node, v reflect.Value) {
	text, shown, ok := d.expanded(path, n)
	if !ok {
		return
	}
	tag := n.Tag
	if d.secrets != nil && refers(n.Value) && tag == "!!str" && v.Kind() != reflect.String {
		parsed := yaml.Node{Kind: yaml.ScalarNode, Value: strings.TrimSpace(text)}
		tag, text = parsed.ShortTag(), parsed.Value
	}
	if want := set(v, tag, text); want != "" {
		d.problem(path, n, "is %s: want %s", shown, want)
	}
}

// set sets v to the value of a scalar, or returns what is wanted instead.
func set(v reflect.Value, tag, text string) (want string) {
	switch kind := v.Kind(); {
	case kind == reflect.String:
		if tag != "!!str" {
			return "a text; put it in quotes"
		}
		v.SetString(text)
	case kind == reflect.Bool:
		if tag != "!!bool" {
			return "true or false"
		}
		v.SetBool(strings.EqualFold(text, "true"))
	case v.CanInt():
		var value int64
		if !number(tag, text, &value) || v.OverflowInt(value) {
			return "a whole number" + bits(v, tag)
		}
		v.SetInt(value)
	case v.CanUint():
		var value uint64
		if !number(tag, text, &value) || v.OverflowUint(value) {
			return "a whole number, 0 or more" + bits(v, tag)
		}
		v.SetUint(value)
	case v.CanFloat():
		var value float64
		if !number(tag, text, &value) || math.IsInf(value, 0) || math.IsNaN(value) || v.OverflowFloat(value) {
			return "a number"
		}
		v.SetFloat(value)
	default:
		return "nothing: documents cannot hold a " + v.Type().String()
	}
	return ""
}

// number reads a number in any of the forms of YAML.
func number(tag, text string, into any) bool {
	n := yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: text}
	var value float64
	if _, fraction := into.(*float64); !fraction && tag == "!!float" && (n.Decode(&value) != nil || value != math.Trunc(value)) {
		return false // YAML would cut it off
	}
	return (tag == "!!int" || tag == "!!float") && n.Decode(into) == nil
}

// bits tells the bound of a number that was out of it.
func bits(v reflect.Value, tag string) string {
	if tag != "!!int" {
		return ""
	}
	return fmt.Sprintf(", of at most %d bits", v.Type().Bits())
}

// freeScalar returns a scalar as JSON knows it.
func (d *decoder) freeScalar(path string, n *yaml.Node) any {
	text, shown, ok := d.expanded(path, n)
	if !ok {
		return nil
	}
	switch n.Tag {
	case "!!str":
		return text
	case "!!null":
		return nil
	case "!!bool":
		return strings.EqualFold(text, "true")
	case "!!int", "!!float":
		var whole int64
		if number(n.Tag, text, &whole) {
			return whole
		}
		var value float64
		if number(n.Tag, text, &value) && !math.IsInf(value, 0) && !math.IsNaN(value) {
			return value
		}
	}
	d.problem(path, n, "is %s: want a text, a number, true or false", shown)
	return nil
}

// describe returns what a node holds, as it was written.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	default:
	}
	switch {
	case n.Tag == "!!null":
		return "empty"
	case n.Tag == "!!str" && len(n.Value) > 64:
		return strconv.Quote(n.Value[:64]) + "…"
	case n.Tag == "!!str":
		return strconv.Quote(n.Value)
	}
	return n.Value
}
