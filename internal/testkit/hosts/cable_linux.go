package hosts

import (
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

const (
	longestFrame = 64 << 10
	inTransit    = 4096 // frames; those beyond get lost, as in a queue that is full
)

// frame is a frame on its way.
type frame struct {
	data []byte
	due  time.Time
}

// newCable returns the names of two network devices in the namespace of this process, which can be moved to others. What is sent by one of
// them is received by the other, after the delay, until it is closed.
func newCable(delay time.Duration) (near, far string, stop func(), err error) {
	a, near, err := openTap()
	if err != nil {
		return "", "", nil, err
	}
	b, far, err := openTap()
	if err != nil {
		_ = a.Close()
		return "", "", nil, err
	}
	var all sync.WaitGroup
	carry(&all, a, b, delay)
	carry(&all, b, a, delay)
	return near, far, func() {
		_ = a.Close()
		_ = b.Close()
		all.Wait()
	}, nil
}

// carry carries frames from one device to the other until they are closed.
func carry(all *sync.WaitGroup, from, to *os.File, delay time.Duration) {
	frames := make(chan frame, inTransit)
	all.Go(func() {
		defer close(frames)
		buffer := make([]byte, longestFrame)
		for {
			n, err := from.Read(buffer)
			if err != nil {
				return
			}
			select {
			case frames <- frame{slices.Clone(buffer[:n]), time.Now().Add(delay)}:
			default:
			}
		}
	})
	all.Go(func() {
		for f := range frames {
			time.Sleep(time.Until(f.due))
			_, _ = to.Write(f.data) // a device that is down loses it
		}
	})
}

// openTap opens a network device whose frames are read and written here.
func openTap() (device *os.File, name string, err error) {
	const path = "/dev/net/tun"
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	request := struct { // a struct ifreq
		name  [16]byte
		flags uint16
		_     [22]byte
	}{flags: syscall.IFF_TAP | syscall.IFF_NO_PI}
	copy(request.name[:], "registry%d")
	if _, _, code := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TUNSETIFF, uintptr(unsafe.Pointer(&request))); code != 0 {
		_ = syscall.Close(fd)
		return nil, "", os.NewSyscallError("TUNSETIFF", code)
	}
	return os.NewFile(uintptr(fd), path), strings.TrimRight(string(request.name[:]), "\x00"), nil
}
