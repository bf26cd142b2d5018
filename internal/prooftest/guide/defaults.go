package main

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"iter"
	"net/http"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/hedge"
	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/startup/process"
	"github.com/capreg/registry/stream"
)

// subject is a type with settings. Its zero value is valid.
type subject struct {
	dir, name string // the package's folder, and the type as users write it
	fields    reflect.Type
	// check gives a pointer to a value to the code that refuses bad ones. Nil for types without numbers.
	check func(value any) error
	// given sets what a field is only valid together with.
	given map[string]func(value any)
	// inForce returns a value with its defaults, where the code's refusals do not have them.
	inForce func() (any, error)
}

// service is the service whose providers have the settings that are checked.
var service = registry.NewService[int]("service")

// subjects lists the types in the order of the page.
func subjects() []subject {
	provider := func(set func(*registry.Provider[int], any)) func(any) error {
		return func(value any) error {
			p := registry.Provider[int]{Instance: 1}
			set(&p, value)
			return tried(func(reg *registry.Registry) error {
				_, err := service.Register(context.Background(), reg, p)
				return err
			})
		}
	}
	rate := func(value any) { value.(*registry.BreakerPolicy).FailureRate = 0.5 }
	return []subject{
		of[registry.Options](".", "Options", func(value any) error {
			_, err := registry.New(*value.(*registry.Options))
			return err
		}),
		of[registry.Provider[int]](".", "Provider", provider(func(p *registry.Provider[int], value any) {
			*p = *value.(*registry.Provider[int])
			p.Instance = 1
		})),
		with(of[registry.BreakerPolicy](".", "BreakerPolicy", provider(func(p *registry.Provider[int], value any) {
			p.Breaker = *value.(*registry.BreakerPolicy)
		})), map[string]func(any){"MinimumCalls": rate}),
		of[registry.RetryPolicy](".", "RetryPolicy", provider(func(p *registry.Provider[int], value any) {
			p.Retry = *value.(*registry.RetryPolicy)
		})),
		of[registry.LimitPolicy](".", "LimitPolicy", provider(func(p *registry.Provider[int], value any) {
			p.Limits = *value.(*registry.LimitPolicy)
		})),
		read(of[health.Policy]("health", "health.Policy", provider(func(p *registry.Provider[int], value any) {
			p.Health = *value.(*health.Policy)
			p.Health.Probe = func(context.Context) error { return nil }
		})), healthInForce),
		of[selection.Policy]("selection", "selection.Policy", func(value any) error {
			_, err := registry.New(registry.Options{Selection: *value.(*selection.Policy)})
			return err
		}),
		of[hedge.Policy]("hedge", "hedge.Policy", func(value any) error {
			return tried(func(reg *registry.Registry) error {
				_, err := hedge.Call(context.Background(), service.Bind(reg, registry.Query{}), *value.(*hedge.Policy),
					func(context.Context, int) (int, error) { return 0, nil })
				return err
			})
		}),
		of[stream.Options[int]]("stream", "stream.Options", func(value any) error {
			return tried(func(reg *registry.Registry) error {
				_, err := stream.Open(context.Background(), service.Bind(reg, registry.Query{}),
					func(context.Context, int) (iter.Seq2[int, error], error) { return nil, nil }, //nolint:nilnil // not called
					*value.(*stream.Options[int]))
				return err
			})
		}),
		of[registryhttp.Options]("registryhttp", "registryhttp.Options", func(value any) error {
			return tried(func(reg *registry.Registry) error {
				options := *value.(*registryhttp.Options)
				options.Transport = http.DefaultTransport
				upstreams := registry.NewService[*registryhttp.Upstream]("upstreams")
				_, err := registryhttp.NewTransport(upstreams.Bind(reg, registry.Query{}), options)
				return err
			})
		}),
		of[registryhttp.UpstreamOptions]("registryhttp", "registryhttp.UpstreamOptions", nil),
		of[registryhttp.MiddlewareOptions]("registryhttp", "registryhttp.MiddlewareOptions", nil),
		of[startup.Options]("startup", "startup.Options", func(value any) error {
			_, err := registry.NewOrchestrator(nil, *value.(*startup.Options))
			return err
		}),
		of[startup.Restart]("startup", "startup.Restart", func(value any) error {
			_, err := registry.NewOrchestrator(nil, startup.Options{},
				registry.Component{Name: "c", Restart: *value.(*startup.Restart)})
			return err
		}),
		of[registry.Component](".", "Component", nil),
		of[process.Options]("startup/process", "process.Options", nil),
	}
}

