package sight

import (
	"fmt"
	"strings"
	"time"

	"github.com/capreg/registry/verdict"
)

// Line is a candidate in the text of an explanation.
type Line struct {
	Picked    bool
	Group     int
	Priority  string
	Text      string // its name and how it stands
	Handler   string
	Mock      bool
	LastError *verdict.LastError
}

// Table returns the explanation of a look-up as a small table, one candidate a line.
func Table(service, query string, err error, lines []Line) string {
	var text strings.Builder
	fmt.Fprintf(&text, "service %q%s", service, query)
	if err != nil {
		fmt.Fprintf(&text, ": %v", err)
	}
	for _, l := range lines {
		mark := " "
		if l.Picked {
			mark = "▶"
		}
		fmt.Fprintf(&text, "\n%s group %d %-8v %s", mark, l.Group, l.Priority, l.Text)
		if l.Handler != "" {
			fmt.Fprintf(&text, " (of handler %s)", l.Handler)
		}
		if l.Mock {
			text.WriteString(" (mock)")
		}
		if l.LastError != nil {
			fmt.Fprintf(&text, "; last error at %s: %v", l.LastError.Time.Format(time.TimeOnly), l.LastError)
		}
	}
	return text.String()
}
