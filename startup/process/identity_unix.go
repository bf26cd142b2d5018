//go:build unix

package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// identity is the user that a process runs as.
type identity struct {
	credential syscall.Credential
	home, name string
}

// identityOf looks a user up; nil for the user of this program.
func identityOf(text string) (*identity, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // that is the identity of this program
	}
	name, groupName, hasGroup := strings.Cut(text, ":")
	found, groups, err := lookUpUser(name)
	if err != nil {
		return nil, fmt.Errorf("user %q: %w", name, err)
	}
	first := found.Gid
	if hasGroup {
		if first, err = lookUpGroup(groupName); err != nil {
			return nil, fmt.Errorf("group %q: %w", groupName, err)
		}
	}
	i := &identity{home: found.HomeDir, name: found.Username}
	i.credential.Uid, i.credential.Gid = number(found.Uid), number(first)
	for _, group := range groups {
		i.credential.Groups = append(i.credential.Groups, number(group))
	}
	if os.Geteuid() != 0 {
		if found.Uid == strconv.Itoa(os.Geteuid()) && first == strconv.Itoa(os.Getegid()) {
			return nil, nil //nolint:nilnil // that is the identity of this program
		}
		return nil, fmt.Errorf("user %q: only root may start processes of other users: %w", text, fs.ErrPermission)
	}
	return i, nil
}

// lookUpUser returns a user by name or number, and its groups. A number that the system does not know, such as those of
// containers, is a user all the same.
func lookUpUser(name string) (*user.User, []string, error) {
	found, err := user.Lookup(name)
	if err != nil && isNumber(name) {
		found, err = user.LookupId(name)
	}
	if err != nil && isNumber(name) {
		return &user.User{Uid: name, Gid: name, Username: name, HomeDir: "/"}, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	groups, err := found.GroupIds()
	return found, groups, err
}

// lookUpGroup returns the number of a group.
func lookUpGroup(name string) (string, error) {
	found, err := user.LookupGroup(name)
	switch {
	case err == nil:
		return found.Gid, nil
	case isNumber(name):
		return name, nil
	}
	return "", err
}

func isNumber(text string) bool {
	_, err := strconv.ParseUint(text, 10, 31)
	return err == nil
}

// number reads an identifier, which the system has written.
func number(text string) uint32 {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return ^uint32(0) // which no process can take
	}
	return uint32(n)
}

// own gives paths to the user.
func (i *identity) own(paths ...string) error {
	var errs []error
	for _, path := range paths {
		errs = append(errs, os.Lchown(path, int(i.credential.Uid), int(i.credential.Gid)))
	}
	return errors.Join(errs...)
}

// environment has what a login would set.
func (i *identity) environment() []string {
	return []string{"HOME=" + i.home, "USER=" + i.name, "LOGNAME=" + i.name}
}
