//go:build unix

package process

import (
	"net"
	"os"
	"path/filepath"
	"strings"
)

// notifySocket receives what a process says about itself, as systemd's sd_notify does. Each life has a socket of its own,
// in a folder that only the user of the process may enter.
type notifySocket struct {
	folder string
	conn   *net.UnixConn
	ended  chan struct{}
}

// longestNotice bounds a datagram that is read, in bytes; systemd's bound is the same.
const longestNotice = 4096

func newNotifySocket(as *identity) (*notifySocket, error) {
	folder, err := os.MkdirTemp("", "notify")
	if err != nil {
		return nil, err
	}
	s := &notifySocket{folder: folder, ended: make(chan struct{})}
	if s.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.path(), Net: "unixgram"}); err == nil && as != nil {
		err = as.own(folder, s.path())
	}
	if err != nil {
		if s.conn != nil {
			_ = s.conn.Close()
		}
		_ = os.RemoveAll(folder)
		return nil, err
	}
	return s, nil
}

func (s *notifySocket) path() string { return filepath.Join(s.folder, "socket") }

// receive begins to receive until the socket is closed.
func (s *notifySocket) receive(ready func(), status func(text string)) {
	go func() {
		defer close(s.ended)
		notice := make([]byte, longestNotice)
		for {
			n, err := s.conn.Read(notice)
			if err != nil {
				return
			}
			for line := range strings.Lines(string(notice[:n])) {
				key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
				switch {
				case key == "READY" && value == "1":
					ready()
				case key == "STATUS":
					status(value)
				}
			}
		}
	}()
}

// close ends the socket, and waits for what receives.
func (s *notifySocket) close(receives bool) {
	_ = s.conn.Close()
	if receives {
		<-s.ended
	}
	_ = os.RemoveAll(s.folder)
}
