//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// killGroup gives the command a process group, and kills all of it when the context ends.
func killGroup(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
}
