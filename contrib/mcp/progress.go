package registrymcp

import "context"

// Progress tells how far a call is.
type Progress struct {
	// Done grows with each report; Total is what it comes to, zero when that is not known.
	Done, Total float64
	// Message describes what is being done, if the tool says so.
	Message string
}

type progressKey struct{}

// WithProgress returns a context whose calls of tools ask their server for progress, and give it to report. It is called
// by one goroutine at a time for each server, which reads nothing else meanwhile: it should return quickly. It may still be
// called a moment after the call has returned.
func WithProgress(ctx context.Context, report func(Progress)) context.Context {
	return context.WithValue(ctx, progressKey{}, report)
}

// ReportProgress gives progress to the function of [WithProgress]; without one it does nothing. The context of a function
// that [Offer] has made a tool of has one where the client asked for progress.
func ReportProgress(ctx context.Context, p Progress) {
	if report, ok := ctx.Value(progressKey{}).(func(Progress)); ok && report != nil {
		report(p)
	}
}
