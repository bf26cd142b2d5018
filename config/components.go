package config

import (
	"context"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/startup"
)

// Component holds the settings that a document has for a component of the program: its prerequisites, time limits and
// restarts. Its fields have the meaning and the defaults of those of [registry.Component].
type Component struct {
	// Needs lists what has to be ready first, beside what the component needs by itself.
	Needs        []startup.Need  `json:"needs,omitempty"`
	StartTimeout Duration        `json:"start_timeout,omitzero"`
	StopTimeout  Duration        `json:"stop_timeout,omitzero"`
	NonCritical  bool            `json:"non_critical,omitempty"`
	Restart      startup.Restart `json:"restart,omitzero"`
}

// Arrange returns the components of the program as the document has them: with the needs of both, and with the time
// limits and restarts of the document where it has some. One that the document does not name stays as it is. Components
// and document are not changed, and a later version of the document changes nothing until the next start.
//
// The error is an [Error] with all that is wrong: components that the program does not have, needs that nothing meets,
// and components that wait for each other. Arrange starts nothing.
func (d *Document) Arrange(components ...registry.Component) ([]registry.Component, error) {
	arranged := slices.Clone(components)
	var names []string
	at := make(map[string]int)
	for i, c := range arranged {
		names, at[c.Name] = append(names, c.Name), i
	}
	var problems []Problem
	for _, name := range slices.Sorted(maps.Keys(d.Components)) {
		i, there := at[name]
		if !there {
			p := d.places.of("components."+name, "the program has no component of that name")
			p.Nearest = nearest(name, names)
			problems = append(problems, p)
			continue
		}
		d.Components[name].addTo(&arranged[i])
	}
	if len(problems) == 0 {
		problems = d.startProblems(arranged)
	}
	if err := refusal(problems); err != nil {
		return nil, err
	}
	return arranged, nil
}

func (c Component) addTo(to *registry.Component) {
	to.Needs = slices.Concat(to.Needs, c.Needs)
	if c.StartTimeout != 0 {
		to.StartTimeout = time.Duration(c.StartTimeout)
	}
	if c.StopTimeout != 0 {
		to.StopTimeout = time.Duration(c.StopTimeout)
	}
	if c.Restart != (startup.Restart{}) {
		to.Restart = c.Restart
	}
	to.NonCritical = to.NonCritical || c.NonCritical
}

// checkComponents checks the components as far as the document alone tells it: needs of capabilities, and of components
// that only the program knows, are left out.
func (d *Document) checkComponents() []Problem {
	var known []registry.Component
	for _, name := range slices.Sorted(maps.Keys(d.Components)) {
		c := d.Components[name]
		c.Needs = slices.DeleteFunc(slices.Clone(c.Needs), func(n startup.Need) bool {
			_, there := d.Components[n.Component]
			return !there && (n.Capability == "") != (n.Component == "")
		})
		made := registry.Component{Name: name}
		c.addTo(&made)
		known = append(known, made)
	}
	return d.startProblems(known)
}

var ofComponent = regexp.MustCompile(`^Component\[("(?:[^"\\]|\\.)*")\]\.(.*)$`)

// startProblems returns what is wrong with the order in which components are to start.
func (d *Document) startProblems(components []registry.Component) (problems []Problem) {
	checked := slices.Clone(components)
	for i := range checked { // without their work
		checked[i].Register, checked[i].Start = nil, func(context.Context, *startup.Run) error { return nil }
	}
	_, err := registry.NewOrchestrator(nil, startup.Options{}, checked...)
	var field *registry.FieldError
	var plan *startup.PlanError
	switch {
	case errors.As(err, &plan):
		for _, missing := range plan.Missing {
			p := d.places.of("components."+missing.Component+".needs", "nothing provides %v", missing.Need)
			if len(missing.Nearest) > 0 {
				p.Nearest = missing.Nearest[0]
			}
			problems = append(problems, p)
		}
		for _, cycle := range plan.Cycles {
			problems = append(problems, d.places.of("components."+cycle[0].Name, "they wait for each other: %v", cycle))
		}
		for _, name := range plan.Duplicates {
			problems = append(problems, d.places.of("components."+name, "the program has two of that name"))
		}
	case errors.As(err, &field):
		path := "components"
		if found := ofComponent.FindStringSubmatch(field.Field); found != nil {
			name, _ := strconv.Unquote(found[1]) // as it was quoted
			path = join(join(path, name), snake(found[2]))
		}
		problems = append(problems, d.places.of(path, "is %s: want %s", field.Value, field.Bound))
	case err != nil:
		problems = append(problems, d.places.of("components", "%s", err.Error()))
	}
	for i := range problems {
		problems[i].Err = err
	}
	return problems
}
