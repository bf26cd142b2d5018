//go:build unix

package process_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// helperMark is set for processes that run this test program as another one.
const helperMark = "PROCESS_TEST_HELPER"

func TestMain(m *testing.M) {
	switch os.Getenv(helperMark) {
	case "script":
		runScript(os.Args[1:])
	case "parent":
		runParent(os.Args[1:])
	default:
		goleak.VerifyTestMain(m)
	}
}
