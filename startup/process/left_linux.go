package process

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

// alive returns the processes of a group that run, with their states, and that this system can tell. Those that have ended
// but were not waited for are none: process 1 of some containers never asks for them.
func alive(group int) (processes []string, known bool) {
	folder, err := os.Open("/proc")
	if err != nil {
		return nil, false
	}
	defer func() { _ = folder.Close() }()
	names, _ := folder.Readdirnames(-1)
	wanted := strconv.Itoa(group)
	var space [256]byte // the name of a process has 64 bytes at most
	for _, name := range names {
		if name[0] < '0' || name[0] > '9' {
			continue
		}
		known = true
		state, of := stateAndGroup(readSome("/proc/"+name+"/stat", space[:]))
		if string(of) == wanted && state != 'Z' && state != 'X' {
			processes = append(processes, name+" in state "+string(state))
		}
	}
	return processes, known
}

// stateAndGroup returns what a file stat of the kernel says, zero where it says nothing: of a process that has ended meanwhile.
func stateAndGroup(stat []byte) (state byte, group []byte) {
	// After the name, which may hold anything, follow state, parent and group.
	_, rest, _ := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte{' '})
	first, rest, _ := bytes.Cut(rest, []byte{' '})
	_, rest, _ = bytes.Cut(rest, []byte{' '})
	group, _, whole := bytes.Cut(rest, []byte{' '})
	if len(first) != 1 || !whole {
		return 0, nil
	}
	return first[0], group
}

// readSome returns the begin of a file, as much as there is space for. It does without the poller, of which package os makes
// use for each file: a group may have to be looked for among thousands of processes.
func readSome(path string, space []byte) []byte {
	file, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer func() { _ = syscall.Close(file) }()
	n, _ := syscall.Read(file, space)
	return space[:max(n, 0)]
}