// of returns the subject of a type.
func of[T any](dir, name string, check func(any) error) subject {
	return subject{dir: dir, name: name, fields: reflect.TypeFor[T](), check: check}
}

// with returns the subject with what its fields are only valid together with.
func with(s subject, given map[string]func(any)) subject {
	s.given = given
	return s
}

// read returns the subject with a function that returns a value with its defaults.
func read(s subject, inForce func() (any, error)) subject {
	s.inForce = inForce
	return s
}

// healthInForce returns the health policy that a probe gets by default.
func healthInForce() (policy any, err error) {
	err = tried(func(reg *registry.Registry) error {
		registration, err := service.Register(context.Background(), reg, registry.Provider[int]{
			Instance: 1, Health: health.Policy{Probe: func(context.Context) error { return nil }},
		})
		if err != nil {
			return err
		}
		policy, err = registration.SetHealthPolicy(health.Policy{Off: true})
		return err
	})
	return policy, err
}

// tried runs a check on a registry of its own.
func tried(check func(*registry.Registry) error) error {
	reg, err := registry.New(registry.Options{})
	if err != nil {
		return err
	}
	return errors.Join(check(reg), reg.Close(context.Background()))
}

// defaults returns a table for each subject. The accepted values are what the code itself says when it refuses one. The
// defaults are those of the documentation, which has to agree with the code.
func defaults(top string) (string, error) {
	var page strings.Builder
	for _, s := range subjects() {
		comments, err := commentsOf(filepath.Join(top, s.dir), s.name[strings.LastIndex(s.name, ".")+1:])
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&page, "\n## %s\n\n| field | default | accepted | what it is |\n| --- | --- | --- | --- |\n", s.name)
		for i := range s.fields.NumField() {
			row, err := s.row(s.fields.Field(i), comments)
			if err != nil {
				return "", fmt.Errorf("%s.%s: %w", s.name, s.fields.Field(i).Name, err)
			}
			page.WriteString(row)
		}
	}
	return page.String(), nil
}

var (
	sentence = regexp.MustCompile(`^.*?[.:;](\s|$)`)
	preset   = regexp.MustCompile(`Default:\s+(.*?)\.(\s|$)`)
	amount   = regexp.MustCompile(`^(\d[\d,.]*)( (?:ms|s|min|h)\b)?`)
	bounded  = regexp.MustCompile(`\(default ([^)]+)\)`)
	links    = regexp.MustCompile(`\[([\w.*]+)\]`)
)

