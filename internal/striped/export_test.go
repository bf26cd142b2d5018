package striped

// Exported for tests: the distribution of goroutines.
const LinePair = linePair

var StripesFor = stripesFor

func Stripes() int { return int(stripes) }
