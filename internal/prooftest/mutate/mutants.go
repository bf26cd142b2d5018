package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// mutant is one change of one place of a file.
type mutant struct {
	File     string `json:"file"`
	Line     int    `json:"line"`
	Operator string `json:"operator"`
	Before   string `json:"before"`
	After    string `json:"after"`

	number int // by which it is switched on
}

func (m mutant) String() string {
	return fmt.Sprintf("%s:%d: %s: %q becomes %q", m.File, m.Line, m.Operator, m.Before, m.After)
}

// helpers is a file in addition to those that are changed. A mutant is switched on by its number;
// all others keep the original code.
const helpers = `package %s

import (
	zzos "os"
	zzstrconv "strconv"
	zzatomic "sync/atomic"
)

var zzMutant, zzTrace = zzSwitches()

func zzSwitches() (number int, trace *zzos.File) {
	number, _ = zzstrconv.Atoi(zzos.Getenv("MUTANT"))
	if path := zzos.Getenv("MUTANT_TRACE"); path != "" {
		trace, _ = zzos.OpenFile(path, zzos.O_APPEND|zzos.O_CREATE|zzos.O_WRONLY, 0o600)
	}
	return number, trace
}

var zzReached [1 << 16]zzatomic.Bool

func zzOn(number int) bool {
	if zzTrace != nil {
		zzReach(number)
	}
	return number == zzMutant
}

//go:noinline
func zzReach(number int) {
	if !zzReached[number].Load() && !zzReached[number].Swap(true) {
		_, _ = zzTrace.WriteString(zzstrconv.Itoa(number) + "\n")
	}
}

type zzInteger interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~uintptr
}

type zzNumber interface{ zzInteger | ~float32 | ~float64 }

type zzOrdered interface{ zzNumber | ~string }

func zzLSS[T zzOrdered](le, not int, a, b T) bool { return (a < b || zzOn(le) && a == b) != zzOn(not) }
func zzGTR[T zzOrdered](ge, not int, a, b T) bool { return (a > b || zzOn(ge) && a == b) != zzOn(not) }
func zzLEQ[T zzOrdered](lt, not int, a, b T) bool { return (a < b || !zzOn(lt) && a == b) != zzOn(not) }
func zzGEQ[T zzOrdered](gt, not int, a, b T) bool { return (a > b || !zzOn(gt) && a == b) != zzOn(not) }

func zzAnd(or int, a bool, b func() bool) bool {
	if zzOn(or) {
		return a || b()
	}
	return a && b()
}

func zzOr(and int, a bool, b func() bool) bool {
	if zzOn(and) {
		return a && b()
	}
	return a || b()
}

func zzADD[T zzNumber](n int, a, b T) T {
	if zzOn(n) {
		return a - b
	}
	return a + b
}

func zzSUB[T zzNumber](n int, a, b T) T {
	if zzOn(n) {
		return a + b
	}
	return a - b
}

func zzMUL[T zzNumber](n int, a, b T) T {
	if zzOn(n) {
		return a / b
	}
	return a * b
}

func zzQUO[T zzNumber](n int, a, b T) T {
	if zzOn(n) {
		return a * b
	}
	return a / b
}

func zzREM[T zzInteger](n int, a, b T) T {
	if zzOn(n) {
		return a * b
	}
	return a %% b
}

func zzBAND[T zzInteger](n int, a, b T) T {
	if zzOn(n) {
		return a | b
	}
	return a & b
}

func zzBOR[T zzInteger](n int, a, b T) T {
	if zzOn(n) {
		return a & b
	}
	return a | b
}

func zzANDNOT[T zzInteger](n int, a, b T) T {
	if zzOn(n) {
		return a & b
	}
	return a &^ b
}

func zzNeg[T zzNumber](n int, a T) T {
	if zzOn(n) {
		return -a
	}
	return a
}

func zzNext[T zzNumber](n int, a T) T {
	if zzOn(n) {
		return a + 1
	}
	return a
}
`

