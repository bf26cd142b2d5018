package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
)

// mutant is one change of one place of a file: the bytes from From to To are replaced.
type mutant struct {
	File     string `json:"file"`
	Line     int    `json:"line"`
	Operator string `json:"operator"`
	Before   string `json:"before"`
	After    string `json:"after"`
	from, to int
}

func (m mutant) String() string {
	return fmt.Sprintf("%s:%d: %s: %q becomes %q", m.File, m.Line, m.Operator, m.Before, m.After)
}

// apply returns the text of the file with the change.
func (m mutant) apply(text []byte) []byte {
	return slices.Concat(text[:m.from], []byte(m.After), text[m.to:])
}

// swaps are the operators that become others.
var swaps = map[token.Token][]token.Token{ //nolint:gochecknoglobals // a table
	token.LSS: {token.LEQ, token.GEQ}, token.LEQ: {token.LSS, token.GTR},
	token.GTR: {token.GEQ, token.LEQ}, token.GEQ: {token.GTR, token.LSS},
	token.EQL: {token.NEQ}, token.NEQ: {token.EQL},
	token.LAND: {token.LOR}, token.LOR: {token.LAND},
	token.ADD: {token.SUB}, token.SUB: {token.ADD}, token.MUL: {token.QUO}, token.QUO: {token.MUL},
	token.REM: {token.MUL}, token.AND: {token.OR}, token.OR: {token.AND}, token.AND_NOT: {token.AND},
	token.SHL: {token.SHR}, token.SHR: {token.SHL}, token.INC: {token.DEC}, token.DEC: {token.INC},
	token.ADD_ASSIGN: {token.SUB_ASSIGN}, token.SUB_ASSIGN: {token.ADD_ASSIGN},
	token.BREAK: {token.CONTINUE}, token.CONTINUE: {token.BREAK},
}

// finder collects the mutants of a file.
type finder struct {
	name  string
	text  []byte
	files *token.FileSet
	found []mutant
}

// mutantsOf returns the mutants of a file, in its order.
func mutantsOf(path, name string) ([]mutant, error) {
	text, err := os.ReadFile(path) //nolint:gosec // a file of the tree
	if err != nil {
		return nil, err
	}
	f := &finder{name: name, text: text, files: token.NewFileSet()}
	parsed, err := parser.ParseFile(f.files, path, text, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	ast.Inspect(parsed, f.visit)
	slices.SortStableFunc(f.found, func(a, b mutant) int { return a.from - b.from })
	return f.found, nil
}

func (f *finder) add(operator string, from, to token.Pos, after string) {
	m := mutant{
		File: f.name, Line: f.files.Position(from).Line, Operator: operator, After: after,
		from: f.files.Position(from).Offset, to: f.files.Position(to).Offset,
	}
	m.Before = string(f.text[m.from:m.to])
	f.found = append(f.found, m)
}

func (f *finder) swap(at token.Pos, operator token.Token) {
	for _, other := range swaps[operator] {
		f.add("operator", at, at+token.Pos(len(operator.String())), other.String())
	}
}

func (f *finder) visit(node ast.Node) bool {
	switch n := node.(type) {
	case *ast.GenDecl:
		return n.Tok != token.IMPORT
	case *ast.BinaryExpr:
		f.swap(n.OpPos, n.Op)
	case *ast.UnaryExpr:
		if n.Op == token.NOT {
			f.add("negation", n.OpPos, n.OpPos+1, "")
		}
	case *ast.IncDecStmt:
		f.swap(n.TokPos, n.Tok)
	case *ast.AssignStmt:
		f.swap(n.TokPos, n.Tok)
	case *ast.BranchStmt:
		f.swap(n.TokPos, n.Tok)
	case *ast.BasicLit:
		f.literal(n)
	case *ast.Ident:
		if n.Name == "true" || n.Name == "false" {
			f.add("boolean", n.Pos(), n.End(), strconv.FormatBool(n.Name == "false"))
		}
	case *ast.IfStmt:
		f.add("condition", n.Cond.Pos(), n.Cond.End(), "true || ("+f.source(n.Cond)+")")
		f.add("condition", n.Cond.Pos(), n.Cond.End(), "false && ("+f.source(n.Cond)+")")
	case *ast.BlockStmt:
		f.statements(n.List)
	case *ast.CaseClause:
		f.statements(n.Body)
	case *ast.CommClause:
		f.statements(n.Body)
	}
	return true
}

func (f *finder) literal(n *ast.BasicLit) {
	if n.Kind != token.INT {
		return
	}
	if value, err := strconv.ParseInt(n.Value, 0, 32); err == nil {
		f.add("number", n.Pos(), n.End(), strconv.FormatInt(value+1, 10))
	}
}

// statements leaves out one statement each: a call, an assignment, a defer.
func (f *finder) statements(list []ast.Stmt) {
	for _, statement := range list {
		switch s := statement.(type) {
		case *ast.ExprStmt, *ast.DeferStmt, *ast.SendStmt:
			f.add("left out", s.Pos(), s.End(), "")
		case *ast.AssignStmt:
			if s.Tok != token.DEFINE {
				f.add("left out", s.Pos(), s.End(), "")
			}
		}
	}
}

func (f *finder) source(node ast.Node) string {
	return string(f.text[f.files.Position(node.Pos()).Offset:f.files.Position(node.End()).Offset])
}
