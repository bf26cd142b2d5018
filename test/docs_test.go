package test_test

import (
	"encoding/xml"
	"errors"
	"go/scanner"
	"go/token"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
)

// longestReadme is the number of lines that the README may have.
const longestReadme = 150

var (
	fence     = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")
	generated = regexp.MustCompile(`(?s)<!-- (\S+): begin -->.*?<!-- \S+: end -->`)
	goRun     = regexp.MustCompile(`go run \./([\w/]+)`)
	link      = regexp.MustCompile(`\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)`)
	heading   = regexp.MustCompile(`(?m)^#{1,6} (.+?)\s*$`)
	inline    = regexp.MustCompile("`[^`\n]*`")
	linkText  = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	proof     = regexp.MustCompile(`<!-- proof: ([\w, ]+) -->`)
)

// A snippet counts as compiled when its tokens stand in a Go file in this order: neither in a comment nor in a string.
func TestDocs_EverySnippetIsCompiled(t *testing.T) {
	t.Parallel()
	var code []string
	walk(t, func(name string, entry fs.DirEntry) error {
		if !entry.IsDir() && strings.HasSuffix(name, ".go") {
			code = append(code, tokens(readText(t, name)))
		}
		return nil
	})
	snippets := 0
	for _, page := range pages(t) {
		for _, block := range fence.FindAllStringSubmatch(readText(t, page), -1) {
			if block[1] != "go" {
				continue
			}
			snippets++
			want := tokens(block[2])
			require.True(t, slices.ContainsFunc(code, func(file string) bool { return strings.Contains(file, want) }),
				"%s: no Go file has this snippet:\n%s", page, block[2])
		}
	}
	require.NotZero(t, snippets)
}

// The guide shows what programs print, and examples check it.
func TestDocs_EveryOutputIsThatOfAnExample(t *testing.T) {
	t.Parallel()
	var outputs []string
	for _, files := range outputsOfExamples(t) {
		outputs = append(outputs, files...)
	}
	for _, page := range pages(t) {
		if page != "README.md" && path.Dir(page) != "docs/guide" {
			continue
		}
		text := generated.ReplaceAllString(readText(t, page), "")
		for _, block := range fence.FindAllStringSubmatch(text, -1) {
			if block[1] == "text" {
				require.True(t, slices.ContainsFunc(outputs, func(output string) bool { return strings.Contains(output, block[2]) }),
					"%s: no example prints this:\n%s", page, block[2])
			}
		}
	}
}

func TestDocs_CommandsNameExistingPrograms(t *testing.T) {
	t.Parallel()
	commands := 0
	for _, page := range pages(t) {
		for _, command := range goRun.FindAllStringSubmatch(readText(t, page), -1) {
			commands++
			require.FileExists(t, filepath.Join(top, command[1], "main.go"), page)
		}
	}
	require.NotZero(t, commands)
}

// Relative links name files and headings that are there; of absolute ones only the form is checked.
func TestDocs_LinksResolve(t *testing.T) {
	t.Parallel()
	links := 0
	for _, page := range pages(t) {
		text := inline.ReplaceAllString(fence.ReplaceAllString(readText(t, page), ""), "")
		for line := range strings.Lines(text) {
			for _, found := range link.FindAllStringSubmatch(line, -1) {
				links++
				target := found[1] + found[2]
				u, err := url.Parse(target)
				require.NoError(t, err, page)
				if u.IsAbs() {
					require.Contains(t, []string{"http", "https", "mailto"}, u.Scheme, "%s: %s", page, target)
					require.True(t, u.Scheme == "mailto" || u.Host != "", "%s: %s", page, target)
					continue
				}
				name := page
				if u.Path != "" {
					name = path.Join(path.Dir(page), u.Path)
				}
				require.True(t, fs.ValidPath(name), "%s: %s leaves the repository", page, target)
				_, err = os.Stat(filepath.Join(top, name))
				require.NoError(t, err, "%s: %s", page, target)
				if u.Fragment != "" {
					require.Contains(t, anchors(readText(t, name)), u.Fragment, "%s: %s", page, target)
				}
			}
		}
	}
	require.NotZero(t, links)
}

func TestDocs_AnchorsAreThoseOfGitHub(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"two-words", "two-words-1", "a-code-and-b-c", "bc"},
		anchors("# Two words\n## Two words\n```sh\n# no heading\n```\n### A `Code`, and b-c\n## [B](x.md)C!\n"))
}