// finder collects the mutants of a package, and the code to insert for them.
type finder struct {
	text    map[string][]byte // by path
	files   *token.FileSet
	info    *types.Info
	pkg     *types.Package
	avoided map[string]bool // lines on which no mutant compiles
	found   []mutant

	path    string
	imports map[string]string // by path: the name in the present file
	edits   map[string]*edits
	stack   []ast.Node
}

// edits are the insertions of a file, by offset.
type edits struct {
	before, after map[int][]string
	replaced      map[int]replacement
}

type replacement struct {
	to   int
	text string
}

// file finds the mutants of one file.
func (f *finder) file(path string, parsed *ast.File) {
	f.path = path
	f.edits[path] = &edits{make(map[int][]string), make(map[int][]string), make(map[int]replacement)}
	f.imports = make(map[string]string)
	for _, imported := range parsed.Imports {
		importPath := strings.Trim(imported.Path.Value, `"`)
		f.imports[importPath] = importPath[strings.LastIndex(importPath, "/")+1:]
		if imported.Name != nil {
			f.imports[importPath] = imported.Name.Name
		}
	}
	ast.Inspect(parsed, func(node ast.Node) bool {
		if node == nil {
			f.stack = f.stack[:len(f.stack)-1]
			return true
		}
		if !f.visit(node) {
			return false
		}
		f.stack = append(f.stack, node)
		return true
	})
}

func (f *finder) offset(at token.Pos) int { return f.files.Position(at).Offset }

func (f *finder) source(node ast.Node) string {
	return string(f.text[f.path][f.offset(node.Pos()):f.offset(node.End())])
}

// add notes a mutant and returns its number; 0 where the line is avoided.
func (f *finder) add(operator string, at token.Pos, before, after string) int {
	line := f.files.Position(at).Line
	name := filepath.Base(f.path)
	if f.avoided[fmt.Sprintf("%s:%d", name, line)] {
		return 0
	}
	m := mutant{File: name, Line: line, Operator: operator, Before: before, After: after, number: len(f.found) + 1}
	f.found = append(f.found, m)
	return m.number
}

// wrap puts text before and behind a node; what is outside is wrapped first.
func (f *finder) wrap(node ast.Node, before, after string) {
	e := f.edits[f.path]
	from, to := f.offset(node.Pos()), f.offset(node.End())
	e.before[from] = append(e.before[from], before)
	e.after[to] = append(e.after[to], after)
}

func (f *finder) replace(at token.Pos, length int, text string) {
	from := f.offset(at)
	f.edits[f.path].replaced[from] = replacement{from + length, text}
}

// typeOf returns the name of a number's type in the present file.
func (f *finder) typeOf(e ast.Expr, kinds types.BasicInfo) (name string, ok bool) {
	t := f.info.TypeOf(e)
	if t == nil {
		return "", false
	}
	if basic, isBasic := t.Underlying().(*types.Basic); !isBasic || basic.Info()&kinds == 0 || basic.Info()&types.IsUntyped != 0 {
		return "", false
	}
	ok = true
	name = types.TypeString(t, func(p *types.Package) string {
		if p == f.pkg {
			return ""
		}
		imported, found := f.imports[p.Path()]
		ok = ok && found
		return imported
	})
	return name, ok
}

func (f *finder) isConstant(e ast.Expr) bool { return f.info.Types[e].Value != nil }

var (
	comparisons = map[token.Token][3]string{ //nolint:gochecknoglobals // a table
		token.LSS: {"zzLSS", "<=", ">="}, token.LEQ: {"zzLEQ", "<", ">"}, token.GTR: {"zzGTR", ">=", "<="}, token.GEQ: {"zzGEQ", ">", "<"},
	}
	calculations = map[token.Token][2]string{ //nolint:gochecknoglobals // a table
		token.ADD: {"zzADD", "-"}, token.SUB: {"zzSUB", "+"}, token.MUL: {"zzMUL", "/"}, token.QUO: {"zzQUO", "*"},
		token.REM: {"zzREM", "*"}, token.AND: {"zzBAND", "|"}, token.OR: {"zzBOR", "&"}, token.AND_NOT: {"zzANDNOT", "&"},
	}
)

