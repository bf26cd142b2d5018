//go:build unix && !linux

package process

// onlyZombies reports whether no process of a group runs any more. This system does not tell.
func onlyZombies(int) bool { return false }