func TestDocs_PicturesAreSoundAndSelfContained(t *testing.T) {
	t.Parallel()
	pictures := 0
	walk(t, func(name string, entry fs.DirEntry) error {
		if entry.IsDir() || path.Ext(name) != ".svg" {
			return nil
		}
		pictures++
		text := readText(t, name)
		decoder := xml.NewDecoder(strings.NewReader(text))
		for {
			element, err := decoder.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err, name)
			if start, ok := element.(xml.StartElement); ok {
				require.NotContains(t, []string{"script", "image", "foreignObject", "a"}, start.Name.Local, name)
			}
		}
		require.Contains(t, text, "prefers-color-scheme: dark", name)
		require.Contains(t, text, "<title", name)
		require.NotContains(t, strings.ReplaceAll(text, `"http://www.w3.org/2000/svg"`, ""), "http", name)
		return nil
	})
	require.NotZero(t, pictures)
}

func TestDocs_ReadmeIsShort(t *testing.T) {
	t.Parallel()
	require.LessOrEqual(t, strings.Count(readText(t, "README.md"), "\n"), longestReadme)
}

func TestDocs_GuaranteesOfReadmeNameTheirTests(t *testing.T) {
	t.Parallel()
	_, guarantees, found := strings.Cut(readText(t, "README.md"), "## What you can rely on\n")
	require.True(t, found)
	guarantees, _, _ = strings.Cut(guarantees, "\n## ")
	lines := regexp.MustCompile(`(?m)^- .*$`).FindAllString(guarantees, -1)
	require.Len(t, lines, 8)
	there := testNames(t)
	for _, line := range lines {
		named := proof.FindStringSubmatch(line)
		require.NotNil(t, named, line)
		for name := range strings.SplitSeq(named[1], ", ") {
			require.True(t, there[name], "there is no %s", name)
		}
	}
}

// The versions that the README names are those of the modules.
func TestDocs_ReadmeNamesTheVersionsOfGo(t *testing.T) {
	t.Parallel()
	readme := readText(t, "README.md")
	for file, sentence := range map[string]string{"go.mod": "The library needs Go ", "go.work": "examples and benchmarks Go "} {
		version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(readText(t, file))
		require.NotNil(t, version)
		require.Contains(t, readme, sentence+version[1])
	}
}

func TestDocs_GuideLinksAllItsPages(t *testing.T) {
	t.Parallel()
	index := readText(t, "docs/guide/README.md")
	for _, page := range pages(t) {
		if name := path.Base(page); path.Dir(page) == "docs/guide" && name != "README.md" {
			require.Contains(t, index, "("+name)
		}
	}
}

// pages returns the Markdown files of the repository.
func pages(t *testing.T) (names []string) {
	t.Helper()
	walk(t, func(name string, entry fs.DirEntry) error {
		if !entry.IsDir() && path.Ext(name) == ".md" {
			names = append(names, filepath.ToSlash(name))
		}
		return nil
	})
	require.NotEmpty(t, names)
	return names
}

// tokens returns the tokens of Go code without comments, each followed by a space.
func tokens(code string) string {
	var text strings.Builder
	file := token.NewFileSet().AddFile("", -1, len(code))
	var s scanner.Scanner
	s.Init(file, []byte(code), func(token.Position, string) {}, 0)
	for {
		_, kind, literal := s.Scan()
		switch {
		case kind == token.EOF:
			return text.String()
		case kind == token.SEMICOLON && literal == "\n": // where a line ends does not matter
		case literal != "":
			text.WriteString(literal + " ")
		default:
			text.WriteString(kind.String() + " ")
		}
	}
}

// anchors returns the fragments by which GitHub finds the headings of a page.
func anchors(page string) (fragments []string) {
	seen := make(map[string]int)
	for _, found := range heading.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
		title := strings.ToLower(linkText.ReplaceAllString(found[1], "$1"))
		fragment := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return r
			}
			return -1
		}, title)
		if n := seen[fragment]; n > 0 {
			fragments = append(fragments, fragment+"-"+string(rune('0'+n)))
		} else {
			fragments = append(fragments, fragment)
		}
		seen[fragment]++
	}
	return fragments
}

// outputsOfExamples returns, by folder, what the examples print.
func outputsOfExamples(t *testing.T) map[string][]string {
	t.Helper()
	outputs := make(map[string][]string)
	walk(t, func(name string, entry fs.DirEntry) error {
		if entry.IsDir() || !strings.HasSuffix(name, "_test.go") {
			return nil
		}
		text := readText(t, name)
		for _, rest := range strings.Split(text, "\t// Output:")[1:] {
			var output strings.Builder
			first, rest, _ := strings.Cut(rest, "\n")
			output.WriteString(strings.TrimSpace(first) + "\n")
			for line := range strings.Lines(rest) {
				shown, ok := strings.CutPrefix(line, "\t//")
				if !ok {
					break
				}
				output.WriteString(strings.TrimPrefix(shown, " "))
			}
			outputs[path.Dir(name)] = append(outputs[path.Dir(name)], output.String())
		}
		return nil
	})
	require.NotEmpty(t, outputs)
	return outputs
}

// readText returns a file by its path from the top of the repository.
func readText(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(top, name))
	require.NoError(t, err)
	return strings.ReplaceAll(string(text), "\r\n", "\n")
}
