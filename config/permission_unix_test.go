//go:build unix

package config_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/config"
)

// nobody is the user without rights, by the custom of Unix.
const nobody = 65534

// mayGoOn reports whether the test is to go on. Root may read and write everything: there the test runs in a child of
// a user without rights instead, which has to pass.
func mayGoOn(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return true
	}
	home, err := os.MkdirTemp("", "config") //nolint:usetesting // others cannot look into the directory of t
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(home)) })
	require.NoError(t, errors.Join(os.Chmod(home, 0o700), os.Chown(home, nobody, nobody)))
	program := filepath.Join(home, "test")
	copyProgram(t, program)
	child := exec.CommandContext(t.Context(), program, "-test.run=^"+t.Name()+"$", "-test.v")
	child.Dir, child.Env = home, append(os.Environ(), "TMPDIR="+home, "GOCOVERDIR="+home)
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	output, err := child.CombinedOutput()
	require.NoError(t, err, string(output))
	require.Contains(t, string(output), "--- PASS: "+t.Name()+" ")
	return false
}

func copyProgram(t *testing.T, to string) {
	t.Helper()
	path, err := os.Executable()
	require.NoError(t, err)
	from, err := os.Open(path)
	require.NoError(t, err)
	defer from.Close() //nolint:errcheck // it was only read
	into, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o700)
	require.NoError(t, err)
	_, err = io.Copy(into, from)
	require.NoError(t, errors.Join(err, into.Chown(nobody, nobody), into.Close()))
}

// Variants: what cannot be read is the file, its directory, one that it includes, one that a reference names.
func TestFile_NoPermissionIsRefusedAndTheLastGoodStays(t *testing.T) {
	if !mayGoOn(t) {
		return
	}
	for name, row := range map[string]struct {
		files map[string]string
		of    string // that is followed
		deny  string
	}{
		"file":      {files: map[string]string{"agent.yaml": models("name: a")}, of: "agent.yaml", deny: "agent.yaml"},
		"directory": {files: map[string]string{"conf/agent.yaml": models("name: a")}, of: "conf", deny: "conf"},
		"include": {
			files: map[string]string{"agent.yaml": "include: [more.yaml]\n", "more.yaml": models("name: a")},
			of:    "agent.yaml", deny: "more.yaml",
		},
		"reference": {
			files: map[string]string{"key": "a secret", "agent.yaml": models("name: a, settings: {key: '${file:DIR/key}'}")},
			of:    "agent.yaml", deny: "key",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range row.files {
				path := filepath.Join(dir, file)
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
				put(t, path, strings.ReplaceAll(text, "DIR", dir))
			}
			denied := filepath.Join(dir, row.deny)
			info, err := os.Stat(denied)
			require.NoError(t, err)
			f := watchFile(t, filepath.Join(dir, row.of), 5*time.Millisecond)
			require.NoError(t, os.Chmod(denied, 0))
			require.ErrorIs(t, f.until(t, config.Refused).Err, fs.ErrPermission)
			require.Equal(t, []string{"a"}, names(f.m.Current(), "llm"))
			require.Len(t, listing(f.reg), 1)
			require.NoError(t, os.Chmod(denied, info.Mode()))
			for file, text := range row.files {
				put(t, filepath.Join(dir, file), strings.ReplaceAll(strings.ReplaceAll(text, "name: a", "name: b"), "DIR", dir))
			}
			f.until(t, config.Applied, "b")
		})
	}
}

func TestState_NoPermissionLeavesTheOldFileAsItIs(t *testing.T) {
	if !mayGoOn(t) {
		return
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "state.json")
	_, m, _ := manage(t)
	apply(t, m, models("name: a"))
	require.NoError(t, m.Save(path))
	was, err := os.ReadFile(path)
	require.NoError(t, err)

	require.NoError(t, os.Chmod(dir, 0o500))
	require.ErrorIs(t, m.Save(path), fs.ErrPermission)
	require.NoError(t, os.Chmod(dir, 0o700))
	now, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(was), string(now))
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1)

	require.NoError(t, os.Chmod(path, 0))
	_, err = m.Restore(path)
	require.ErrorIs(t, err, fs.ErrPermission)
}
