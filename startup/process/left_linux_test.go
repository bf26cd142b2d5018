package process_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// leftOf returns the processes of the groups, and those with an entry in their environment that begins so. A process that process 1 has
// still to ask for is not left; one that this program has is a zombie.
func leftOf(groups []int, mark string) (left []string) {
	if mark == "" && !slices.ContainsFunc(groups, func(group int) bool { return syscall.Kill(-group, 0) == nil }) {
		return nil
	}
	paths, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		group, _ := strconv.Atoi(fields[2])
		isZombie := fields[0] == "Z" || fields[0] == "X"
		isMarked := false
		if mark != "" {
			environment, _ := os.ReadFile(filepath.Dir(path) + "/environ")
			isMarked = bytes.Contains(append([]byte{0}, environment...), []byte("\x00"+mark))
		}
		if (slices.Contains(groups, group) || isMarked) && (!isZombie || fields[1] == strconv.Itoa(os.Getpid())) {
			left = append(left, fmt.Sprintf("%s (%s)", filepath.Dir(path), fields[0]))
		}
	}
	return left
}
