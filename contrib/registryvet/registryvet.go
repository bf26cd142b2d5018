// Package registryvet reports calls of a registry whose result does not outlive them.
//
// The context of [registry.Call]'s function ends with the attempt, so a response whose body is still to be read, rows, a
// transaction or a stream that the function returns ends as well. Short bodies hide that: they are often there in whole before the
// context ends, and the first long one fails, in production. The analyzer finds such calls by the type of their result:
//
//	go install github.com/capreg/registry/contrib/registryvet/cmd/registryvet@latest
//	go vet -vettool=$(which registryvet) ./...
//
// The ways are to read the result inside the function, [registry.Resolver.Acquire], and package stream. A result that
// does live on is said so, with the reason, on the line of the call or the one above:
//
//	//registryvet:ignore the body is a buffer
package registryvet

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"strings"

	"golang.org/x/tools/go/analysis"
)

const (
	registryPath = "github.com/capreg/registry"
	ignore       = "//registryvet:ignore"
	deepest      = 6 // types within types
)

// Analyzer reports calls of [registry.Call] whose result lives on the context of the call's function.
//
//nolint:gochecknoglobals // how analyzers are passed to their drivers
var Analyzer = &analysis.Analyzer{
	Name: "registryvet",
	Doc:  "report results of registry.Call that end with the context of its function: bodies, rows, transactions, streams",
	URL:  "https://pkg.go.dev/" + registryPath + "/contrib/registryvet",
	Run:  run,
}

func run(pass *analysis.Pass) (any, error) {
	ignored := ignoredLines(pass)
	for name, instance := range pass.TypesInfo.Instances {
		used := pass.TypesInfo.Uses[name]
		if used == nil || used.Pkg() == nil || used.Pkg().Path() != registryPath || used.Name() != "Call" || instance.TypeArgs.Len() != 2 {
			continue
		}
		result := instance.TypeArgs.At(1)
		what := bound(pass.Pkg, result, deepest)
		if what == "" || ignored[lineOf(pass, name.Pos())] {
			continue
		}
		pass.Reportf(name.Pos(), "the result of registry.Call is %s, which ends with the context of its function: "+
			"read it inside the function, or use Acquire or package stream", what)
	}
	return nil, nil //nolint:nilnil // the analyzer has no result
}

// line is a line of a file.
type line struct {
	file   string
	number int
}

func lineOf(pass *analysis.Pass, at token.Pos) line {
	position := pass.Fset.Position(at)
	return line{position.Filename, position.Line}
}

// ignoredLines returns the lines with a comment that ends the check, and those below.
func ignoredLines(pass *analysis.Pass) map[line]bool {
	lines := make(map[line]bool)
	for _, file := range pass.Files {
		for _, group := range file.Comments {
			noteIgnored(pass, group, lines)
		}
	}
	return lines
}

func noteIgnored(pass *analysis.Pass, group *ast.CommentGroup, lines map[line]bool) {
	for _, comment := range group.List {
		if reason, ok := strings.CutPrefix(comment.Text, ignore+" "); ok && strings.TrimSpace(reason) != "" {
			at := lineOf(pass, comment.Pos())
			lines[at] = true
			at.number++
			lines[at] = true
		}
	}
}

// bound describes what of the type lives on a context; empty: nothing. It looks into types of the package at hand, whose author knows
// them, and not into others: SDKs keep responses that were read.
func bound(within *types.Package, t types.Type, depth int) (what string) {
	if depth == 0 {
		return ""
	}
	t = types.Unalias(t)
	if what := boundByName(t); what != "" {
		return what
	}
	if lives(t) {
		return "a " + types.TypeString(t, types.RelativeTo(within))
	}
	switch u := t.Underlying().(type) {
	case *types.Pointer:
		return bound(within, u.Elem(), depth)
	case *types.Slice:
		return bound(within, u.Elem(), depth-1)
	case *types.Array:
		return bound(within, u.Elem(), depth-1)
	case *types.Map:
		return bound(within, u.Elem(), depth-1)
	case *types.Struct:
		return boundField(within, t, u, depth)
	}
	return ""
}

// boundField is bound of the fields of a struct.
func boundField(within *types.Package, t types.Type, fields *types.Struct, depth int) string {
	if named, ok := t.(*types.Named); ok && named.Obj().Pkg() != within {
		return ""
	}
	for field := range fields.Fields() {
		if what := bound(within, field.Type(), depth-1); what != "" {
			return fmt.Sprintf("a struct with %s in its field %s", what, field.Name())
		}
	}
	return ""
}

// boundByName knows types that do not show by their methods that they live on a context.
func boundByName(t types.Type) string {
	named, ok := t.(*types.Named)
	if pointer, is := t.(*types.Pointer); is {
		named, ok = types.Unalias(pointer.Elem()).(*types.Named)
	}
	if !ok || named.Obj().Pkg() == nil {
		return ""
	}
	switch path := named.Obj().Pkg().Path() + "." + named.Obj().Name(); path {
	case "net/http.Response", "database/sql.Row", "database/sql.Rows", "database/sql.Tx", "context.Context",
		registryPath + "/stream.Stream":
		return "a " + path
	}
	return ""
}

// lives reports whether a type is one of what is read bit by bit: a body, a cursor, a stream, an iterator, a channel.
func lives(t types.Type) bool {
	switch u := t.Underlying().(type) {
	case *types.Chan:
		return u.Dir() != types.SendOnly
	case *types.Signature:
		return isIterator(u)
	}
	has := func(name string) bool {
		found, _, _ := types.LookupFieldOrMethod(t, true, nil, name)
		_, ok := found.(*types.Func)
		return ok
	}
	switch {
	case has("RemoteAddr") || has("Fd"): // connections and files live on
		return false
	case has("Read") && has("Close"), has("RecvMsg"):
		return true
	}
	return has("Next") && has("Err")
}

// isIterator reports whether a function is an iter.Seq or iter.Seq2 in all but name.
func isIterator(f *types.Signature) bool {
	if f.Params().Len() != 1 || f.Results().Len() != 0 {
		return false
	}
	yield, ok := f.Params().At(0).Type().Underlying().(*types.Signature)
	if !ok || yield.Results().Len() != 1 {
		return false
	}
	more, ok := yield.Results().At(0).Type().Underlying().(*types.Basic)
	return ok && more.Kind() == types.Bool
}
