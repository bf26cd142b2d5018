package test_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"math/rand/v2"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/hedge"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/metrics"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// jsonForms has a value of every exported type with a JSON form.
var jsonForms = []any{
	registry.Attempt{},
	registry.BreakerPolicy{},
	status.BreakerState(0),
	registry.BreakerStats{},
	registry.CallReport{},
	registry.Candidate{},
	registry.Definition{},
	registry.Explanation{},
	registry.Info{},
	registry.LimitPolicy{},
	registry.Priority(0),
	registry.Query{},
	registry.RetryPolicy{},
	federation.Announcement{},
	federation.AnnouncerState(""),
	federation.Entry{},
	federation.Fleet{},
	federation.Lease{},
	federation.List{},
	federation.Node{},
	federation.NodeState(""),
	federation.Offered{},
	federation.Phase(""),
	event.Event{},
	event.Filter{},
	event.Kind(""),
	health.Overall{},
	health.Policy{},
	health.Provider{},
	health.Service{},
	health.State(0),
	health.Status{},
	health.Transition{},
	health.Trend(0),
	hedge.Policy{},
	metrics.Amounts{},
	metrics.Bucket{},
	metrics.Histogram{},
	metrics.Minute{},
	metrics.Outcomes{},
	metrics.Provider{},
	metrics.Service{},
	metrics.Slice{},
	metrics.Snapshot{},
	reason.Code(""), reason.Why(""),
	registryhttp.Problem{},
	selection.Analytics{},
	selection.Decision{},
	selection.Detail{},
	selection.FactorValue{},
	selection.GroupFaults{},
	selection.Policy{},
	selection.Requirements{},
	selection.Share{},
	selection.Strategy{},
	status.Applied{},
	status.Budget{},
	status.Cooldown{},
	status.Difference{},
	status.Domain{},
	status.Performance{},
	status.Totals{},
	status.ProviderID{},
	status.Use{},
	startup.Component{},
	startup.Cycle{},
	startup.Definition{},
	startup.Event{},
	startup.Link{},
	startup.Missing{},
	startup.Need{},
	startup.Options{},
	startup.Plan{},
	startup.PlanError{},
	startup.Policy(0),
	startup.Report{},
	startup.Restart{},
	startup.RestartMode(0),
	startup.State(0),
	startup.Step{},
	verdict.Class(0),
	verdict.LastError{},
	verdict.Scope(0),
}

// formless are the exported types with exported fields, or with a value, that have no JSON form, with the reason.
var formless = reasons(map[string][]string{
	"its text travels, such as that of CallReport.Err: what it unwraps to cannot be written": {"registry.CallError", "registry.FieldError", "registry.UnavailableError", "process.ExitError", "verdict.ErrorTransport", "verdict.PanicError", "verdict.ResponseError"},
	"most of it is code: instances, functions, loggers, transports":                          {"registry.Component", "registry.Hooks", "registry.Options", "registry.Provider", "probes.HTTPOptions", "probes.TCPOptions", "process.Options", "process.Ready", "registryhttp.EventOptions", "registryhttp.MiddlewareOptions", "registryhttp.Options", "llm.Proxy", "llm.Transport", "llm.Way", "selectors.Factor", "stream.Options", "stream.ReaderOptions", "registrytest.ProbeSuite", "registrytest.Source", "federation.AnnouncerOptions", "federation.CooldownOptions", "federation.DNSOptions", "federation.HTTPPeerOptions", "federation.PeerOptions", "federation.SourceOptions", "federationtest.StoreSuite"},
	"it holds credentials; it is written, for logs, as its URL without them":                 {"registryhttp.Upstream"},
	"it holds credentials":                                                {"registryhttp.UpstreamOptions"},
	"it is the bytes of a store":                                          {"federation.Record"},
	"it is a handle":                                                      {"registry.Lease", "process.Streams"},
	"it travels in headers":                                               {"registryhttp.Metadata"},
	"it has a text form of its own, server-sent events":                   {"stream.Event"},
	"its form is the one of OpenAI's API":                                 {"llm.Error", "llm.Model"},
	"it is a request that was read":                                       {"llm.Request", "registrytest.ChatMessage", "registrytest.ChatRequest"},
	"it is the argument of a function and is kept nowhere":                {"federation.Offer", "health.Facts", "llm.Report", "registrytest.Candidate", "selection.Request", "selectors.Benchmark"},
	"it is what a class means to this version; the class is what travels": {"verdict.Blame", "verdict.Cooldown", "verdict.Next", "verdict.Retry", "verdict.Rule", "verdict.Tally", "verdict.Verdict"},
})