func (f *finder) visit(node ast.Node) bool {
	switch n := node.(type) {
	case *ast.GenDecl:
		return n.Tok == token.VAR
	case *ast.ArrayType, *ast.StructType, *ast.InterfaceType, *ast.FuncType, *ast.MapType, *ast.ChanType:
		return false
	case *ast.BinaryExpr:
		if !f.isConstant(n) {
			f.binary(n)
		}
	case *ast.UnaryExpr:
		if n.Op == token.NOT {
			if number := f.add("negation", n.Pos(), "!", ""); number > 0 {
				f.wrap(n, "(", fmt.Sprintf(" != zzOn(%d))", number))
			}
		}
	case *ast.IncDecStmt:
		f.step(n)
	case *ast.AssignStmt:
		f.assign(n)
	case *ast.BranchStmt:
		f.branch(n)
	case *ast.BasicLit:
		f.literal(n)
	case *ast.Ident:
		if (n.Name == "true" || n.Name == "false") && f.info.Uses[n] == types.Universe.Lookup(n.Name) {
			if number := f.add("boolean", n.Pos(), n.Name, strconv.FormatBool(n.Name == "false")); number > 0 {
				f.wrap(n, "(", fmt.Sprintf(" != zzOn(%d))", number))
			}
		}
	case *ast.IfStmt:
		source := f.source(n.Cond)
		always := f.add("condition", n.Cond.Pos(), source, "true")
		never := f.add("condition", n.Cond.Pos(), source, "false")
		if always > 0 && never > 0 {
			f.wrap(n.Cond, fmt.Sprintf("(zzOn(%d) || !zzOn(%d) && (", always, never), "))")
		}
	case *ast.BlockStmt:
		f.statements(n.List)
	case *ast.CaseClause:
		f.statements(n.Body)
	case *ast.CommClause:
		f.statements(n.Body)
	}
	return true
}

func (f *finder) binary(n *ast.BinaryExpr) {
	operator := n.Op.String()
	switch n.Op {
	case token.EQL, token.NEQ:
		other := map[token.Token]string{token.EQL: "!=", token.NEQ: "=="}[n.Op]
		if number := f.add("operator", n.OpPos, operator, other); number > 0 {
			f.wrap(n, "((", fmt.Sprintf(") != zzOn(%d))", number))
		}
	case token.LAND, token.LOR:
		helper, other := "zzAnd", "||"
		if n.Op == token.LOR {
			helper, other = "zzOr", "&&"
		}
		if basic, ok := f.info.TypeOf(n).(*types.Basic); !ok || basic.Info()&types.IsBoolean == 0 {
			return
		}
		if number := f.add("operator", n.OpPos, operator, other); number > 0 {
			f.wrap(n, fmt.Sprintf("%s(%d, ", helper, number), ")})")
			f.replace(n.OpPos, 2, ", func() bool { return (")
		}
	default:
		if c, ok := comparisons[n.Op]; ok {
			typed := n.X
			if f.isConstant(n.X) {
				typed = n.Y
			}
			name, ok := f.typeOf(typed, types.IsNumeric|types.IsString)
			if !ok {
				return
			}
			edge, not := f.add("operator", n.OpPos, operator, c[1]), f.add("operator", n.OpPos, operator, c[2])
			if edge > 0 && not > 0 {
				f.wrap(n, fmt.Sprintf("%s[%s](%d, %d, ", c[0], name, edge, not), ")")
				f.replace(n.OpPos, len(operator), ",")
			}
			return
		}
		c, ok := calculations[n.Op]
		if !ok {
			return
		}
		if name, ok := f.typeOf(n, types.IsNumeric); ok {
			if number := f.add("operator", n.OpPos, operator, c[1]); number > 0 {
				f.wrap(n, fmt.Sprintf("%s[%s](%d, ", c[0], name, number), ")")
				f.replace(n.OpPos, len(operator), ",")
			}
		}
	}
}

