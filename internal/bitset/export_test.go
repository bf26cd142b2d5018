package bitset

// MarkSummariesAbove sets the summary bits above position i and leaves i
// alone: what readers meet while a writer is half way through Add or Remove.
func (s *Set) MarkSummariesAbove(i int) {
	for level := 1; level < len(s.levels); level++ {
		at := i >> (level * wordShift)
		s.levels[level][at>>wordShift].Or(bit(at))
	}
}

// SummariesAbove returns how many levels have a bit set above position i.
func (s *Set) SummariesAbove(i int) (levels int) {
	for level := 1; level < len(s.levels); level++ {
		at := i >> (level * wordShift)
		if s.levels[level][at>>wordShift].Load()&bit(at) != 0 {
			levels++
		}
	}
	return levels
}
