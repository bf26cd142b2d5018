package graph

// rows is a number of lists of nodes, one behind the other in one array.
type rows struct {
	starts []int // where each row starts, and at last where the last one ends
	values []int
}

// gather puts each of values into the row of its key, in their order.
// Those with a negative key are left out.
func gather(count int, keys, values []int) rows {
	// Two places ahead, so that the sums below are where the row before starts,
	// and filling the rows moves them on to where it ends.
	starts := make([]int, count+2)
	for _, key := range keys {
		if key >= 0 {
			starts[key+2]++
		}
	}
	for row := range count {
		starts[row+2] += starts[row+1]
	}
	gathered := make([]int, starts[count+1])
	for i, key := range keys {
		if key >= 0 {
			gathered[starts[key+1]] = values[i]
			starts[key+1]++
		}
	}

	return rows{starts: starts[:count+1], values: gathered}
}

// groups returns the nodes of each group, ascending. The group of node i is
// of[i], negative for none.
func groups(count int, of []int) rows {
	nodes := make([]int, len(of))
	for node := range nodes {
		nodes[node] = node
	}

	return gather(count, of, nodes)
}

func (r rows) count() int { return len(r.starts) - 1 }

// of returns a row, without room to append to.
func (r rows) of(row int) []int {
	start, end := r.starts[row], r.starts[row+1]
	return r.values[start:end:end]
}

// all returns every row.
func (r rows) all() [][]int {
	all := make([][]int, r.count())
	for row := range all {
		all[row] = r.of(row)
	}

	return all
}

// turned returns, for each value below the number of rows, which rows hold it.
func (r rows) turned() rows {
	owners := make([]int, len(r.values))
	for row := range r.count() {
		for i := r.starts[row]; i < r.starts[row+1]; i++ {
			owners[i] = row
		}
	}

	return gather(r.count(), r.values, owners)
}

// folded returns r without repetitions in a row, of values below the number of rows.
// It takes the memory of r.
func (r rows) folded() rows {
	holder := make([]int, r.count()) // one more than the last row seen to hold the value
	start, kept := 0, 0
	for row := range r.count() {
		end := r.starts[row+1]
		for _, value := range r.values[start:end] {
			if holder[value] <= row {
				holder[value] = row + 1
				r.values[kept] = value
				kept++
			}
		}
		start, r.starts[row+1] = end, kept
	}

	return rows{starts: r.starts, values: r.values[:kept]}
}
