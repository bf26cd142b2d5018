package process

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
)

// alive returns the processes of a group that run, with their states, and that this system can tell. Those that have ended
// but were not waited for are none: process 1 of some containers never asks for them.
func alive(group int) (processes []string, known bool) {
	paths, _ := filepath.Glob("/proc/[0-9]*/stat")
	wanted := []byte(strconv.Itoa(group))
	for _, path := range paths {
		text, err := os.ReadFile(path) //nolint:gosec // a file of the kernel
		if err != nil {
			continue // it has ended meanwhile
		}
		// After the name, which may hold anything, follow state, parent and group.
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		if len(fields) < 3 || !bytes.Equal(fields[2], wanted) {
			continue
		}
		if state := fields[0][0]; state != 'Z' && state != 'X' {
			processes = append(processes, filepath.Base(filepath.Dir(path))+" in state "+string(state))
		}
	}
	return processes, len(paths) > 0
}
