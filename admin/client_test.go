package admin_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	_ "github.com/oapi-codegen/runtime" // that of generated clients, in the version of go.mod
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin"
)

// A client that a generator has made of the OpenAPI document compiles, and works.
func TestClient_IsGeneratedFromTheDocument(t *testing.T) {
	t.Parallel()
	generator, err := filepath.Abs("../bin/oapi-codegen")
	require.NoError(t, err)
	if _, err := os.Stat(generator); err != nil {
		if os.Getenv("CI") != "" {
			require.NoError(t, err)
		}
		t.Skip("bin/oapi-codegen is not there: make tools")
	}
	s := newSite(t, admin.Options{Authorize: admin.Tokens(map[string]string{"ops": "secret"}, nil)})
	add(t, s.reg, chat, registry.Provider[call]{Name: "a/b"})
	dir := t.TempDir()
	write := func(name string, text []byte) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	run := func(name string, arguments ...string) []byte {
		command := exec.CommandContext(t.Context(), name, arguments...)
		command.Dir = dir
		command.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
		out, err := command.Output()
		var text string
		if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // as Output returns it
			text = string(exit.Stderr)
		}
		require.NoError(t, err, text)
		return out
	}
	read := func(name string) []byte {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		return text
	}
	document, err := s.handler.OpenAPI()
	require.NoError(t, err)
	write("openapi.json", document)
	write("api/api.go", run(generator, "-generate", "types,client", "-package", "api", "openapi.json"))
	write("main.go", read("testdata/client/main.go.txt"))
	write("go.sum", read("go.sum"))
	version := regexp.MustCompile(`github.com/oapi-codegen/runtime (v\S+)`).FindSubmatch(read("go.mod"))
	require.NotNil(t, version)
	write("go.mod", []byte("module client\n\ngo 1.26.0\n\nrequire github.com/oapi-codegen/runtime "+string(version[1])+"\n"))
	require.Equal(t, "healthy 2\nNORMAL LOW 3\n428 0\na 3\n", string(run("go", "run", ".", s.server.URL+"/ops", "secret")))
}
