package pick

// FirstOpen returns the first candidate that is not full and lets the caller in; -1: there is none. It moves nothing.
func (p *Plan) FirstOpen(by *Caller, full, open func(i int) bool) int {
	rest := p.Iterate(p.Admitting)
	rest.Mode = Preview
	for i := rest.Next(by); i >= 0; i = rest.Next(by) {
		if !full(i) && open(i) {
			return i
		}
	}
	return -1
}

// AnyOpen reports whether a candidate that admits calls, and is fast enough, is one of those asked for and lets the
// caller in.
func (p *Plan) AnyOpen(of, open func(i int) bool) bool {
	for at := p.Admitting.Next(0, len(p.tierOf)); at >= 0; at = p.Admitting.Next(at+1, len(p.tierOf)) {
		if p.FastEnough(at) && of(at) && open(at) {
			return true
		}
	}
	return false
}
