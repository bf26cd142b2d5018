package config

import (
	"encoding"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// altered are the fields of a provider that change in place. All others make a new instance.
func altered(field string) bool {
	switch root, _, _ := strings.Cut(field, "."); root {
	case "priority", "group", "weight", "no_traffic", "attempt_timeout", "no_timeout", "limits", "retry", "breaker",
		"health", "prove_within", "at_once":
		return true
	}
	return false
}

const (
	keepsAll   = "everything"
	keepsStart = "everything until the next start"
	keepsPlace = "position, turn in rotations, queue"
)

// diff returns the changes from one document to the next. Providers that are not there (any more) are added.
func diff(old, next *prepared, there func(identity) bool) (all []Change) {
	all = make([]Change, 0, len(next.specs))
	all = append(all, next.diffShared(old)...)
	all = append(all, next.diffComponents(old)...)
	scrub := func(text string) string { return next.secrets.scrub(old.secrets.scrub(text)) }
	for _, s := range next.specs {
		before := old.by[s.identity]
		if before == nil || !there(s.identity) {
			all = append(all, s.change(Add))
			continue
		}
		all = append(all, s.diff(before, scrub))
	}
	for _, s := range old.specs {
		if next.by[s.identity] == nil && there(s.identity) {
			all = append(all, s.change(Remove))
		}
	}
	return all
}

func (s *spec) change(action Action) Change {
	return Change{Path: s.path(), Action: action, Service: s.service, Provider: s.name}
}

// diff returns the change of a provider that is in both documents.
func (s *spec) diff(before *spec, scrub func(string) string) Change {
	c := s.change(Keep)
	c.Fields = providerFieldsThatChange(before.Provider, s.Provider)
	if s.fingerprint != before.fingerprint {
		settings := fieldsThatChange("settings.", before.written(), s.written(), scrub)
		if len(settings) == 0 && s.Kind == before.Kind {
			settings = []Field{{Name: "settings", From: "(value of a reference)", To: "(another value)"}}
		}
		c.Fields = append(c.Fields, settings...)
	}
	if len(c.Fields) == 0 {
		c.Keeps = keepsAll
		return c
	}
	var why []string
	for _, f := range c.Fields {
		if !altered(f.Name) {
			why = append(why, f.Name)
		}
	}
	if c.Action, c.Keeps = Alter, keepsAll; len(why) > 0 {
		c.Action, c.Keeps, c.Why = Replace, keepsPlace, strings.Join(why, ", ")
		if s.fingerprint == before.fingerprint {
			c.Keeps += ", open breaker, cooldown, measurements"
		}
		if s.Domain != "" && s.Domain == before.Domain {
			c.Keeps += ", limits in use and cooldown of its domain"
		}
	}
	return c
}

// diffShared returns the changes of groups, domains and selection policies.
func (p *prepared) diffShared(old *prepared) (all []Change) {
	add := func(path string, before, after any) {
		if fields := fieldsThatChange("", flat(before), flat(after), func(s string) string { return s }); len(fields) > 0 {
			all = append(all, Change{Path: path, Action: Alter, Fields: fields, Keeps: keepsAll})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Domains)) {
		if before, there := old.Domains[name]; there && before != p.Domains[name] {
			add("domains."+name, before, p.Domains[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		before, after := old.Services[name], p.Services[name]
		if !reflect.DeepEqual(before.Selection, after.Selection) {
			add("services."+name+".selection", before.Selection, after.Selection)
		}
		for _, number := range numbers(before.Groups, after.Groups) {
			if len(before.Providers) > 0 && !before.Groups[number].Strategy.Same(after.Groups[number].Strategy) {
				add(fmt.Sprintf("services.%s.groups.%d", name, number), before.Groups[number], after.Groups[number])
			}
		}
	}
	return all
}

// diffComponents returns the changes of what is for the next start.
func (p *prepared) diffComponents(old *prepared) (all []Change) {
	for _, name := range slices.Sorted(maps.Keys(p.Components)) {
		before, there := old.Components[name]
		fields := fieldsThatChange("", flat(before), flat(p.Components[name]), func(s string) string { return s })
		if there && len(fields) > 0 {
			all = append(all, Change{Path: "components." + name, Action: Alter, Fields: fields, Keeps: keepsStart})
		}
	}
	return all
}

func numbers(a, b map[int]Group) []int {
	all := maps.Clone(a)
	if all == nil {
		all = make(map[int]Group)
	}
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}

// flat returns the fields of a value as text, by their paths; zero values are left out.
func flat(value any) map[string]string {
	all := make(map[string]string)
	flatten("", reflect.ValueOf(value), all)
	return all
}

func flatten(path string, v reflect.Value, into map[string]string) {
	if !v.IsValid() || v.IsZero() || v.Type() == settingsType { // settings are those of a kind, and compared apart
		return
	}
	if text, is := textOf(v); is {
		into[path] = text
		return
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		flatten(path, v.Elem(), into)
	case reflect.Struct:
		known := fieldsOf(v.Type())
		for i, name := range known.names {
			if field := v.FieldByIndex(known.at[i]); !field.IsZero() {
				flatten(join(path, name), field, into)
			}
		}
	case reflect.Map:
		for key, value := range v.Seq2() {
			flatten(join(path, key.String()), value, into)
		}
	default:
		text, _ := jsonOf(v.Interface()) // a list, or a number
		into[path] = string(text)
	}
}

// textOf returns a value that has no parts as text; empty: it is zero. Others are not.
func textOf(v reflect.Value) (text string, is bool) {
	switch kind := v.Kind(); {
	case kind == reflect.Pointer || kind == reflect.Interface || kind == reflect.Map || kind == reflect.Slice:
		return "", false
	case v.Type() == durationType && v.IsZero():
		return "", true
	case v.Type() == durationType:
		return time.Duration(v.Int()).String(), true
	case v.Type().Implements(textMarshalerType):
		if !v.IsZero() {
			form, _ := v.Interface().(encoding.TextMarshaler).MarshalText() //nolint:forcetypeassert // just asked; of a value that was read
			text = string(form)
		}
		return text, true
	case kind == reflect.Struct:
		return "", false
	case v.IsZero():
		return "", true
	case kind == reflect.String:
		return v.String(), true
	case kind == reflect.Bool:
		return strconv.FormatBool(v.Bool()), true
	case v.CanInt():
		return strconv.FormatInt(v.Int(), 10), true
	}
	form, _ := jsonOf(v.Interface()) // a number
	return string(form), true
}

// providerFieldsThatChange returns the differences of two providers but for their settings. It looks closer only at the
// fields that differ.
func providerFieldsThatChange(from, to *Provider) (changed []Field) {
	a, b := reflect.ValueOf(from).Elem(), reflect.ValueOf(to).Elem()
	known := fieldsOf(a.Type())
	for i, name := range known.names {
		before, after := a.FieldByIndex(known.at[i]), b.FieldByIndex(known.at[i])
		switch {
		case before.Type() == settingsType:
			continue
		case before.IsZero() && after.IsZero(): // most of them
			continue
		case known.comparable[i] && before.Equal(after), !known.comparable[i] && reflect.DeepEqual(before.Interface(), after.Interface()):
			continue
		}
		if was, plain := textOf(before); plain {
			is, _ := textOf(after)
			changed = append(changed, Field{name, was, is})
			continue
		}
		was, is := make(map[string]string), make(map[string]string)
		flatten(name, before, was)
		flatten(name, after, is)
		changed = append(changed, fieldsThatChange("", was, is, func(text string) string { return text })...)
	}
	slices.SortFunc(changed, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	return changed
}

// fieldsThatChange returns the differences in the order of their names.
func fieldsThatChange(prefix string, from, to map[string]string, scrub func(string) string) (changed []Field) {
	for name, was := range from {
		if was != to[name] {
			changed = append(changed, Field{prefix + name, scrub(was), scrub(to[name])})
		}
	}
	for name, is := range to {
		if _, both := from[name]; !both && is != "" {
			changed = append(changed, Field{prefix + name, "", scrub(is)})
		}
	}
	slices.SortFunc(changed, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	return changed
}

// written returns the fields of the settings as they were written.
func (s *spec) written() map[string]string {
	if s.Settings.node == nil {
		return nil
	}
	var fields any
	(&decoder{literal: true}).free("", s.Settings.node, &fields)
	return flat(fields)
}

// warnLiterals warns of settings that look like secrets and are written in the document itself.
func (p *prepared) warnLiterals() (warnings []string) {
	for _, s := range p.specs {
		if s.Settings.node == nil {
			continue
		}
		fields := s.Settings.node.Content // keys and values
		for i := 0; i+1 < len(fields); i += 2 {
			key, value := fields[i].Value, fields[i+1]
			if value.Tag == "!!str" && value.Value != "" && !refers(value.Value) && isSecretName(key) {
				warnings = append(warnings, s.path()+".settings."+key+" is written in the document: a reference such as ${env:NAME} keeps it out")
			}
		}
	}
	return warnings
}

func isSecretName(name string) bool {
	lower := strings.ToLower(name)
	for _, word := range []string{"key", "token", "secret", "password", "credential"} {
		if strings.HasSuffix(lower, word) || strings.HasSuffix(lower, word+"s") {
			return true
		}
	}
	return false
}

// changesPolicy reports whether a field changes, or a part of it.
func (c Change) changesPolicy(field string) bool {
	return slices.ContainsFunc(c.Fields, func(f Field) bool { return f.Name == field || strings.HasPrefix(f.Name, field+".") })
}

// weight returns the share that the registry is told.
func (s *spec) weight() float64 {
	switch {
	case s.NoTraffic:
		return 0
	case s.Weight == 0:
		return 1
	}
	return s.Weight
}
