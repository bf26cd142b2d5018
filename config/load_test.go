package config_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/config"
)

// write writes the files of a new directory, and returns its path.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	return dir
}

func oneProvider(service, name string) string {
	return "services: {" + service + ": {providers: [{name: " + name + ", kind: k}]}}\n"
}

func names(d *config.Document, service string) (all []string) {
	for _, p := range d.Services[service].Providers {
		all = append(all, p.Name)
	}
	return all
}

func TestLoad_IncludesAreRelativeAndReadOnce(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"main.yaml":     "include: [more/a.yaml, more/b.yaml]\n" + oneProvider("s", "main"),
		"more/a.yaml":   "include: [c.yaml]\nrequired: [s]\n" + oneProvider("s", "a"),
		"more/b.yaml":   "include: [c.yaml, ../main.yaml]\n" + oneProvider("s", "b"),
		"more/c.yaml":   "domains: {d: {}}\nservices: {s: {groups: {0: {strategy: ROUND_ROBIN}}, providers: [{name: c, kind: k, domain: d}]}}",
		"more/not.yaml": "{",
	})
	d, err := config.Load(filepath.Join(dir, "main.yaml"))
	require.NoError(t, err)
	require.Equal(t, []string{"main", "a", "c", "b"}, names(d, "s"))
	require.Empty(t, d.Include)
	require.Equal(t, []string{"s"}, d.Required)
}

func TestLoad_DirectoryIsOneDocumentWithoutTemporaryFiles(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"20.yml": oneProvider("s", "b"), "10.yaml": oneProvider("s", "a"), "30.json": `{"services": {"t": {"providers": [{"name": "c", "kind": "k"}]}}}`,
		".10.yaml.swp": "{", "10.yaml~": "{", "#10.yaml#": "{", ".#10.yaml": "{", "4913": "{", "README": "{", ".hidden.yaml": "{",
		"sub/40.yaml": "{",
	})
	d, err := config.Load(dir)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, names(d, "s"))
	require.Equal(t, []string{"c"}, names(d, "t"))
	_, err = config.Load(t.TempDir())
	require.ErrorContains(t, err, "the directory has no document")
}

func TestLoad_WhatSeveralFilesSayTwiceIsTold(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"a.yaml": "domains: {d: {}}\nservices: {s: {selection: {}, groups: {0: {}}, providers: [{name: a, kind: k}]}}\nqueries: {q: {service: s}}\n",
		"b.yaml": "domains: {d: {}}\nservices: {s: {selection: {}, groups: {0: {}}, providers: [{name: a, kind: k}]}}\nqueries: {q: {service: s}}\n",
	})
	_, err := config.Load(dir)
	var refused *config.Error
	require.ErrorAs(t, err, &refused)
	text := strings.ReplaceAll(err.Error(), dir+string(filepath.Separator), "")
	for _, path := range []string{"domains.d", "services.s.selection", "services.s.groups.0", "services.s.providers[a]", "queries.q"} {
		require.Contains(t, text, path+": is there twice: also in a.yaml:", path)
	}
}

func TestLoad_ProblemsAreOfTheFileThatHasThem(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{
		"main.yaml":  "include: [wrong.yaml, absent.yaml]\n" + oneProvider("s", "main"),
		"wrong.yaml": "\nserviced: {}\n",
	})
	_, err := config.Load(filepath.Join(dir, "main.yaml"))
	var refused *config.Error
	require.ErrorAs(t, err, &refused)
	require.Len(t, refused.Problems, 2)
	require.Contains(t, refused.Problems[0].String(), "main.yaml:1:23: include[1]: stat")
	require.Contains(t, refused.Problems[1].String(), `wrong.yaml:2:1: serviced: unknown field, did you mean "services"?`)
	require.ErrorIs(t, err, fs.ErrNotExist)

	_, err = config.Load(filepath.Join(dir, "nothing"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = config.Load(write(t, map[string]string{"a.yaml": strings.Repeat("#", 17<<20)}))
	require.ErrorContains(t, err, "more than 16 MiB")
}
