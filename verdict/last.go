package verdict

import "time"

// LastError describes the latest error of a provider. It keeps the text of the error, not the error.
type LastError struct {
	// Text is the text of the error: one line of at most 300 bytes.
	Text string `json:"text"`
	// Class is the class of the outcome.
	Class Class `json:"class"`
	// Time is the moment at which the outcome was recorded.
	Time time.Time `json:"time"`
}

// Error returns the class and the text.
func (e *LastError) Error() string {
	if e == nil {
		return ""
	}
	if e.Text == "" {
		return e.Class.String()
	}
	return e.Class.String() + ": " + e.Text
}
