package config

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/selection"
)

// rehearsal is a registry in which a set of providers is tried without their instances: it checks what a registry
// checks, and picks as a registry picks. Nothing runs in it, without factories, probes and calls, so that it is
// forgotten rather than closed.
type rehearsal struct {
	registry *registry.Registry
	set      registry.Update
	of       []identity      // by change of the set
	bound    map[string]bool // services
	out      map[identity]string
	handles  []*registry.Registration
}

func newRehearsal(strategies []selection.Strategy) (*rehearsal, error) {
	r, err := registry.New(registry.Options{Strategies: strategies, Selection: selection.Policy{Seed: 1}}) // the same each time
	return &rehearsal{registry: r, bound: make(map[string]bool), out: make(map[identity]string)}, err
}

// add adds a provider as a document has it; out is why it is not eligible now, empty where it is.
func (r *rehearsal) add(s *spec, out string) { r.put(s.identity, unmade{}.provider(s), out) }

// unmade stands for the kind of a provider where there is no instance of it.
type unmade struct{}

func (unmade) provider(s *spec) registry.Provider[any] {
	p := registry.NewService[any](s.service).Provider(s.definition())
	p.Limits, p.Retry, p.Breaker = s.limits, s.Retry, s.Breaker
	p.AttemptTimeout, p.ProveWithin = s.timeout(), time.Duration(s.ProveWithin)
	p.Health, p.Instance, p.AtOnce = s.Health, struct{}{}, true
	return p
}

func (u unmade) addTo(to *registry.Update, s *spec, replace bool) *registry.Registration {
	p := u.provider(s)
	p.Replace = replace
	return registry.NewService[any](s.service).AddTo(to, p)
}

func (unmade) healthPolicy(s *spec) health.Policy { return s.Health }

// addListed adds a provider as the registry lists it now.
func (r *rehearsal) addListed(i *registry.Info) {
	p := registry.NewService[any](i.Service).Provider(i.Definition)
	p.Limits = i.Limits
	out := ""
	if !i.Eligible {
		out = i.Reason
	}
	r.put(identity{i.Service, i.Name}, p, out)
}

func (r *rehearsal) put(id identity, p registry.Provider[any], out string) {
	p.Instance, p.AtOnce = struct{}{}, true
	service := registry.NewService[any](id.service)
	if !r.bound[id.service] {
		r.bound[id.service] = true
		service.Bind(r.registry, registry.Query{}) // once, rather than with each change of the set
	}
	r.handles = append(r.handles, service.AddTo(&r.set, p))
	r.of = append(r.of, id)
	if out != "" {
		r.out[id] = out
	}
}

// run registers all that was added, or returns what is wrong.
func (r *rehearsal) run(at places) []Problem {
	err := r.registry.Update(context.Background(), &r.set)
	if err != nil {
		return problemsOf(err, at, r.of)
	}
	for i, id := range r.of {
		if out, is := r.out[id]; is {
			_ = r.handles[i].MarkUnhealthy(errors.New(out)) // it is registered
		}
	}
	return nil
}

// picked returns the providers that a query is given to.
func (r *rehearsal) picked(q *Query) (names []string) {
	e := registry.NewService[any](q.Service).Bind(r.registry, q.Query).Explain()
	var winner *registry.Candidate
	for i := range e.Candidates {
		if c := &e.Candidates[i]; c.Provider == e.Winner {
			winner = c
		}
	}
	switch {
	case winner == nil:
		return []string{}
	case winner.Strategy == registry.StrategyFallback.String():
		return []string{winner.Provider}
	}
	for _, c := range e.Candidates {
		if c.Eligible && c.Group == winner.Group && c.Handler == winner.Handler && c.Mock == winner.Mock {
			names = append(names, c.Provider)
		}
	}
	return names
}

// selectAll tries the selection policies.
func (r *rehearsal) selectAll(next *prepared) (problems []Problem) {
	for _, name := range slices.Sorted(maps.Keys(next.Services)) {
		policy := next.Services[name].Selection
		if policy == nil {
			continue
		}
		if _, err := registry.NewService[any](name).SetSelection(r.registry, *policy); err != nil {
			var field *registry.FieldError
			path := "services." + name + ".selection"
			if errors.As(err, &field) {
				path = "services." + name + "." + snake(field.Field)
			}
			p := next.places.of(path, "%s", problemOf(err, nil, nil).Text)
			p.Err = err
			problems = append(problems, p)
		}
	}
	return problems
}

var ofChange = regexp.MustCompile(`^(?:registry: [^:]*: )?Update\[(\d+)\][.:]? ?`)

// problemsOf returns the problems of an error of [registry.Registry.Update]; of tells which provider a change is of.
func problemsOf(err error, at places, of []identity) (problems []Problem) {
	causes := []error{err}
	if list, ok := err.(interface{ Unwrap() []error }); ok {
		causes = list.Unwrap()
	}
	for _, cause := range causes {
		problems = append(problems, problemOf(cause, at, of))
	}
	return problems
}

func problemOf(err error, at places, of []identity) Problem {
	text, path := err.Error(), ""
	var field *registry.FieldError
	if errors.As(err, &field) {
		text = fmt.Sprintf("is %s: want %s", field.Value, field.Bound)
	}
	if found := ofChange.FindStringSubmatch(err.Error()); found != nil {
		i, _ := strconv.Atoi(found[1])
		if i < len(of) {
			path = of[i].path()
		}
		if field != nil {
			path = join(path, snake(strings.TrimPrefix(field.Field, "Update["+found[1]+"].")))
		} else {
			text = strings.TrimPrefix(err.Error(), found[0])
		}
	}
	p := at.of(path, "%s", text)
	p.Err = err
	return p
}

// snake turns the name of a field in Go into that of a document.
func snake(name string) string {
	var b strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 && name[i-1] != '.' {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
