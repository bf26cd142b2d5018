package config_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/config"
)

// quick makes tests of real files short. Polls are so rare that notifications have to do.
func quick() config.FollowOptions { return config.FollowOptions{Quiet: 20 * time.Millisecond} }

// watchFile follows a file whose first version has the provider "a".
func watchFile(t *testing.T, path string, poll time.Duration) *following {
	t.Helper()
	source := config.File(path)
	source.Poll = poll
	f := follow(t, source, quick())
	require.Equal(t, config.Applied, f.next(t).Kind)
	return f
}

func put(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

// replace writes a file as editors do: beside the old one, and then renamed over it.
func replace(t *testing.T, path, text string) {
	t.Helper()
	put(t, path+"~tmp", text)
	require.NoError(t, os.Rename(path+"~tmp", path))
}

func TestFile_ChangesAreNoticedHoweverTheyAreWritten(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("files that are open cannot be replaced")
	}
	for situation, change := range map[string]func(t *testing.T, path, text string){
		"written in place": put,
		"renamed over":     replace,
		"deleted and made again": func(t *testing.T, path, text string) {
			t.Helper()
			require.NoError(t, os.Remove(path))
			put(t, path, text)
		},
		"moved away with a backup, as vim does": func(t *testing.T, path, text string) {
			t.Helper()
			put(t, filepath.Join(filepath.Dir(path), "4913"), "")
			require.NoError(t, os.Remove(filepath.Join(filepath.Dir(path), "4913")))
			require.NoError(t, os.Rename(path, path+"~"))
			put(t, path, text)
			require.NoError(t, os.Remove(path+"~"))
		},
		"written in two halves": func(t *testing.T, path, text string) {
			t.Helper()
			file, err := os.Create(path)
			require.NoError(t, err)
			_, err = file.WriteString(text[:len(text)/2])
			require.NoError(t, err)
			_, err = file.WriteString(text[len(text)/2:])
			require.NoError(t, err)
			require.NoError(t, file.Close())
		},
		"its directory deleted and made again": func(t *testing.T, path, text string) {
			t.Helper()
			require.NoError(t, os.RemoveAll(filepath.Dir(path)))
			require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))
			put(t, path, text)
		},
		"its directory renamed over": func(t *testing.T, path, text string) {
			t.Helper()
			dir := filepath.Dir(path)
			require.NoError(t, os.Mkdir(dir+".new", 0o700))
			put(t, filepath.Join(dir+".new", filepath.Base(path)), text)
			require.NoError(t, os.RemoveAll(dir+".old"))
			require.NoError(t, os.Rename(dir, dir+".old"))
			require.NoError(t, os.Rename(dir+".new", dir))
		},
	} {
		t.Run(situation, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(write(t, map[string]string{"etc/agent.yaml": models("name: a")}), "etc", "agent.yaml")
			f := watchFile(t, path, time.Hour)
			for _, name := range []string{"b", "c", "d"} { // again and again
				change(t, path, models("name: "+name))
				f.until(t, config.Applied, name)
			}
		})
	}
}

