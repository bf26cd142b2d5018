package schedule

// notWaiting is the index of a timer that is in no queue.
const notWaiting = -1

// queue is a binary heap of timers by deadline. Each timer knows its index, so
// that any of them can be taken out in logarithmic time.
type queue []*Timer //nolint:recvcheck // only push and remove change its length

func (t *Timer) before(other *Timer) bool {
	if t.deadline != other.deadline {
		return t.deadline < other.deadline
	}

	return t.created < other.created
}

func (q *queue) push(timer *Timer) {
	*q = append(*q, nil)
	q.rise(timer, len(*q)-1)
}

func (q *queue) remove(timer *Timer) {
	hole := timer.index
	end := len(*q) - 1
	last := (*q)[end]
	(*q)[end] = nil
	*q = (*q)[:end]
	timer.index = notWaiting
	if timer == last {
		return
	}
	if last.before(timer) {
		q.rise(last, hole)
	} else {
		q.sink(last, hole)
	}
}

// rise places timer at the hole, or above it for as long as it comes before
// its parent.
func (q queue) rise(timer *Timer, hole int) {
	for hole > 0 {
		parent := (hole - 1) / 2
		if !timer.before(q[parent]) {
			break
		}
		q.place(q[parent], hole)
		hole = parent
	}
	q.place(timer, hole)
}

// sink places timer at the hole, or below it for as long as a child comes
// before it.
func (q queue) sink(timer *Timer, hole int) {
	for {
		child := 2*hole + 1
		if child >= len(q) {
			break
		}
		if right := child + 1; right < len(q) && q[right].before(q[child]) {
			child = right
		}
		if !q[child].before(timer) {
			break
		}
		q.place(q[child], hole)
		hole = child
	}
	q.place(timer, hole)
}

func (q queue) place(timer *Timer, index int) {
	q[index] = timer
	timer.index = index
}
