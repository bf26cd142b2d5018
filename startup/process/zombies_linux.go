package process

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
)

// onlyZombies reports whether no process of a group runs any more: those that are left wait for a parent that does not ask
// for them, such as process 1 of some containers.
func onlyZombies(group int) bool {
	paths, _ := filepath.Glob("/proc/[0-9]*/stat")
	wanted, seen := []byte(strconv.Itoa(group)), false
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
			return false
		}
		seen = true
	}
	return seen
}
