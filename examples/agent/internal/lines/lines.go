// Package lines keeps values in a file, a line of JSON each.
package lines

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
)

// Append writes the value to the end of the file. The file is opened for each
// value: it is complete at any moment, and a disk that comes back is used again.
func Append(path string, value any) (err error) {
	line, err := json.Marshal(value)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600) //nolint:gosec // the path is the program's own
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	_, err = file.Write(append(line, '\n'))
	return err
}

// Read returns the values of the file, in order; none for a file that is not there.
func Read[T any](path string) (values []T, err error) {
	file, err := os.Open(path) //nolint:gosec // the path is the program's own
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	for decoder := json.NewDecoder(bufio.NewReader(file)); ; {
		var value T
		if err := decoder.Decode(&value); errors.Is(err, io.EOF) {
			return values, nil
		} else if err != nil {
			return values, err
		}
		values = append(values, value)
	}
}
