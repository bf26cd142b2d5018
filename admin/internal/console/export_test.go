package console

import (
	"html/template"

	"github.com/capreg/registry/admin/internal/control"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/metrics"
	"github.com/capreg/registry/startup"
)

// Functions are those of the templates.
func Functions() template.FuncMap { return functions() }

// Spark returns the line and the bars of the last minute, and its words.
func Spark(m metrics.Minute) (line, bars, words string) {
	s := sparkOf(m)
	return s.Line, s.Bars, s.Words
}

// Timeline is the picture of a start.
type Timeline = timeline

// TimelineOf draws the report of a start.
func TimelineOf(r *startup.Report) Timeline { return timelineOf(r) }

// ServiceMark returns the word of a service's mark, and its rank.
func ServiceMark(s *control.Service) (word string, rank int) {
	m, rank := serviceMark(s)
	return m.Word, rank
}

// RowMark returns the word of a provider's mark, and its rank.
func RowMark(r *control.Row) (word string, rank int) {
	m, rank := markOf(r)
	return m.Word, rank
}

// The marks of components, of health and of breakers.

func ComponentMark(s startup.State) mark { return componentMark(s) }

func StateMark(s health.State) mark { return stateMark(s) }

func BreakerMark(b *control.Breaker) mark { return breakerMark(b) }
