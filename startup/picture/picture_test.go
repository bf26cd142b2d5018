package picture_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/startup/picture"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// platform is a plan with a need of each kind.
func platform() startup.Plan {
	return startup.Plan{
		Batches: [][]string{{"db", "cache", "model"}, {"app"}},
		Steps: []startup.Step{
			{Name: "db", Kind: "process", Batch: 1},
			{Name: "cache", Batch: 1},
			{Name: "model", Batch: 1},
			{Name: "app", Batch: 2, After: []startup.Link{
				{Name: "db", Need: startup.Need{Capability: "sql"}},
				{Name: "cache", Need: startup.Need{Capability: "cache", Optional: true}},
				{Name: "model", Need: startup.Need{Capability: "llm", Any: true}},
				{Name: "model", Need: startup.Need{Component: "model", OrderOnly: true}},
			}, Absent: []startup.Need{{Capability: "metrics", Optional: true}}},
		},
	}
}

func ExampleDOT() {
	if err := picture.DOT(os.Stdout, platform()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// digraph plan {
	// 	rankdir=LR;
	// 	node [shape=box];
	// 	{ rank=same; "db"; "cache"; "model"; }
	// 	{ rank=same; "app"; }
	// 	"db" [peripheries=2, label="db\nprocess"];
	// 	"db" -> "app" [label="sql"];
	// 	"cache" -> "app" [style=dashed];
	// 	"model" -> "app" [label="llm", arrowhead=empty];
	// 	"model" -> "app" [style=dotted];
	// }
}

func ExampleChromeTrace() {
	err := picture.ChromeTrace(os.Stdout, startup.Report{
		Wall: 5 * time.Millisecond, Chain: []string{"db", "app"},
		Components: []startup.Component{
			{
				Name: "db", Kind: "process", Detail: "process 4711", State: startup.Ready, Batch: 1,
				Returned: 2 * time.Millisecond, Ready: 3 * time.Millisecond, Probes: 2,
			},
			{
				Name: "app", State: startup.Ready, Batch: 2, BlockedBy: "db",
				Queued: 3 * time.Millisecond, Started: 3500 * time.Microsecond, Returned: 5 * time.Millisecond, Ready: 5 * time.Millisecond,
			},
		},
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// {"displayTimeUnit":"ms","traceEvents":[
	// {"name":"db","cat":"start","ph":"X","ts":0,"dur":3000,"pid":1,"tid":1,"args":{"kind":"process","detail":"process 4711","state":"ready","batch":1,"critical":true,"probes":2}},
	// {"name":"app","cat":"queue","ph":"X","ts":3000,"dur":500,"pid":1,"tid":1},
	// {"name":"app","cat":"start","ph":"X","ts":3500,"dur":1500,"pid":1,"tid":1,"args":{"state":"ready","batch":2,"critical":true,"blocked_by":"db"}}
	// ]}
}

func TestDOT_EscapesNames(t *testing.T) {
	t.Parallel()
	odd := `say "hi"\N` + "\n\x00é"
	text := drawn(t, startup.Plan{Batches: [][]string{{odd}, {`ends in \`}}, Steps: []startup.Step{
		{Name: odd, Batch: 1},
		{Name: `ends in \`, Batch: 2, After: []startup.Link{{Name: odd, Need: startup.Need{Capability: `"];evil`}}}},
	}})
	const quoted = `"say \"hi\"\\N\n\\x00é"`
	require.Contains(t, text, "\t{ rank=same; "+quoted+"; }\n")
	require.Contains(t, text, "\t{ rank=same; \"ends in \\\\\"; }\n")
	require.Contains(t, text, "\t"+quoted+` -> "ends in \\" [label="\"];evil"];`+"\n")
}

func TestDOT_ShowsWhatCompletesAndWhatIsNoFunction(t *testing.T) {
	t.Parallel()
	text := drawn(t, startup.Plan{Batches: [][]string{{"a", "b", "c", "d"}}, Steps: []startup.Step{
		{Name: "a", Batch: 1},
		{Name: "b", Batch: 1, Kind: `"odd"`},
		{Name: "c", Batch: 1, Completes: true},
		{Name: "d", Batch: 1, Kind: "process", Completes: true},
	}})
	require.NotContains(t, text, `"a" [`)
	require.Contains(t, text, "\t\"b\" [peripheries=2, label=\"b\\n\\\"odd\\\"\"];\n")
	require.Contains(t, text, "\t\"c\" [style=rounded, label=\"c\\ncompletes\"];\n")
	require.Contains(t, text, "\t\"d\" [peripheries=2, style=rounded, label=\"d\\nprocess, completes\"];\n")
}

func drawn(t *testing.T, plan startup.Plan) string {
	t.Helper()
	var text strings.Builder
	require.NoError(t, picture.DOT(&text, plan))
	return text.String()
}

func TestPicture_OfNoComponents(t *testing.T) {
	t.Parallel()
	require.Equal(t, "digraph plan {\n\trankdir=LR;\n\tnode [shape=box];\n}\n", drawn(t, startup.Plan{}))
	require.Empty(t, traced(t, startup.Report{}))
}

// bar is an event as a viewer reads it.
type bar struct {
	Name     string         `json:"name"`
	Category string         `json:"cat"`
	Phase    string         `json:"ph"`
	Time     float64        `json:"ts"`
	Duration float64        `json:"dur"`
	Process  int            `json:"pid"`
	Lane     int            `json:"tid"`
	Args     map[string]any `json:"args"`
}

func traced(tb testing.TB, report startup.Report) []bar {
	tb.Helper()
	var text strings.Builder
	require.NoError(tb, picture.ChromeTrace(&text, report))
	var trace struct {
		Unit   string `json:"displayTimeUnit"`
		Events []bar  `json:"traceEvents"`
	}
	require.NoError(tb, json.Unmarshal([]byte(text.String()), &trace))
	require.Equal(tb, "ms", trace.Unit)
	require.NotNil(tb, trace.Events)
	return trace.Events
}

func TestChromeTrace_OverlappingComponentsHaveDifferentLanes(t *testing.T) {
	t.Parallel()
	ready := func(name string, queued, started, ready time.Duration) startup.Component {
		return startup.Component{Name: name, State: startup.Ready, Queued: queued, Started: started, Returned: ready, Ready: ready}
	}
	lanes := make(map[string]int)
	for _, b := range traced(t, startup.Report{Chain: []string{"c"}, Components: []startup.Component{
		ready("a", 0, 0, 10), ready("b", 5, 6, 8), ready("c", 8, 9, 20), ready("d", 10, 10, 12), ready(`"quoted" <é>`, 12, 12, 12),
	}}) {
		require.Equal(t, "X", b.Phase)
		lanes[b.Name] = b.Lane
		if b.Category == "start" {
			require.Equal(t, b.Name == "c", b.Args["critical"])
		}
	}
	require.Equal(t, map[string]int{"a": 1, "b": 2, "c": 2, "d": 1, `"quoted" <é>`: 1}, lanes)
}

func TestChromeTrace_ShowsComponentsThatDidNotBecomeReady(t *testing.T) {
	t.Parallel()
	ends := make(map[string]float64)
	for _, b := range traced(t, startup.Report{Wall: 90 * time.Microsecond, Components: []startup.Component{
		{Name: "stopped again", State: startup.Stopped, Started: 10_000, Returned: 20_000, Ready: 30_000},
		{Name: "failed", State: startup.Failed, Started: 10_000, Returned: 20_000, Reason: "no disk"},
		{Name: "never ready", State: startup.Failed, Started: 10_000, Returned: 20_000, Probes: 3},
		{Name: "stuck", State: startup.Stuck, Started: 10_000},
		{Name: "skipped", State: startup.Skipped, Queued: 10_000},
		{Name: "waiting", State: startup.Waiting},
		{Name: "at once", State: startup.Ready},
	}}) {
		ends[b.Name] = b.Time + b.Duration
		if b.Name == "failed" && b.Category == "start" {
			require.Equal(t, "no disk", b.Args["reason"])
			require.Equal(t, "failed", b.Args["state"])
		}
	}
	require.Equal(t, map[string]float64{"stopped again": 30, "failed": 20, "never ready": 90, "stuck": 90, "at once": 0}, ends)
}

// full takes some bytes and then no more.
type full struct{ room int }

var errFull = errors.New("disk full")

func (f *full) Write(p []byte) (int, error) {
	if len(p) > f.room {
		return f.room, errFull
	}
	f.room -= len(p)
	return len(p), nil
}

func TestPicture_ReturnsErrorsOfTheWriter(t *testing.T) {
	t.Parallel()
	report := startup.Report{}
	plan := platform()
	for i := range 1000 { // more than a buffer holds
		name := fmt.Sprintf("component-%d", i)
		report.Components = append(report.Components, startup.Component{Name: name, State: startup.Ready})
		plan.Steps = append(plan.Steps, startup.Step{Name: name, After: []startup.Link{{Name: "db"}}})
	}
	for _, room := range []int{0, 10, 5_000} {
		for _, w := range []io.Writer{&full{room}, struct{ io.Writer }{&full{room}}} {
			require.ErrorIs(t, picture.DOT(w, plan), errFull)
		}
		require.ErrorIs(t, picture.ChromeTrace(&full{room}, report), errFull)
	}
}

func FuzzLanes_NeverOverlap(f *testing.F) {
	f.Add(uint64(1), uint8(30))
	f.Add(uint64(7), uint8(200))
	f.Fuzz(func(t *testing.T, seed uint64, count uint8) {
		random := rand.New(rand.NewPCG(seed, 1))
		var report startup.Report
		for i := range int(count) {
			c := startup.Component{Name: strconv.Itoa(i), State: startup.Ready, Queued: time.Duration(random.IntN(100))}
			c.Started = c.Queued + time.Duration(random.IntN(20))
			c.Ready = c.Started + time.Duration(random.IntN(50))
			report.Components = append(report.Components, c)
		}
		bars := traced(t, report)
		slices.SortStableFunc(bars, func(a, b bar) int { return cmp.Or(cmp.Compare(a.Lane, b.Lane), cmp.Compare(a.Time, b.Time)) })
		shown := 0
		for i, b := range bars {
			if b.Category == "start" {
				shown++
			}
			if i > 0 && bars[i-1].Lane == b.Lane {
				require.LessOrEqual(t, bars[i-1].Time+bars[i-1].Duration, b.Time+1e-9)
			}
		}
		require.Equal(t, int(count), shown)
	})
}

func FuzzDOT_NamesSurvive(f *testing.F) {
	for _, name := range []string{"db", `a"b`, `\`, `\\"`, "a\nb", "]; evil -> x", "é"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		text := drawn(t, startup.Plan{Batches: [][]string{{name}}})
		require.Equal(t, 5, strings.Count(text, "\n"))
		inside, ok := strings.CutPrefix(strings.Split(text, "\n")[3], "\t{ rank=same; \"")
		require.True(t, ok)
		inside, ok = strings.CutSuffix(inside, "\"; }")
		require.True(t, ok)
		for i := 0; i < len(inside); i++ {
			require.NotEqual(t, byte('"'), inside[i], "a quote ends the name")
			if inside[i] == '\\' {
				i++
				require.Less(t, i, len(inside), "the last quote is part of the name")
			}
		}
	})
}

func BenchmarkChromeTraceOfManyThatStartAtOnce(b *testing.B) {
	for _, many := range []int{1_000, 10_000} {
		report := startup.Report{Wall: time.Second, Components: make([]startup.Component, many)}
		for i := range report.Components {
			report.Components[i] = startup.Component{Name: "c", State: startup.Ready, Started: time.Duration(i), Ready: time.Second}
		}
		b.Run(strconv.Itoa(many), func(b *testing.B) {
			for b.Loop() {
				require.NoError(b, picture.ChromeTrace(io.Discard, report))
			}
		})
	}
}
