package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// test is one test with its duration and the mutants that it reaches.
type test struct {
	suite   *suite
	name    string
	took    time.Duration
	reaches map[int]bool
}

// trace runs every test alone, without a mutant, to see how long it takes and which
// mutants it reaches.
func (d *driver) trace(ctx context.Context, s *switchable) error {
	for _, of := range append([]*suite{&s.own}, s.others...) {
		list, err := at(ctx, of.dir, of.binary, "-test.list", "^(Test|Fuzz|Example)").Output()
		if err != nil {
			return fmt.Errorf("%s: %w", of.dir, err)
		}
		tests, err := d.traceAll(ctx, of, strings.Fields(string(list)))
		if err != nil {
			return err
		}
		slices.SortFunc(tests, func(a, b test) int { return cmp.Compare(a.took, b.took) })
		s.tests = append(s.tests, tests...)
	}
	return nil
}

func (d *driver) traceAll(ctx context.Context, of *suite, names []string) ([]test, error) {
	tests, failures := make([]test, len(names)), make([]error, len(names))
	var working sync.WaitGroup
	next := make(chan int, len(names))
	for i := range names {
		next <- i
	}
	close(next)
	for range d.workers {
		working.Go(func() {
			for i := range next {
				tests[i], failures[i] = of.traceOne(ctx, names[i], fmt.Sprintf("%s.trace%d", of.binary, i))
			}
		})
	}
	working.Wait()
	return tests, errors.Join(failures...)
}

func (s *suite) traceOne(ctx context.Context, name, path string) (test, error) {
	t := test{suite: s, name: name, reaches: make(map[int]bool)}
	c := at(ctx, s.dir, s.binary, append([]string{"-test.run=^" + name + "$", "-test.timeout=5m"}, s.arguments...)...)
	c.Env = append(c.Env, "MUTANT_TRACE="+path)
	began := time.Now()
	if out, err := c.CombinedOutput(); err != nil {
		return t, fmt.Errorf("%s fails as it is: %w\n%s", name, err, out)
	}
	t.took = time.Since(began)
	text, err := os.ReadFile(path) //nolint:gosec // written a moment ago
	if errors.Is(err, os.ErrNotExist) {
		return t, nil
	}
	for line := range strings.Lines(string(text)) {
		number, _ := strconv.Atoi(strings.TrimSpace(line)) // 0, which is none, for half a line
		t.reaches[number] = true
	}
	return t, err
}

// batchTime is the approximate duration of a batch: the first test that fails ends
// them all.
const batchTime = 3 * time.Second

// try lets the tests that reach the mutant meet it.
func (s *switchable) try(ctx context.Context, m mutant) (outcome, by string) {
	outcome = notReached
	var batch []test
	var took time.Duration
	for i := 0; i <= len(s.tests); i++ {
		last := i == len(s.tests)
		if !last && !s.tests[i].reaches[m.number] {
			continue
		}
		if len(batch) > 0 && (last || took > batchTime || s.tests[i].suite != batch[0].suite) {
			if outcome, by = meet(ctx, m, batch, took); outcome != survived {
				return outcome, by
			}
			batch, took = nil, 0
		}
		if !last {
			batch, took = append(batch, s.tests[i]), took+s.tests[i].took
		}
	}
	return outcome, by
}

// meet runs some tests of a suite until the first one fails. Parallel tests do not heed
// -failfast, so they are ended from here. What allocates without end is ended by the limit
// of the shell.
func meet(ctx context.Context, m mutant, tests []test, usually time.Duration) (outcome, by string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second+5*usually)
	defer cancel()
	names := make([]string, len(tests))
	for i, t := range tests {
		names[i] = t.name
	}
	of := tests[0].suite
	c := at(ctx, of.dir, "sh", append([]string{
		"-c", `ulimit -v 6000000; exec "$0" "$@"`, of.binary,
		"-test.timeout=1h", "-test.failfast", "-test.run=^(" + strings.Join(names, "|") + ")$",
	}, of.arguments...)...)
	c.Env = append(c.Env, "MUTANT="+strconv.Itoa(m.number))
	w := &failureWatch{ended: cancel}
	c.Stdout, c.Stderr = w, w
	err := c.Run()
	switch {
	case w.failure != "":
		return killed, w.failure
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return timedOut, ""
	case err != nil:
		return killed, err.Error()
	}
	return survived, ""
}

// failureWatch ends a run at the first line that says that a test has failed.
type failureWatch struct {
	line    []byte
	failure string
	ended   func()
}

func (w *failureWatch) Write(text []byte) (int, error) {
	for _, b := range text {
		if b != '\n' {
			w.line = append(w.line, b)
			continue
		}
		line := string(w.line)
		w.line = w.line[:0]
		for _, sign := range []string{"--- FAIL", "panic: ", "fatal error: ", "goleak: ", "FAIL"} {
			if w.failure == "" && strings.HasPrefix(strings.TrimSpace(line), sign) {
				w.failure = strings.TrimSpace(line)
				w.ended()
			}
		}
	}
	return len(text), nil
}
