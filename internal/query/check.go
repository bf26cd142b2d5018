package query

import (
	"cmp"

	"github.com/capreg/registry/internal/check"
)

// Check returns the first field that is out of bounds, with "Query." before its name; nil: there is none.
func (q *Query) Check() *check.Violation {
	return within(cmp.Or(q.checkHandler(), checkWords("Require", q.Require), q.checkWhere(), checkWords("Only", q.Only),
		check.OptionalName("Near", q.Near), checkWords("Prefer", q.Prefer), checkWords("Where.Tags", q.Where.Tags),
		checkWords("Where.Regions", q.Where.Regions), checkWords("Where.Exclude", q.Where.Exclude)))
}

func (q *Query) checkHandler() *check.Violation {
	switch {
	case q.Handler != "" && q.Handler != GlobalHandler:
		return check.Name("Handler", q.Handler)
	case q.OwnOnly:
		return check.Refuse("OwnOnly", true, "a Handler")
	}
	return nil
}

func (q *Query) checkWhere() *check.Violation {
	if field, value, bound := q.Where.Check(); field != "" {
		return check.Refuse("Where."+field, value, bound)
	}
	return nil
}

// checkWords checks a list, which stays as it is.
func checkWords(field string, words []string) *check.Violation { return check.Words(field, &words) }

// within puts the name of the query before that of the field.
func within(v *check.Violation) *check.Violation {
	if v != nil {
		v.Field = "Query." + v.Field
	}
	return v
}
