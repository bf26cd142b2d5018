package fault

import (
	"runtime"
	"strings"
)

// Inside reports whether the calling goroutine runs within a function whose full name has the suffix, such as
// "registry.authorizedAt", among its latest hundred calls. It tells code of a user that comes back into the function
// that has called it, where going on would never end. It is slow: for what is done seldom.
func Inside(function string) bool {
	var callers [100]uintptr
	frames := runtime.CallersFrames(callers[:runtime.Callers(2, callers[:])])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, function) {
			return true
		}
		if !more {
			return false
		}
	}
}
