package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/capreg/registry/verdict"
)

// codes returns the table of error codes, by the class that a refusal with that code gets. The codes are those of the
// built-in classifier's source, and their classes are measured.
func codes(top string) (string, error) {
	listed, err := keysOf(filepath.Join(top, "verdict/llm.go"), "words")
	if err != nil {
		return "", err
	}
	byClass := make(map[verdict.Class][]string)
	for _, code := range listed {
		usual, absent := classOf(http.StatusBadRequest, code), classOf(http.StatusNotFound, code)
		byClass[usual] = append(byClass[usual], "`"+code+"`")
		if absent != usual {
			byClass[absent] = append(byClass[absent], "`"+code+"` with 404")
		}
	}
	var table strings.Builder
	table.WriteString("| code | class |\n| --- | --- |\n")
	for _, class := range verdict.Classes() {
		if list := byClass[class]; len(list) > 0 {
			fmt.Fprintf(&table, "| %s | %s |\n", strings.Join(list, ", "), class)
		}
	}
	return table.String(), nil
}

// classOf returns the class of a refusal with a status and a code.
func classOf(status int, code string) verdict.Class {
	return verdict.Of(verdict.FromResponse(&http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(fmt.Sprintf(`{"error": {"code": %q, "message": "no"}}`, code))),
	})).Class
}

// keysOf returns the keys of a map of texts that a file declares.
func keysOf(name, variable string) (keys []string, err error) {
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || spec.Names[0].Name != variable || len(spec.Values) == 0 {
			return true
		}
		ast.Inspect(spec.Values[0], func(node ast.Node) bool {
			if pair, ok := node.(*ast.KeyValueExpr); ok {
				if literal, ok := pair.Key.(*ast.BasicLit); ok {
					key, failed := strconv.Unquote(literal.Value)
					keys, err = append(keys, key), errors.Join(err, failed)
				}
			}
			return true
		})
		return false
	})
	if len(keys) == 0 && err == nil {
		err = fmt.Errorf("%s has no map %s", name, variable)
	}
	return keys, err
}