// reasons returns the reason of each name.
func reasons(of map[string][]string) map[string]string {
	reasons := make(map[string]string)
	for reason, names := range of {
		for _, name := range names {
			reasons[name] = reason
		}
	}
	return reasons
}

// leftOut are the fields that are data of a type with a form, and no part of the form, with the reason. Functions never are.
var leftOut = map[string]string{
	"registry.CallReport.skipped":     "the form has the list that the method Skipped makes of it",
	"registryhttp.Problem.RetryAfter": "it is sent as a header, as HTTP has it",
}

const jsonRounds = 100

func TestJSON_EveryExportedTypeIsReadBackOrHasAReason(t *testing.T) {
	t.Parallel()
	listed := make(map[string]bool)
	for _, value := range jsonForms {
		listed[formName(reflect.TypeOf(value))] = true
	}
	found := make(map[string]bool)
	for _, dir := range packageDirs(t) {
		if strings.HasPrefix(dir, "internal/") {
			continue
		}
		files := parseDir(t, dir)
		for name, shape := range exportedShapes(files) {
			found[name] = true
			if listed[name] {
				require.NotContains(t, formless, name, "it has a form")
				continue
			}
			if shape.marshals || shape.data {
				require.Contains(t, formless, name, "add it to jsonForms, or say why it has no JSON form")
			}
		}
	}
	for name := range listed {
		require.True(t, found[name], "%s is no exported type", name)
	}
	for name := range formless {
		require.True(t, found[name], "%s is no exported type", name)
	}
}

// formName returns the name of a type with that of its package, without type arguments.
func formName(of reflect.Type) string {
	name, _, _ := strings.Cut(of.Name(), "[")
	return path.Base(of.PkgPath()) + "." + name
}

// typeShape is what the source of a type tells about its JSON form.
type typeShape struct {
	marshals bool // by a method or by tags
	data     bool // it has a value to write
}

// exportedShapes returns the shapes of the exported types of a package by their names.
func exportedShapes(files map[string]*ast.File) map[string]*typeShape {
	shapes := make(map[string]*typeShape)
	for _, file := range files {
		if file.Name.Name == "main" {
			return nil
		}
		for _, declaration := range file.Decls {
			general, ok := declaration.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range general.Specs {
				if declared, ok := spec.(*ast.TypeSpec); ok && declared.Name.IsExported() && !declared.Assign.IsValid() {
					shapes[file.Name.Name+"."+declared.Name.Name] = shapeOf(declared)
				}
			}
		}
	}
	for _, file := range files {
		for _, f := range functionsOf(file) {
			if f.Recv == nil || f.Name.Name != "MarshalJSON" && f.Name.Name != "MarshalText" {
				continue
			}
			if shape := shapes[file.Name.Name+"."+receiverName(f)]; shape != nil {
				shape.marshals = true
			}
		}
	}
	return shapes
}

func shapeOf(declared *ast.TypeSpec) *typeShape {
	shape := &typeShape{}
	switch kind := declared.Type.(type) {
	case *ast.InterfaceType, *ast.FuncType:
	case *ast.StructType:
		for _, field := range kind.Fields.List {
			shape.marshals = shape.marshals || field.Tag != nil && strings.Contains(field.Tag.Value, "json:")
			shape.data = shape.data || slices.ContainsFunc(field.Names, (*ast.Ident).IsExported)
		}
	default:
		shape.data = true
	}
	return shape
}