func TestFile_LinksTurnedAsKubernetesDoesAreNoticed(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("links need a right")
	}
	dir := t.TempDir()
	version := func(name string) {
		t.Helper()
		require.NoError(t, os.Mkdir(filepath.Join(dir, ".."+name), 0o700))
		put(t, filepath.Join(dir, ".."+name, "agent.yaml"), models("name: "+name))
		require.NoError(t, os.Symlink(".."+name, filepath.Join(dir, "..data_tmp")))
		require.NoError(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	version("a")
	require.NoError(t, os.Symlink(filepath.Join("..data", "agent.yaml"), filepath.Join(dir, "agent.yaml")))
	outside := t.TempDir() // a link from elsewhere to the whole
	require.NoError(t, os.Symlink(filepath.Join(dir, "agent.yaml"), filepath.Join(outside, "linked.yaml")))
	for _, path := range []string{filepath.Join(dir, "agent.yaml"), filepath.Join(outside, "linked.yaml"), dir} {
		f := watchFile(t, path, time.Hour)
		for i := range 3 {
			name := fmt.Sprintf("v%d-%d", len(path), i)
			version(name)
			f.until(t, config.Applied, name)
		}
		f.stop()
	}
}

func TestFile_DirectoryOfFragmentsIsFollowed(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"10.yaml": models("name: a")})
	f := watchFile(t, dir, time.Hour)
	put(t, filepath.Join(dir, "20.yaml"), models("name: b"))
	f.until(t, config.Applied, "a", "b")
	put(t, filepath.Join(dir, ".20.yaml.swp"), "{")
	put(t, filepath.Join(dir, "20.yaml~"), "{")
	replace(t, filepath.Join(dir, "20.yaml"), models("name: c"))
	f.until(t, config.Applied, "a", "c")
	require.NoError(t, os.Remove(filepath.Join(dir, "10.yaml")))
	f.until(t, config.Applied, "c")
}

func TestFile_IncludedFilesAreFollowed(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"main.yaml": "include: [more/b.yaml]\n" + models("name: a"), "more/b.yaml": models("name: b")})
	f := watchFile(t, filepath.Join(dir, "main.yaml"), time.Hour)
	replace(t, filepath.Join(dir, "more", "b.yaml"), models("name: c"))
	f.until(t, config.Applied, "a", "c")
}

func TestFile_PollsFindWhatNotificationsDoNotTell(t *testing.T) {
	t.Parallel()
	path := filepath.Join(write(t, map[string]string{"agent.yaml": models("name: a")}), "agent.yaml")
	f := watchFile(t, path, 5*time.Millisecond)
	require.NoError(t, os.Chtimes(path, time.Time{}, time.Now().Add(time.Hour))) // told as a change of attributes
	put(t, path, models("name: b"))
	f.until(t, config.Applied, "b")
}

func TestFile_WhatIsMissingOrWrongIsRefusedOnceAndTheLastGoodStays(t *testing.T) {
	t.Parallel()
	path := filepath.Join(write(t, map[string]string{"agent.yaml": models("name: a")}), "agent.yaml")
	f := watchFile(t, path, 5*time.Millisecond)
	require.NoError(t, os.Remove(path))
	e := f.until(t, config.Refused)
	require.ErrorIs(t, e.Err, fs.ErrNotExist)
	put(t, path, "servicces: {}")
	e = f.until(t, config.Refused)
	require.ErrorContains(t, e.Err, `did you mean "services"?`)
	put(t, path, "")
	e = f.until(t, config.Refused)
	require.ErrorContains(t, e.Err, "is empty")
	require.Equal(t, []string{"a"}, names(f.m.Current(), "llm"))
	require.Equal(t, "a", listing(f.reg)[0].Name)
	put(t, path, models("name: b"))
	f.until(t, config.Applied, "b")
	require.Empty(t, f.events)
}

// A storm: the last version is applied in the end, and no half of one ever is.
func TestFile_StormOfWritesEndsWithTheLastVersion(t *testing.T) {
	t.Parallel()
	path := filepath.Join(write(t, map[string]string{"agent.yaml": models("name: a")}), "agent.yaml")
	f := watchFile(t, path, time.Hour)
	for i := range 300 {
		text := models(fmt.Sprintf("name: first-%d", i), fmt.Sprintf("name: second-%d", i))
		if i%2 == 0 {
			replace(t, path, text)
		} else {
			put(t, path, text)
		}
	}
	f.until(t, config.Applied, "first-299", "second-299")
	for len(f.events) > 0 {
		if e := <-f.events; e.Kind == config.Refused {
			require.ErrorContains(t, e.Err, "is empty", "read between truncation and writing")
		}
	}
	for _, info := range listing(f.reg) {
		require.True(t, strings.HasSuffix(info.Name, "-299"))
	}
}