func (f *finder) step(n *ast.IncDecStmt) {
	other := map[token.Token]string{token.INC: "--", token.DEC: "++"}[n.Tok]
	name, ok := f.typeOf(n.X, types.IsNumeric)
	if !ok {
		return
	}
	if number := f.add("operator", n.TokPos, n.Tok.String(), other); number > 0 {
		f.replace(n.TokPos, 2, fmt.Sprintf(" %c= zzNeg[%s](%d, 1)", n.Tok.String()[0], name, number))
	}
}

func (f *finder) assign(n *ast.AssignStmt) {
	if n.Tok != token.ADD_ASSIGN && n.Tok != token.SUB_ASSIGN {
		return
	}
	name, ok := f.typeOf(n.Lhs[0], types.IsNumeric)
	if !ok {
		return
	}
	other := map[token.Token]string{token.ADD_ASSIGN: "-=", token.SUB_ASSIGN: "+="}[n.Tok]
	if number := f.add("operator", n.TokPos, n.Tok.String(), other); number > 0 {
		f.wrap(n.Rhs[0], fmt.Sprintf("zzNeg[%s](%d, ", name, number), ")")
	}
}

func (f *finder) branch(n *ast.BranchStmt) {
	if n.Label != nil || n.Tok != token.BREAK && n.Tok != token.CONTINUE {
		return
	}
	inLoop := false
	for _, outer := range slices.Backward(f.stack) {
		switch outer := outer.(type) {
		case *ast.RangeStmt:
			inLoop = true
		case *ast.ForStmt:
			inLoop = outer.Cond != nil || n.Tok == token.BREAK
		case *ast.FuncLit:
		default:
			continue
		}
		break
	}
	if !inLoop {
		return
	}
	other := map[token.Token]string{token.BREAK: "continue", token.CONTINUE: "break"}[n.Tok]
	if number := f.add("operator", n.Pos(), n.Tok.String(), other); number > 0 {
		f.replace(n.Pos(), len(n.Tok.String()), fmt.Sprintf("if zzOn(%d) { %s } else { %s }", number, other, n.Tok))
	}
}

func (f *finder) literal(n *ast.BasicLit) {
	if n.Kind != token.INT {
		return
	}
	if pair, ok := f.stack[len(f.stack)-1].(*ast.KeyValueExpr); ok && pair.Key == n {
		return // perhaps the index of an array
	}
	if call, ok := f.stack[len(f.stack)-1].(*ast.CallExpr); ok {
		if of, ok := call.Fun.(*ast.Ident); ok && (of.Name == "make" || of.Name == "cut") {
			return // a capacity, or the length of a text
		}
	}
	name, ok := f.typeOf(n, types.IsNumeric)
	if !ok {
		return
	}
	if number := f.add("number", n.Pos(), n.Value, n.Value+" + 1"); number > 0 {
		f.wrap(n, fmt.Sprintf("zzNext[%s](%d, ", name, number), ")")
	}
}

// statements leaves out one statement each: a call, an assignment, a defer.
func (f *finder) statements(list []ast.Stmt) {
	for _, statement := range list {
		switch s := statement.(type) {
		case *ast.ExprStmt:
			if call, ok := s.X.(*ast.CallExpr); ok {
				if of, ok := call.Fun.(*ast.Ident); ok && of.Name == "panic" {
					continue
				}
			}
		case *ast.DeferStmt, *ast.SendStmt:
		case *ast.AssignStmt:
			if s.Tok == token.DEFINE {
				continue
			}
		default:
			continue
		}
		if number := f.add("left out", statement.Pos(), f.source(statement), ""); number > 0 {
			f.wrap(statement, fmt.Sprintf("if !zzOn(%d) { ", number), " }")
		}
	}
}

// rendered returns the file with all its insertions, on the same lines.
func (f *finder) rendered(path string) []byte {
	e, text := f.edits[path], f.text[path]
	var out []byte
	for at := 0; at <= len(text); at++ {
		for _, suffix := range slices.Backward(e.after[at]) {
			out = append(out, suffix...)
		}
		for _, prefix := range e.before[at] {
			out = append(out, prefix...)
		}
		if r, ok := e.replaced[at]; ok {
			out = append(out, r.text...)
			at = r.to - 1
			continue
		}
		if at < len(text) {
			out = append(out, text[at])
		}
	}
	return out
}
