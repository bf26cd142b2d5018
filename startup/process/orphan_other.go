//go:build unix && !linux && !freebsd

package process

import "syscall"

// killWithParent does nothing: the kernel cannot kill the process when this program is killed. The guard does.
func killWithParent(*syscall.SysProcAttr) {}
