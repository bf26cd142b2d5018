package console

import (
	"fmt"
	"strings"
	"time"

	"github.com/capreg/registry/metrics"
	"github.com/capreg/registry/startup"
)

// spark is the last minute as a picture of sparkWidth by sparkHeight: a line for the attempts of each ten seconds, and
// bars for those that have failed.
type spark struct {
	Line, Bars string
	// Words say the same.
	Words string
	// None reports that there were no attempts.
	None bool
}

const (
	sparkWidth  = 60
	sparkHeight = 16
)

func sparkOf(m metrics.Minute) spark {
	most, ended, failed := uint32(1), uint32(0), uint32(0)
	for _, s := range m.Slices {
		most = max(most, s.Ended)
		ended, failed = ended+s.Ended, failed+s.Failed
	}
	height := func(n uint32) int { return int((uint64(n)*(sparkHeight-2) + uint64(most) - 1) / uint64(most)) } //nolint:gosec // at most sparkHeight
	const step = sparkWidth / len(m.Slices)
	var line, bars strings.Builder
	for i, s := range m.Slices {
		fmt.Fprintf(&line, "%d,%d ", i*step+step/2, sparkHeight-1-height(s.Ended))
		if s.Failed > 0 {
			fmt.Fprintf(&bars, "M%d %dv-%dh6v%dz", i*step+2, sparkHeight, height(s.Failed)+1, height(s.Failed)+1)
		}
	}
	words := "no attempts"
	if ended > 0 {
		words = fmt.Sprintf("%s in the last minute, %d failed", plural(int(ended), "attempt", "attempts"), failed)
	}
	return spark{strings.TrimSpace(line.String()), bars.String(), words, ended == 0}
}

// timeline is the start of the program as a picture.
type timeline struct {
	Width, Height int
	Ticks         []tick
	Bars          []bar
}

type tick struct {
	X    int
	Text string
}

// bar is one component: a thin line while it waits for its turn, a bar while it starts, and another one until it is ready.
type bar struct {
	Name                   string
	Y, TextY               int
	Wait, WaitWidth        int
	Start, StartWidth      int
	Settle, SettleWidth    int
	Critical, Failed, None bool
	Words                  string
}

const (
	timelineWidth  = 960
	timelineMargin = 30 // of the last label
	labelWidth     = 220
	barHeight      = 24
	axisHeight     = 22
)

// timelineOf draws the report of a start.
func timelineOf(r *startup.Report) timeline {
	critical := make(map[string]bool, len(r.Chain))
	for _, name := range r.Chain {
		critical[name] = true
	}
	whole := max(r.Wall, time.Microsecond)
	for i := range r.Components {
		whole = max(whole, r.Components[i].Ready, r.Components[i].Returned)
	}
	at := func(d time.Duration) int {
		return labelWidth + int(float64(timelineWidth-labelWidth-timelineMargin)*float64(d)/float64(whole))
	}
	t := timeline{Width: timelineWidth, Height: axisHeight + barHeight*len(r.Components)}
	for i := range 5 {
		d := whole * time.Duration(i) / 4
		t.Ticks = append(t.Ticks, tick{at(d), latency(max(d, 1).Round(whole/1000 + 1))})
	}
	t.Ticks[0].Text = "0"
	for i := range r.Components {
		c := &r.Components[i]
		y := axisHeight + i*barHeight
		b := bar{Name: short(c.Name, 30), Y: y + 5, TextY: y + 16, Critical: critical[c.Name], Failed: c.State == startup.Failed || c.Reason != "" && c.Ready == 0}
		if b.None = c.Started == 0 && c.Returned == 0 && c.Ready == 0; !b.None {
			end := max(c.Returned, c.Started)
			b.Wait, b.WaitWidth = at(c.Queued), at(c.Started)-at(c.Queued)
			b.Start, b.StartWidth = at(c.Started), max(2, at(end)-at(c.Started))
			b.Settle, b.SettleWidth = at(end), max(0, at(c.Ready)-at(end))
		}
		b.Words = wordsOf(c, b.Critical)
		t.Bars = append(t.Bars, b)
	}
	return t
}

func wordsOf(c *startup.Component, critical bool) string {
	words := fmt.Sprintf("%s: %s, began at %s, took %s", show(c.Name), c.State, latency(c.Started), latency(c.Took()))
	if critical {
		words += ", on the critical path"
	}
	return words
}

// short returns the text in at most n characters.
func short(text string, n int) string {
	runes := []rune(show(text))
	if len(runes) <= n {
		return string(runes)
	}
	return string(runes[:n-1]) + "…"
}
