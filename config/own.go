package config

import "reflect"

// LoadAs reads a file whose form is the program's own, such as the routes of a gateway, as strictly as [Load] reads a
// document: each unknown field and each wrong value is one of the problems of an [Error], with line, column and the
// nearest name. Fields have the names of their json tags, durations ([Duration]) and sizes ([Size]) are texts, anchors and
// merge keys work, and references such as ${env:NAME} are resolved in all texts. Where T has a method Validate() error,
// its error is a problem as well, and each of those that errors.Join has put together; secrets in their texts are replaced
// by their references. It reads neither directories nor
// what a document includes, and blocks on the file system. [FileSource.Watch] tells when to read a file again.
//
// What is wrong with the text is an [Error]; a file that cannot be read is an error of package os.
func LoadAs[T any](path string) (T, error) {
	text, err := read(path)
	if err != nil {
		var none T
		return none, err
	}
	return ParseAs[T](path, text)
}

// ParseAs is [LoadAs] for a text. The name stands for the text in problems.
func ParseAs[T any](name string, text []byte) (value T, err error) {
	root, problem := rootOf(name, text)
	if problem != nil {
		return value, refusal([]Problem{*problem})
	}
	d := &decoder{file: name, secrets: newSecrets()}
	d.value("", root, reflect.ValueOf(&value).Elem())
	if v, ok := any(&value).(interface{ Validate() error }); ok && len(d.problems) == 0 {
		for _, err := range each(v.Validate()) {
			d.problem("", root, "%s", d.secrets.scrub(err.Error()))
		}
	}
	if err := refusal(d.problems); err != nil {
		var none T
		return none, err
	}
	return value, nil
}

// each returns the errors that were joined, or the only one.
func each(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}
