package striped

// What the tests see of how goroutines are spread.
const LinePair = linePair

var StripesFor = stripesFor

func Stripes() int { return int(stripes) }
