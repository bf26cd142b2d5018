package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/config"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if dir, err := built(); err == nil {
			_ = os.RemoveAll(filepath.Dir(dir))
		}
		os.Exit(code)
	}))
}

// built builds the command once for all tests, and returns its path.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "registry")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "registry.exe")
	out, err := exec.CommandContext(context.Background(), "go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return path, err
})

const good = `services:
  llm:
    groups: {0: {strategy: ROUND_ROBIN}}
    providers:
      - {name: a, kind: openai, settings: {model: big}}
      - {name: b, kind: openai, settings: {model: small}}
queries: {any question: {service: llm}}
`

const better = `services:
  llm:
    providers:
      - {name: a, kind: openai, settings: {model: bigger}}
      - {name: c, kind: openai, weight: 2}
queries: {any question: {service: llm}}
`

const bad = `services:
  llm:
    providers:
      - {name: a, kind: openai, prioritty: HIGH, weight: -1}
`

// program is the command, with the files of a test.
type program struct{ path, dir string }

func build(t *testing.T) program {
	t.Helper()
	path, err := built()
	require.NoError(t, err)
	p := program{path, t.TempDir()}
	for name, text := range map[string]string{"good.yaml": good, "better.yaml": better, "bad.yaml": bad, "none.yaml": strings.Split(good, "queries")[0]} {
		require.NoError(t, os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600))
	}
	return p
}

// run runs the command in the directory of its files.
func (p program) run(t *testing.T, arguments ...string) (status int, out, problems string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), p.path, arguments...)
	command.Dir = p.dir
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), stdout.String(), stderr.String()
	}
	require.NoError(t, err)
	return 0, stdout.String(), stderr.String()
}

func TestCommand_LintTellsEveryProblemWithItsPlace(t *testing.T) {
	t.Parallel()
	p := build(t)
	status, out, _ := p.run(t, "lint", "good.yaml", "better.yaml")
	require.Equal(t, 0, status)
	require.Equal(t, "2 checked, nothing wrong\n", out, "no colours where there is no terminal")
	status, out, _ = p.run(t, "lint", "good.yaml", "bad.yaml")
	require.Equal(t, 1, status)
	require.Equal(t, "bad.yaml:4:33: services.llm.providers[a].prioritty: unknown field, did you mean \"priority\"?\n", out)
	status, out, _ = p.run(t, "lint", "--json", "bad.yaml")
	require.Equal(t, 1, status)
	var refused config.Error
	require.NoError(t, json.Unmarshal([]byte(out), &refused))
	require.Equal(t, "priority", refused.Problems[0].Nearest)
	require.Equal(t, 4, refused.Problems[0].Line)
	require.NoError(t, os.WriteFile(filepath.Join(p.dir, "bad.yaml"), []byte(strings.Replace(bad, "prioritty: HIGH, ", "", 1)), 0o600))
	status, out, _ = p.run(t, "lint", "bad.yaml")
	require.Equal(t, 1, status)
	require.Contains(t, out, "services.llm.providers[a].weight: is -1: want")
	status, out, _ = p.run(t, "lint", "--json", "good.yaml")
	require.Equal(t, 0, status)
	require.JSONEq(t, `{"problems": []}`, out)
}

func TestCommand_LintChecksSettingsBySchemaOfAProgram(t *testing.T) {
	t.Parallel()
	p := build(t)
	status, schema, _ := p.run(t, "schema")
	require.Equal(t, 0, status)
	path := filepath.Join(p.dir, "schema.json")
	require.NoError(t, os.WriteFile(path, []byte(schema), 0o600))
	status, out, _ := p.run(t, "lint", "--schema", path, "good.yaml")
	require.Equal(t, 0, status, out)
	strict := strings.Replace(schema, `"settings": {
`, `"settings": {
 "properties": {"model": {"enum": ["big"]}},
`, 1)
	require.NotEqual(t, schema, strict)
	require.NoError(t, os.WriteFile(path, []byte(strict), 0o600))
	status, out, _ = p.run(t, "lint", "--schema", path, "good.yaml")
	require.Equal(t, 1, status)
	require.Equal(t, "good.yaml: services.llm.providers[1].settings.model: value must be 'big'\n", out)
}

func TestCommand_PlanShowsTheWayFromOneDocumentToAnother(t *testing.T) {
	t.Parallel()
	p := build(t)
	status, out, _ := p.run(t, "plan", "--from", "good.yaml", "better.yaml")
	require.Equal(t, 0, status)
	require.Equal(t, `~ services.llm.groups.0: alter strategy ROUND_ROBIN → (default); keeps everything
± services.llm.providers[a]: replace settings.model big → bigger; not in place: settings.model; keeps position, turn in rotations, queue
+ services.llm.providers[c]: add
- services.llm.providers[b]: remove
1 to add, 1 to alter, 1 to replace, 1 to remove, 0 kept
picked for any question: a, b → a
`, out)
	_, out, _ = p.run(t, "plan", "--json", "good.yaml")
	var plan config.Plan
	require.NoError(t, json.Unmarshal([]byte(out), &plan))
	require.Equal(t, 2, plan.Count(config.Add))
	for _, arguments := range [][]string{{"plan", "bad.yaml"}, {"plan", "--from", "bad.yaml", "good.yaml"}} {
		status, out, _ = p.run(t, arguments...)
		require.Equal(t, 1, status)
		require.Contains(t, out, "unknown field")
	}
}

func TestCommand_ExplainShowsWhatIsPicked(t *testing.T) {
	t.Parallel()
	p := build(t)
	status, out, _ := p.run(t, "explain", "better.yaml")
	require.Equal(t, 0, status)
	require.Contains(t, out, "any question\n")
	require.Contains(t, out, "▶ group 0 NORMAL   a: eligible")
	_, out, _ = p.run(t, "explain", "--json", "better.yaml", "any question")
	require.Contains(t, out, `"winner": "a"`)
	status, _, problems := p.run(t, "explain", "better.yaml", "another")
	require.Equal(t, 2, status)
	require.Contains(t, problems, `the document has no query "another"`)
	status, _, problems = p.run(t, "explain", "none.yaml")
	require.Equal(t, 2, status)
	require.Contains(t, problems, "the document has no queries")
}

func TestCommand_WrongCallsAreTold(t *testing.T) {
	t.Parallel()
	p := build(t)
	for _, arguments := range [][]string{{"lint"}, {"lint", "no such file"}, {"plan"}, {"reload"}, {"lint", "--schema", "none", "good.yaml"}} {
		status, _, problems := p.run(t, arguments...)
		require.Equal(t, 2, status, arguments)
		require.NotEmpty(t, problems)
	}
}

func TestCommand_CompletesCommandsAndQueries(t *testing.T) {
	t.Parallel()
	p := build(t)
	status, out, _ := p.run(t, "completion", "bash")
	require.Equal(t, 0, status)
	require.Contains(t, out, "bash completion")
	_, out, _ = p.run(t, "__complete", "explain", "good.yaml", "")
	require.Contains(t, out, "any question\n")
	_, out, _ = p.run(t, "__complete", "")
	require.Contains(t, out, "lint\tCheck documents")
}
