package process

import "syscall"

// killWithParent makes the kernel kill the process when the thread that has started it ends.
func killWithParent(attributes *syscall.SysProcAttr) { attributes.Pdeathsig = syscall.SIGKILL }
