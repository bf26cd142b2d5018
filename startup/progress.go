package startup

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/capreg/registry/internal/oneline"
)

// Progress returns a listener that prints the progress of a start or stop: on a terminal one
// line that changes, and a line for each component that fails; to any other writer a line for
// each event. Errors of writing are ignored.
func Progress(out io.Writer) func(Event) {
	terminal := false
	if file, ok := out.(*os.File); ok {
		info, err := file.Stat()
		terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return func(e Event) {
		line := describe(e)
		switch {
		case !terminal:
			_, _ = fmt.Fprintln(out, line)
		case e.State == Failed || e.State == Skipped || e.State == Stuck || e.Component == "":
			_, _ = fmt.Fprintf(out, "\r\x1b[K%s\n", line)
		default:
			_, _ = fmt.Fprintf(out, "\r\x1b[K%s", line)
		}
	}
}

func describe(e Event) string {
	line := fmt.Sprintf("[%d/%d] ", e.Settled, e.Total)
	if e.Component == "" {
		line += fmt.Sprintf("%v in %v", e.State, round(e.Took))
	} else {
		line += fmt.Sprintf("%v %s", e.State, e.Component)
		if e.Took > 0 {
			line += fmt.Sprintf(" (%v)", e.Took.Round(time.Millisecond))
		}
	}
	if e.Reason != "" {
		line += ": " + e.Reason
	}
	return oneline.Of(line)
}
