package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// goPackage is a package in the output of `go list`.
type goPackage struct {
	ImportPath, Dir, Name              string
	GoFiles, TestGoFiles, XTestGoFiles []string
}

func listPackages(ctx context.Context, patterns []string) (packages []*goPackage, err error) {
	if len(patterns) == 0 {
		patterns = []string{"."}
	}
	text, err := command(ctx, "go", append([]string{"list", "-json"}, patterns...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	for decoder := json.NewDecoder(bytes.NewReader(text)); decoder.More(); {
		p := &goPackage{}
		if err := decoder.Decode(p); err != nil {
			return nil, err
		}
		if len(p.TestGoFiles)+len(p.XTestGoFiles) > 0 {
			packages = append(packages, p)
		}
	}
	return packages, nil
}

// command is a command that is killed together with its child processes, where the system can.
func command(ctx context.Context, name string, arguments ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, name, arguments...) //nolint:gosec // go, and binaries that it has built
	killGroup(c)
	c.WaitDelay = time.Second
	return c
}

// at is a command in a folder, outside the workspace.
func at(ctx context.Context, dir, name string, arguments ...string) *exec.Cmd {
	c := command(ctx, name, arguments...)
	c.Dir = dir
	c.Env = append(os.Environ(), "GOWORK=off")
	return c
}

// exportsOf returns the files with the types of everything that the package imports.
func exportsOf(ctx context.Context, p *goPackage) (map[string]string, error) {
	text, err := at(ctx, p.Dir, "go", "list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}", ".").Output()
	if err != nil {
		return nil, fmt.Errorf("go list -export: %w", err)
	}
	exports := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		if path, file, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			exports[path] = file
		}
	}
	return exports, nil
}