func TestJSON_IsReadBackAsItWasWritten(t *testing.T) {
	t.Parallel()
	for _, value := range jsonForms {
		of := reflect.TypeOf(value)
		t.Run(of.String(), func(t *testing.T) {
			t.Parallel()
			for round := range uint64(jsonRounds) {
				value, want := reflect.New(of).Elem(), reflect.New(of).Elem()
				newFiller(round, func(text string) error { return failure{text} }).fill(value, true)
				newFiller(round, errors.New).fill(want, true)
				text, err := json.Marshal(value.Interface())
				require.NoError(t, err)
				back := reflect.New(of)
				require.NoError(t, json.Unmarshal(text, back.Interface()), "%s", text)
				require.Equal(t, want.Interface(), back.Elem().Interface(), "round %d: %s", round, text)

				written, err := json.Marshal(back.Interface())
				require.NoError(t, err)
				require.JSONEq(t, string(text), string(written))
			}
		})
	}
}

func TestJSON_HasDurationsAsTextAndNamesInSnakeCase(t *testing.T) {
	t.Parallel()
	snake := regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z][a-z0-9]*)*$`)
	for _, value := range jsonForms {
		of := reflect.TypeOf(value)
		full := reflect.New(of).Elem()
		f := newFiller(0, errors.New)
		f.duration = 98765 * time.Hour
		f.fill(full, true)
		text, err := json.Marshal(full.Interface())
		require.NoError(t, err)
		require.NotContains(t, string(text), strconv.FormatInt(int64(f.duration), 10), "%v: nanoseconds", of)
		require.Equal(t, f.durations, strings.Count(string(text), `"98765h"`), "%v: %s", of, text)
		require.Equal(t, f.errors, strings.Count(string(text), f.errorText), "%v: %s", of, text)
		var parsed any
		require.NoError(t, json.Unmarshal(text, &parsed))
		eachKey(parsed, func(key string) { require.Regexp(t, snake, key, "%v", of) })
	}
}

// eachKey calls use for the keys of all objects.
func eachKey(value any, use func(string)) {
	switch value := value.(type) {
	case map[string]any:
		for key, inner := range value {
			use(key)
			eachKey(inner, use)
		}
	case []any:
		for _, inner := range value {
			eachKey(inner, use)
		}
	}
}

func TestJSON_BadDurationNamesFieldAndValueAndChangesNothing(t *testing.T) {
	t.Parallel()
	tried := 0
	for _, value := range jsonForms {
		of := reflect.TypeOf(value)
		if of.Kind() != reflect.Struct {
			continue
		}
		for _, field := range reflect.VisibleFields(of) {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if field.Type != reflect.TypeFor[time.Duration]() || name == "-" {
				continue
			}
			tried++
			into, want := reflect.New(of), reflect.New(of)
			newFiller(1, errors.New).fill(into.Elem(), true)
			newFiller(1, errors.New).fill(want.Elem(), true)
			for _, bad := range []string{`"2 parsecs"`, `2000000000`} {
				err := json.Unmarshal([]byte(`{"`+name+`":`+bad+`}`), into.Interface())
				require.ErrorIs(t, err, registry.ErrInvalid, "%v.%s", of, field.Name)
				require.EqualError(t, err, "invalid input: "+name+" is "+bad+`: want a duration such as "1m30s" or "250ms"`)
				require.Equal(t, want.Interface(), into.Interface())
			}
		}
	}
	require.Positive(t, tried)
}

func TestJSON_OnlyFunctionsAreLeftOutWithoutAReason(t *testing.T) {
	t.Parallel()
	unused := make(map[string]bool)
	for name := range leftOut {
		unused[name] = true
	}
	for _, value := range jsonForms {
		of := reflect.TypeOf(value)
		if of.Kind() != reflect.Struct || of == reflect.TypeFor[selection.Strategy]() { // which is written by its name
			continue
		}
		for _, field := range reflect.VisibleFields(of) {
			name := formName(of) + "." + field.Name
			if field.IsExported() && (field.Tag.Get("json") != "-" || isFunction(field.Type)) {
				continue
			}
			require.Contains(t, leftOut, name)
			delete(unused, name)
		}
	}
	require.Empty(t, unused)
}

func isFunction(of reflect.Type) bool {
	return of.Kind() == reflect.Func || of.Kind() == reflect.Map && isFunction(of.Elem())
}

// failure is an error of a user.
type failure struct{ text string }

func (f failure) Error() string { return f.text }

// filler fills values with random data, the same for the same seed.
type filler struct {
	random    *rand.Rand
	newError  func(string) error
	sparse    bool          // leave out some of them
	duration  time.Duration // all of them; zero: random ones
	durations int           // that were filled
	errorText string        // all of them; empty: random ones
	errors    int           // that were filled
}

// newFiller returns a filler; with seed 0 it fills everything.
func newFiller(seed uint64, newError func(string) error) *filler {
	return &filler{random: rand.New(rand.NewPCG(seed, 1)), newError: newError, sparse: seed > 0, errorText: map[bool]string{true: "failure of disk"}[seed == 0]}
}

// fill sets v to a value that is not zero, unless it may be left out.
func (f *filler) fill(v reflect.Value, must bool) {
	if f.sparse && !must && f.random.IntN(4) == 0 {
		return
	}
	switch at := v.Addr().Interface().(type) {
	case *time.Time:
		*at = time.Unix(f.random.Int64N(1<<34), f.random.Int64N(1e9)).UTC()
		return
	case *time.Duration:
		f.durations++
		if *at = f.duration; *at == 0 {
			*at = time.Duration(f.random.Int64()) >> f.random.IntN(60) * time.Duration(1-2*f.random.IntN(2))
		}
		return
	case *error:
		f.errors++
		text := f.errorText
		if text == "" {
			text = oneline.Of(f.text())
		}
		*at = f.newError(text)
		return
	case *selection.Strategy:
		names := []string{"FALLBACK", "ROUND_ROBIN", "WEIGHTED"}
		if err := at.UnmarshalText([]byte(names[f.random.IntN(len(names))])); err != nil {
			panic(err)
		}
		return
	}
	f.fillKind(v)
}

func (f *filler) fillKind(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString(f.text())
	case reflect.Int, reflect.Int64, reflect.Int32, reflect.Int16:
		v.SetInt(1 + f.random.Int64N(1<<15-1))
	case reflect.Int8: // a name
		v.SetInt(f.named(v, func(n int) reflect.Value { return reflect.ValueOf(int8(n - 3)) }).Int())
	case reflect.Uint8: // a name, or a byte
		v.SetUint(f.named(v, func(n int) reflect.Value { return reflect.ValueOf(uint8(n)) }).Uint())
	case reflect.Uint, reflect.Uint64, reflect.Uint32, reflect.Uint16:
		v.SetUint(1 + f.random.Uint64N(1<<16-1))
	case reflect.Float64, reflect.Float32:
		v.SetFloat(f.random.NormFloat64())
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem(), true)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1+f.random.IntN(3), 3))
		for i := range v.Len() {
			f.fill(v.Index(i), true)
		}
	case reflect.Array:
		for i := range v.Len() {
			f.fill(v.Index(i), true)
		}
	case reflect.Map:
		if !isFunction(v.Type()) {
			f.fillMap(v)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if field := v.Type().Field(i); field.IsExported() && field.Tag.Get("json") != "-" {
				f.fill(v.Field(i), false)
			}
		}
	case reflect.Func:
	default:
		panic(fmt.Sprintf("a %v cannot be filled", v.Type()))
	}
}

func (f *filler) fillMap(v reflect.Value) {
	v.Set(reflect.MakeMap(v.Type()))
	for range 1 + f.random.IntN(3) {
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		f.fill(key, true)
		if key.Kind() == reflect.String {
			key.SetString(string(rune('a' + f.random.IntN(26))))
		}
		f.fill(value, true)
		v.SetMapIndex(key, value)
	}
}

// named returns a number that has a name in the type of v, where its numbers have names; not 0, unless only that has one.
func (f *filler) named(v reflect.Value, number func(int) reflect.Value) reflect.Value {
	var valid []reflect.Value
	for n := range 100 {
		value := number(n).Convert(v.Type())
		if marshaler, ok := reflect.TypeAssert[interface{ MarshalText() ([]byte, error) }](value); ok {
			if _, err := marshaler.MarshalText(); err != nil {
				continue
			}
		}
		if !value.IsZero() {
			valid = append(valid, value)
		}
	}
	return valid[f.random.IntN(len(valid))]
}

// text returns a few characters, with some that need care.
func (f *filler) text() string {
	letters := []rune("ab \"\\<>&/\n\t\x00\u2028é漢🙂'`{}")
	text := make([]rune, 1+f.random.IntN(12))
	for i := range text {
		text[i] = letters[f.random.IntN(len(letters))]
	}
	return string(text)
}
