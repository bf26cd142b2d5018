package verdict

import (
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"time"
)

// facts holds the parts of an API error beside its text.
type facts struct {
	status int           // of HTTP; 0: none
	words  []string      // codes and types, the most particular first
	after  time.Duration // that the server asks to wait
}

// factsOf reads the facts of an error. It reads methods and exported fields by their names, so that it knows the
// errors of SDKs without importing them, and never the text.
func factsOf(err error) (f facts) {
	defer func() {
		if recover() != nil { // a method of the error
			f = facts{}
		}
	}()
	var t tree
	t.grow(err)
	return t.facts()
}

// facts returns those of the outermost error that has some. The ones that it wraps may add what it lacks, until the
// tree forks; the delay may be anywhere.
func (t *tree) facts() (f facts) {
	found := false
	for i, node := range t.all() {
		var of facts
		if !found || i < t.linear || f.after == 0 {
			of = readFacts(node)
		}
		if f.after == 0 {
			f.after = of.after
		}
		if found && i >= t.linear {
			continue
		}
		if f.status == 0 {
			f.status = of.status
		}
		f.words = append(f.words, of.words...)
		found = found || f.status != 0 || len(f.words) > 0
	}
	return f
}

// shape has the places of what is read from errors of one type: paths of fields, nil where there is none.
type shape struct {
	status, after, header, response []int
	words                           [][]int
	body                            []int
	bytes                           []int // of the data within an event of a stream
}

//nolint:gochecknoglobals // a cache: the shape of a type does not change
var shapes sync.Map // of reflect.Type to *shape

func shapeOf(t reflect.Type) *shape {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if known, ok := shapes.Load(t); ok {
		return known.(*shape) //nolint:forcetypeassert // it has nothing else
	}
	s := &shape{}
	if t.Kind() == reflect.Struct {
		s.measure(t)
	}
	shapes.Store(t, s)
	return s
}

//nolint:gochecknoglobals // immutable
var (
	typeHeader   = reflect.TypeFor[http.Header]()
	typeResponse = reflect.TypeFor[*http.Response]()
	typeDuration = reflect.TypeFor[time.Duration]()
	typeBytes    = reflect.TypeFor[[]byte]()
)

func (s *shape) measure(t reflect.Type) {
	s.header = fieldOf(t, is(typeHeader), "Header", "Headers")
	s.response = fieldOf(t, is(typeResponse), "Response", "RawResponse")
	s.after = fieldOf(t, is(typeDuration), "RetryAfter")
	s.body = fieldOf(t, is(typeBytes), "Body", "ResponseBody", "Data")
	s.status = fieldOf(t, isInteger, "HTTPStatusCode", "StatusCode", "HTTPStatus", "Status")
	if s.status == nil && (s.header != nil || s.response != nil || fieldOf(t, isText, "Status") != nil) {
		s.status = fieldOf(t, isInteger, "Code") // else a number of its own, such as that of an SMTP server
	}
	for _, name := range []string{"Code", "ErrorCode", "Err", "Type", "Status"} {
		if path := fieldOf(t, isText, name); path != nil {
			s.words = append(s.words, path)
		}
	}
	isEvent := func(event reflect.Type) bool {
		return event.Kind() == reflect.Struct && fieldOf(event, is(typeBytes), "Data") != nil
	}
	if path := fieldOf(t, isEvent, "Event"); path != nil {
		s.bytes = slices.Concat(path, fieldOf(t.FieldByIndex(path).Type, is(typeBytes), "Data"))
	}
}

// fieldOf returns the path of the first exported field of one of the names whose type fits; nil for none.
func fieldOf(t reflect.Type, fits func(reflect.Type) bool, names ...string) []int {
	for _, name := range names {
		if field, ok := t.FieldByName(name); ok && field.IsExported() && fits(field.Type) {
			return field.Index
		}
	}
	return nil
}

func is(want reflect.Type) func(reflect.Type) bool {
	return func(t reflect.Type) bool { return t == want }
}

func isInteger(t reflect.Type) bool { return t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64 }

// isText reports whether values of the type may be a text: also an optional one, and any value.
func isText(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Kind() == reflect.String || t.Kind() == reflect.Interface && t.NumMethod() == 0
}

// readFacts reads the facts of one error, not of those that it wraps.
func readFacts(err error) (f facts) {
	if response, ok := err.(*ResponseError); ok && response != nil { //nolint:errorlint // the tree is visited by the caller
		return response.facts()
	}
	value := reflect.ValueOf(err)
	s := shapeOf(value.Type())
	if value.Kind() == reflect.Pointer {
		if value.IsNil() {
			return f
		}
		value = value.Elem()
	}
	f.readMethods(err)
	if value.Kind() == reflect.Struct {
		f.readFields(value, s)
	}
	return f
}

