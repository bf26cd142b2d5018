//go:build unix && !linux

package process_test

import (
	"errors"
	"strconv"
	"syscall"
)

// leftOf returns the groups that have a process. This system does not show the environment of processes.
func leftOf(groups []int, _ string) (left []string) {
	for _, group := range groups {
		if !errors.Is(syscall.Kill(-group, 0), syscall.ESRCH) {
			left = append(left, strconv.Itoa(group))
		}
	}
	return left
}
