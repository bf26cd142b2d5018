package registry

import "github.com/capreg/registry/internal/jsonform"

// MarshalJSON returns the fields by their tags, with durations and errors as text.
func (a Attempt) MarshalJSON() ([]byte, error) { return jsonform.Marshal(a) }

// UnmarshalJSON reads what MarshalJSON writes; its errors match [ErrInvalid] and change nothing.
func (a *Attempt) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, a) }

// MarshalJSON returns the fields by their tags, with durations and errors as text.
func (p BreakerPolicy) MarshalJSON() ([]byte, error) { return jsonform.Marshal(p) }

// UnmarshalJSON reads what MarshalJSON writes; its errors match [ErrInvalid] and change nothing.
func (p *BreakerPolicy) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, p) }

// MarshalJSON returns the fields by their tags, with durations and errors as text.
func (s BreakerStats) MarshalJSON() ([]byte, error) { return jsonform.Marshal(s) }

// UnmarshalJSON reads what MarshalJSON writes; its errors match [ErrInvalid] and change nothing.
func (s *BreakerStats) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, s) }

// plainReport has no form of its own.
type plainReport CallReport

type reportForm struct {
	plainReport

	Skipped []Candidate `json:"skipped,omitempty"`
}

// MarshalJSON returns the fields by their tags, with durations and errors as text, and what was skipped.
func (r CallReport) MarshalJSON() ([]byte, error) {
	return jsonform.Marshal(reportForm{plainReport(r), r.Skipped()})
}

// UnmarshalJSON reads what MarshalJSON writes; its errors match [ErrInvalid] and change nothing.
func (r *CallReport) UnmarshalJSON(text []byte) error {
	if r == nil {
		return jsonform.Unmarshal(text, r)
	}
	form := reportForm{plainReport(*r), r.Skipped()}
	err := jsonform.Unmarshal(text, &form)
	if err == nil {
		*r = CallReport(form.plainReport)
		if r.skipped = nil; len(form.Skipped) > 0 {
			r.skipped = &skippedProviders{read: form.Skipped}
		}
	}
	return err
}

// MarshalJSON returns the fields by their tags, with durations and errors as text.
func (c Candidate) MarshalJSON() ([]byte, error) { return jsonform.Marshal(c) }

// UnmarshalJSON reads what MarshalJSON writes; its errors match [ErrInvalid] and change nothing.
func (c *Candidate) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, c) }

// MarshalJSON returns the fields by their tags, with durations and errors as text.
func (d Definition) MarshalJSON() ([]byte, error) { return jsonform.Marshal(d) }

// UnmarshalJSON reads what MarshalJSON writes; its errors match [ErrInvalid] and change nothing.
func (d *Definition) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, d) }

// MarshalJSON returns the fields by their tags, with durations and errors as text.
func (e Explanation) MarshalJSON() ([]byte, error) { return jsonform.Marshal(e) }

// UnmarshalJSON reads what MarshalJSON writes; its errors match [ErrInvalid] and change nothing.
func (e *Explanation) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, e) }

// MarshalJSON returns the fields by their tags, with durations and errors as text.
func (i Info) MarshalJSON() ([]byte, error) { return jsonform.Marshal(i) }

// UnmarshalJSON reads what MarshalJSON writes; its errors match [ErrInvalid] and change nothing.
func (i *Info) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, i) }

// MarshalJSON returns the fields by their tags, with durations and errors as text.
func (p LimitPolicy) MarshalJSON() ([]byte, error) { return jsonform.Marshal(p) }

// UnmarshalJSON reads what MarshalJSON writes; its errors match [ErrInvalid] and change nothing.
func (p *LimitPolicy) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, p) }

// MarshalJSON returns the fields by their tags, with durations and errors as text.
func (p RetryPolicy) MarshalJSON() ([]byte, error) { return jsonform.Marshal(p) }

// UnmarshalJSON reads what MarshalJSON writes; its errors match [ErrInvalid] and change nothing.
func (p *RetryPolicy) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, p) }
