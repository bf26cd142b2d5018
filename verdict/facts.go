package verdict

import (
	"net/http"
	"reflect"
	"slices"
	"sync"
	"time"
)

// facts holds the parts of an API error beside its text.
type facts struct {
	status  int           // of HTTP; 0: none
	words   []string      // codes and types, the most particular first
	after   time.Duration // that the server asks to wait
	body    time.Duration // the same, in the body
	reset   time.Duration // until a limit begins again, if one is the reason
	drained bool          // a limit is the reason, though the status is 403
	named   Class         // by the name of the type
}

// wait returns the time that the server asks to wait where the error is one of the class.
func (f *facts) wait(class Class) time.Duration {
	switch {
	case f.after > 0:
		return f.after
	case f.body > 0:
		return f.body
	case class == ClassRateLimited:
		return f.reset
	}
	return 0
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
		f.setAfter(of.after)
		f.setBodyDelay(of.body)
		f.reset = max(f.reset, of.reset)
		if f.named == ClassUnknown {
			f.named = of.named
		}
		if found && i >= t.linear {
			continue
		}
		if f.status == 0 {
			f.status = of.status
		}
		f.words = append(f.words, of.words...)
		f.drained = f.drained || of.drained
		found = found || f.status != 0 || len(f.words) > 0
	}
	return f
}

// shape has the places of what is read from errors of one type: paths of fields, nil where there is none.
type shape struct {
	status, code, after, header []int
	answered, answer            []int // status and header of the response that the error keeps
	words                       [][]int
	body, details               []int
	bytes                       []int // of the data within an event of a stream
	named                       Class // by its name
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
	typeDuration = reflect.TypeFor[time.Duration]()
	typeBytes    = reflect.TypeFor[[]byte]()
	typeDetails  = reflect.TypeFor[[]map[string]any]()
)

// types has the names of types of errors that say more than the error does otherwise.
//
//nolint:gochecknoglobals // immutable data
var types = map[string]Class{
	"RateLimitError": ClassRateLimited, "RateLimitedError": ClassRateLimited, "AbuseRateLimitError": ClassRateLimited,
	"DeserializationError": ClassMalformed,
}

func (s *shape) measure(t reflect.Type) {
	s.named = types[t.Name()]
	s.code = fieldOf(t, isInteger, "Code")
	s.header = fieldOf(t, is(typeHeader), "Header", "Headers")
	if path := fieldOf(t, isResponse, "Response", "RawResponse"); path != nil {
		response := t.FieldByIndex(path).Type.Elem()
		s.answered = slices.Concat(path, fieldOf(response, isInteger, "StatusCode"))
		s.answer = slices.Concat(path, fieldOf(response, is(typeHeader), "Header"))
	}
	s.after = fieldOf(t, isDuration, "RetryAfter")
	s.body = fieldOf(t, isBody, "Body", "ResponseBody", "Data")
	s.details = fieldOf(t, is(typeDetails), "Details")
	s.status = fieldOf(t, isInteger, "HTTPStatusCode", "StatusCode", "HTTPStatus", "Status")
	if s.status == nil && (s.header != nil || s.answer != nil || fieldOf(t, isText, "Status") != nil) {
		s.status = s.code // else a number of its own, such as that of an SMTP server
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

func isDuration(t reflect.Type) bool {
	return t == typeDuration || t.Kind() == reflect.Pointer && t.Elem() == typeDuration
}

// isBody reports whether values of the type hold the answer of a server.
func isBody(t reflect.Type) bool { return t == typeBytes || t.Kind() == reflect.String }

// isResponse reports whether the type is that of a pointer to a response, also to one that wraps [http.Response].
func isResponse(t reflect.Type) bool {
	return t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct &&
		fieldOf(t.Elem(), isInteger, "StatusCode") != nil && fieldOf(t.Elem(), is(typeHeader), "Header") != nil
}

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
	f.named = s.named
	if field, ok := at(value, s.after); ok {
		if field = reflect.Indirect(field); field.IsValid() {
			f.setAfter(time.Duration(field.Int()))
		}
	}
	if field, ok := at(value, s.header); ok {
		header, _ := reflect.TypeAssert[http.Header](field)
		f.readResponse(f.status, header)
	}
	if field, ok := at(value, s.answered); ok {
		header, _ := at(value, s.answer)
		of, _ := reflect.TypeAssert[http.Header](header)
		f.readResponse(int(integer(field)), of)
	}
	if field, ok := at(value, s.details); ok {
		details, _ := reflect.TypeAssert[[]map[string]any](field)
		f.readDetails(details)
	}
	for _, path := range [][]int{s.body, s.bytes} {
		field, ok := at(value, path)
		switch {
		case !ok || field.Len() > bodyLimit:
		case field.Kind() == reflect.String:
			f.readReasons([]byte(field.String()))
		default:
			f.readBody(field.Bytes())
		}
	}
}

// readResponse reads the status of a response, unless the error has one, and its header.
func (f *facts) readResponse(status int, header http.Header) {
	if f.status == 0 {
		f.setStatus(int64(status))
	}
	f.setAfter(delayIn(header))
	reset, drained := resetIn(header)
	f.reset = max(f.reset, reset)
	f.drained = f.drained || drained && f.status == http.StatusForbidden
}

// readDetails reads the details of errors of Google's APIs.
func (f *facts) readDetails(details []map[string]any) {
	for _, detail := range details {
		f.addWord(text(detail["reason"]))
		f.setBodyDelay(resetOf(text(detail["retryDelay"])))
	}
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

func (f *facts) setBodyDelay(after time.Duration) {
	if f.body == 0 && after > 0 {
		f.body = after
	}
}