// readMethods reads what the methods of the error return.
func (f *facts) readMethods(err error) {
	switch e := err.(type) { //nolint:errorlint // the tree is visited by the caller
	case interface{ HTTPStatusCode() int }:
		f.setStatus(int64(e.HTTPStatusCode()))
	case interface{ StatusCode() int }:
		f.setStatus(int64(e.StatusCode()))
	case interface{ HTTPStatus() int }:
		f.setStatus(int64(e.HTTPStatus()))
	case interface{ HTTPCode() int }:
		f.setStatus(int64(e.HTTPCode()))
	case interface{ Status() int }:
		f.setStatus(int64(e.Status()))
	}
	if e, ok := err.(interface{ RetryAfter() time.Duration }); ok {
		f.setAfter(e.RetryAfter())
	}
	if e, ok := err.(interface{ ErrorCode() string }); ok {
		f.addWord(e.ErrorCode())
	}
	value := reflect.ValueOf(err)
	f.addResult(value.MethodByName("Code"))
	f.addResult(value.MethodByName("Type"))
	if e, ok := err.(interface{ RawJSON() string }); ok {
		if text := e.RawJSON(); len(text) <= bodyLimit {
			f.readBody([]byte(text))
		}
	}
}

// addResult adds what a method without arguments returns, if that is a text of whatever type.
func (f *facts) addResult(method reflect.Value) {
	if method.IsValid() && method.Type().NumIn() == 0 && method.Type().NumOut() == 1 && method.Type().Out(0).Kind() == reflect.String {
		f.addWord(method.Call(nil)[0].String())
	}
}

func (f *facts) readFields(value reflect.Value, s *shape) {
	if field, ok := at(value, s.status); ok && f.status == 0 {
		f.setStatus(integer(field))
	}
	for _, path := range s.words {
		if field, ok := at(value, path); ok {
			f.addField(field)
		}
	}
	if field, ok := at(value, s.after); ok {
		f.setAfter(time.Duration(field.Int()))
	}
	if field, ok := at(value, s.header); ok {
		header, _ := reflect.TypeAssert[http.Header](field)
		f.setAfter(delayIn(header))
	}
	if field, ok := at(value, s.response); ok {
		response, _ := reflect.TypeAssert[*http.Response](field) //nolint:bodyclose // it is the client's
		f.readResponse(response)
	}
	for _, path := range [][]int{s.body, s.bytes} {
		if field, ok := at(value, path); ok && field.Len() <= bodyLimit {
			f.readBody(field.Bytes())
		}
	}
}

func (f *facts) readResponse(response *http.Response) {
	if response == nil {
		return
	}
	if f.status == 0 {
		f.setStatus(int64(response.StatusCode))
	}
	f.setAfter(delayIn(response.Header))
}

// integer returns the value of an integer of whatever type.
func integer(field reflect.Value) int64 {
	if field.CanInt() {
		return field.Int()
	}
	return int64(min(field.Uint(), 1000)) // no status is as large
}

// at returns the field of the path, unless a pointer on the way is nil.
func at(value reflect.Value, path []int) (field reflect.Value, ok bool) {
	if path == nil {
		return field, false
	}
	field, err := value.FieldByIndexErr(path)
	return field, err == nil
}

// addField adds a text, also an optional one.
func (f *facts) addField(field reflect.Value) {
	for field.Kind() == reflect.Pointer || field.Kind() == reflect.Interface {
		if field.IsNil() {
			return
		}
		field = field.Elem()
	}
	if field.Kind() == reflect.String {
		f.addWord(field.String())
	}
}

// wordLimit bounds a code or type; the known ones are shorter.
const wordLimit = 64

func (f *facts) addWord(word string) { f.words = appendWord(f.words, word) }

func appendWord(words []string, word string) []string {
	if word != "" && len(word) <= wordLimit {
		words = append(words, word)
	}
	return words
}

func (f *facts) setStatus(code int64) {
	if code >= 100 && code <= 599 {
		f.status = int(code)
	}
}

func (f *facts) setAfter(after time.Duration) {
	if f.after == 0 && after > 0 {
		f.after = min(after, longestDelay)
	}
}

// bodyLimit bounds the body of an answer that is read for its codes.
const bodyLimit = 64 << 10

// apiError has the fields of the JSON errors of APIs, which are within an object or bare.
type apiError struct {
	Code    any             `json:"code"`
	Type    any             `json:"type"`
	Status  any             `json:"status"`
	Param   any             `json:"param"`
	Error   json.RawMessage `json:"error"`
	Details []struct {
		Reason string `json:"reason"`
	} `json:"details"`
}

// readBody reads the codes in the JSON of an error. A body that is none has none.
func (f *facts) readBody(body []byte) {
	said, ok := parseBody(body)
	if !ok {
		return
	}
	f.words = append(f.words, said.words()...)
}

// words returns the codes of the error, the most particular first.
func (e apiError) words() (words []string) {
	for _, detail := range e.Details {
		words = appendWord(words, detail.Reason)
	}
	for _, word := range []any{e.Code, e.Type, e.Status} {
		words = appendWord(words, text(word))
	}
	return words
}

// parseBody returns the error in a body, the inner one where there are two.
func parseBody(body []byte) (said apiError, ok bool) {
	if len(body) == 0 || body[0] != '{' {
		return said, false
	}
	// A field of another type than expected is left out; the rest is read.
	_ = json.Unmarshal(body, &said)
	if len(said.Error) > 0 && said.Error[0] == '{' {
		var inner apiError
		_ = json.Unmarshal(said.Error, &inner)
		return inner, true
	}
	return said, true
}
