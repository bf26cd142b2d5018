package model_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// judge gets the result of a property, and fails instead of a test.
type judge struct {
	testing.TB

	failed bool
	log    strings.Builder
}

func (j *judge) Helper() {}

func (j *judge) Name() string { return "judge" }

func (j *judge) Logf(format string, args ...any) { fmt.Fprintf(&j.log, format+"\n", args...) }

func (j *judge) Log(args ...any) { fmt.Fprintln(&j.log, args...) }

func (j *judge) Fail() { j.failed = true }

func (j *judge) Failed() bool { return j.failed }

func (j *judge) FailNow() { j.failed = true; runtime.Goexit() }

func (j *judge) Error(args ...any) { j.Log(args...); j.Fail() }

func (j *judge) Fatal(args ...any) { j.Log(args...); j.FailNow() }

func (j *judge) Errorf(format string, args ...any) { j.Logf(format, args...); j.Fail() }

func (j *judge) Fatalf(format string, args ...any) { j.Logf(format, args...); j.FailNow() }

// Without this, an oracle that agrees with everything would prove nothing.
func TestOracle_DetectsPlantedDefects(t *testing.T) {
	t.Parallel()
	for of, proof := range map[string]struct {
		play    func(t *testing.T, rt *rapid.T, defect string)
		defects []string
	}{
		"registry": {play, []string{
			"never rotates", "learns from what began before", "recovers a nanosecond early", "lets a later cooldown shorten",
			"begins with the first", "blames long answers", "lets long trials keep others out", "cools down one of the domain", "parks at the first refusal", "marks no mocks",
			"asks too small windows", "runs twice", "gives to a weight of 0",
		}},
		"queue": {playQueue, []string{"takes no turns", "makes no room"}},
	} {
		for _, defect := range proof.defects {
			t.Run(of+" "+defect, func(t *testing.T) {
				t.Parallel()
				j := &judge{TB: t}
				judged := make(chan struct{})
				go func() {
					defer close(judged)
					rapid.Check(j, func(rt *rapid.T) { proof.play(t, rt, defect) })
				}()
				<-judged
				require.True(t, j.failed, "an oracle that %s agrees with the registry", defect)
				require.Contains(t, j.log.String(), "failed after", "rapid says so: %s", &j.log)
			})
		}
	}
}
