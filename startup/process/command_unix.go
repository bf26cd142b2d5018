//go:build unix

package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/capreg/registry/internal/oneline"
)

// longestQuote bounds a path in an error, in bytes.
const longestQuote = 256

// commandFor returns the command of a life, but for its streams.
func (p *program) commandFor(as *identity) (*exec.Cmd, error) {
	path, err := find(p.Command)
	if err != nil {
		return nil, explain(p.Command, p.Command, err)
	}
	if err := checkFolder(p.Dir); err != nil {
		return nil, fmt.Errorf("directory %q: %w", oneline.Cut(p.Dir, longestQuote), err)
	}
	attributes := &syscall.SysProcAttr{Setpgid: true}
	killWithParent(attributes)
	env := []string{}
	if !p.OnlyEnv {
		// The socket of this program is not for its children.
		env = slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, "NOTIFY_SOCKET=") })
	}
	if as != nil {
		attributes.Credential = &as.credential
		env = append(env, as.environment()...)
	}
	return &exec.Cmd{
		Path: path, Args: append([]string{p.Command}, p.Args...), Dir: p.Dir,
		Env: append(env, p.Env...), SysProcAttr: attributes,
	}, nil
}

// find returns the path of a program, independent of the working directory that it is to have.
func find(command string) (string, error) {
	path, err := exec.LookPath(command)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

func checkFolder(dir string) error {
	if dir == "" {
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return causeOf(err)
	}
	if !info.IsDir() {
		return syscall.ENOTDIR
	}
	return nil
}

// explain returns why a command cannot be started.
func explain(command, path string, err error) error {
	err = causeOf(err)
	if _, there := os.Stat(path); errors.Is(err, fs.ErrNotExist) && there == nil {
		err = fmt.Errorf("it is there, but not the interpreter that its first line names, or its loader: %w", err)
	}
	return fmt.Errorf("command %q: %w", oneline.Cut(command, longestQuote), err)
}

// causeOf returns an error without the path and the operation, which the caller names.
func causeOf(err error) error {
	var ofPath *fs.PathError
	var ofCommand *exec.Error
	switch {
	case errors.As(err, &ofPath):
		return ofPath.Err
	case errors.As(err, &ofCommand):
		return ofCommand.Err
	}
	return err
}