// row returns the row of a field; none for a field that says nothing of its default and has no bound.
func (s subject) row(field reflect.StructField, comments map[string]string) (string, error) {
	comment := comments[field.Name]
	documented := preset.FindStringSubmatch(comment)
	bound, err := s.bound(field)
	if err != nil || documented == nil && bound == "" {
		return "", err
	}
	text := "zero"
	if documented != nil {
		text = documented[1]
		coded, err := s.coded(field, bound)
		if err == nil {
			err = agree(text, coded)
		}
		if err != nil {
			return "", err
		}
	} else if found := bounded.FindStringSubmatch(bound); found != nil {
		return "", fmt.Errorf("the comment has no default; the code says %q", bound)
	}
	meaning := strings.TrimRight(strings.TrimSpace(sentence.FindString(comment)), ".:;")
	if rest, ok := strings.CutPrefix(meaning, field.Name+" "); ok && !strings.HasPrefix(rest, "and ") {
		meaning = strings.TrimPrefix(strings.TrimPrefix(rest, "is "), "are ")
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s |\n", field.Name, marked(text), cell(strings.ReplaceAll(bounded.ReplaceAllString(bound, ""), "(default)", "")), marked(meaning)), nil
}

// cell returns the text of a bound, without spaces that a removed part has left.
func cell(bound string) string { return readable.Replace(strings.Join(strings.Fields(bound), " ")) }

// readable puts numbers of bounds as a reader would.
var readable = strings.NewReplacer( //nolint:gochecknoglobals // immutable
	" ,", ",", " to 2147483647", " or more", "87600h0m0s", "10 years", "24h0m0s", "24 h", "0, or 0s to", "0 to", "1048576", "1,048,576",
)

// marked returns a sentence of a doc comment as Markdown.
func marked(text string) string { return links.ReplaceAllString(text, "`$1`") }

// refused are values that fields of numbers refuse, in the order in which they are tried.
var refused = []float64{-1, -1e18} //nolint:gochecknoglobals // immutable

// bound returns what the code says when it refuses a number; nothing for other fields and those that take any number.
func (s subject) bound(field reflect.StructField) (string, error) {
	if s.check == nil {
		return "", nil
	}
	for _, number := range refused {
		value := reflect.New(s.fields)
		at := value.Elem().FieldByIndex(field.Index)
		switch at.Kind() {
		case reflect.Int, reflect.Int64:
			at.SetInt(int64(number))
		case reflect.Float64:
			at.SetFloat(number)
		default:
			return "", nil
		}
		if set := s.given[field.Name]; set != nil {
			set(value.Interface())
		}
		err := s.check(value.Interface())
		var wrong *registry.FieldError
		switch {
		case err == nil:
		case !errors.As(err, &wrong):
			return "", err
		case strings.HasSuffix(wrong.Field, field.Name):
			return wrong.Bound, nil
		default:
			return "", fmt.Errorf("is refused as %q", wrong.Field)
		}
	}
	return "", nil
}

// coded returns the default of a field as the code has it; nothing for fields without a bound.
func (s subject) coded(field reflect.StructField, bound string) (string, error) {
	found := bounded.FindStringSubmatch(bound)
	switch {
	case found != nil:
		return found[1], nil
	case bound == "":
		return "", nil
	case s.inForce == nil:
		return "0", nil
	}
	value, err := s.inForce()
	if err != nil {
		return "", err
	}
	return fmt.Sprint(reflect.ValueOf(value).FieldByIndex(field.Index)), nil
}

// agree compares a documented default with the one of the code, where both are numbers.
func agree(documented, coded string) error {
	said := amount.FindStringSubmatch(documented)
	if said == nil || coded == "" {
		return nil
	}
	want, err := number(said[1] + strings.TrimSpace(said[2]))
	if err != nil {
		return err
	}
	got, err := number(coded)
	if err != nil {
		return err
	}
	if want != got {
		return fmt.Errorf("the comment says %q, the code %q", documented, coded)
	}
	return nil
}

// number returns a count, or a duration in seconds.
func number(text string) (float64, error) {
	text = strings.ReplaceAll(strings.ReplaceAll(text, ",", ""), "min", "m")
	if d, err := time.ParseDuration(text); err == nil {
		return d.Seconds(), nil
	}
	return strconv.ParseFloat(text, 64)
}

// ownComment returns what the comment of fields that are declared together says of one of them: from each of its names
// on, up to that of another.
func ownComment(comment, name string, together []*ast.Ident) string {
	if len(together) == 1 {
		return comment
	}
	var own []string
	said := false
	for _, text := range strings.SplitAfter(comment, ". ") {
		before, part, found := strings.Cut(" "+text, " "+name+" ")
		others := slices.ContainsFunc(together, func(other *ast.Ident) bool { return strings.Contains(" "+text, " "+other.Name+" ") })
		said = found || said && !others
		switch {
		case strings.HasSuffix(before, " and") && !strings.HasSuffix(before, ", and"): // of both
			own = append(own, text)
		case found:
			for _, other := range together {
				part, _, _ = strings.Cut(part, ", "+other.Name+" ")
			}
			own = append(own, name+" "+strings.TrimRight(part, ". ")+". ")
		case said:
			own = append(own, text)
		}
	}
	return strings.Join(own, "")
}

// commentsOf returns the comments of the fields of a struct type.
func commentsOf(dir, name string) (map[string]string, error) {
	comments := make(map[string]string)
	fset := token.NewFileSet()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	for _, file := range names {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(fset, file, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.Inspect(parsed, func(node ast.Node) bool {
			spec, ok := node.(*ast.TypeSpec)
			if !ok || spec.Name.Name != name {
				return true
			}
			if structure, ok := spec.Type.(*ast.StructType); ok {
				for _, field := range structure.Fields.List {
					for _, ident := range field.Names {
						comments[ident.Name] = ownComment(strings.Join(strings.Fields(field.Doc.Text()), " "), ident.Name, field.Names)
					}
				}
			}
			return false
		})
	}
	if len(comments) == 0 {
		return nil, fmt.Errorf("no type %s in %s: %w", name, dir, fs.ErrNotExist)
	}
	return comments, nil
}
