package registry

import (
	"cmp"
	"time"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/probe"
	"github.com/capreg/registry/selection"
)

// longestName bounds names and words, in bytes.
const longestName = check.LongestName

// asFieldError returns a violation as a [FieldError]; nil for none. The prefix says where the field is.
func asFieldError(prefix string, v *check.Violation) error {
	if v == nil {
		return nil
	}
	return &FieldError{Field: prefix + v.Field, Value: v.Value, Bound: v.Bound, Err: ErrInvalid}
}

// asInvalid is asFieldError for fields of the input itself.
func asInvalid(v *check.Violation) error { return asFieldError("", v) }

// asConflict is asInvalid for input that contradicts what is registered.
func asConflict(v *check.Violation) error {
	if v == nil {
		return nil
	}
	return &FieldError{Field: v.Field, Value: v.Value, Bound: v.Bound, Err: ErrConflict}
}

func (d Definition) checkDescription() error {
	if !d.Priority.valid() {
		return errBadPriority(d.Priority)
	}
	if err := cmp.Or(checkStrategy(d.Strategy), checkWeight(d.Weight)); err != nil {
		return err
	}
	return asInvalid(cmp.Or(
		check.Range[float64]{}.Check("Cost", d.Cost), check.OptionalName("Region", d.Region),
		check.Range[int]{}.Check("Window", d.Window), check.URL("Endpoint", d.Endpoint),
		check.Line("Version", d.Version), check.Text("Description", d.Description),
		check.Texts("Metadata", d.Metadata), check.URLs("Endpoints", d.Endpoints), check.Line("Team", d.Team),
		check.URL("Documentation", d.Documentation), check.Range[time.Duration]{Zero: "unknown"}.Check("ExpectedResponse", d.ExpectedResponse),
	))
}

func checkStrategy(s selection.Strategy) error {
	if err := s.Check(); err != nil {
		return invalid("Strategy", s.String(),
			"a strategy of package selectors, or one of your own with a selector and a printable name: "+err.Error())
	}
	return nil
}

func checkSelection(name string, policy selection.Policy) error {
	if field, value, bound := policy.Check(); field != "" {
		return invalid(name+"."+field, value, bound)
	}
	return nil
}

func checkWeight(weight float64) error {
	return asInvalid(check.Range[float64]{Default: 1}.Check("Weight", weight))
}

// checkTimeout returns the timeout with its default.
func checkTimeout(field string, timeout time.Duration) (time.Duration, error) {
	v := check.Range[time.Duration]{Default: defaultAttemptTimeout, Suffix: ", or NoTimeout"}.Fill(field, &timeout)
	return timeout, asInvalid(v)
}

func checkServiceName(name string) error { return checkName("Service", name) }

func checkName(field, name string) error { return asInvalid(check.Name(field, name)) }

// withProbeDefaults returns a checked copy of the policy with its defaults filled in.
func withProbeDefaults(p health.Policy, capabilities []string) (health.Policy, error) {
	p, v := probe.Checked(p, capabilities)
	return p, asFieldError("Health.", v)
}

// shortReason cuts a reason rather than refuse it: what it is given for must happen.
func shortReason(text string) string { return oneline.Short(text, longestName) }

func isNil(value any) bool { return check.IsNil(value) }
