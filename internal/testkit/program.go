package testkit

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// Program returns the path of a program that not every machine has: without it the test is skipped or, where CI is true, fails.
func Program(tb testing.TB, name string) string {
	tb.Helper()
	places := []string{"/usr/sbin/" + name, "/usr/bin/" + name, "/opt/homebrew/bin/" + name, "/usr/local/bin/" + name}
	installed, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if path, err := exec.LookPath(name); err == nil {
		places = slices.Insert(places, 0, path)
	}
	for _, path := range append(installed, places...) {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		tb.Fatalf("%s is not installed, and CI is true", name)
	}
	tb.Skipf("%s is not installed", name)
	return ""
}
