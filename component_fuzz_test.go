package registry_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/startup"
)

// Components of any kind make a plan, or errors that name them; a plan has each component
// once, after what it needs.
func FuzzComponents(f *testing.F) {
	f.Add("db\nweb needs db\n", int64(0), 0)
	f.Add("a needs b\nb needs a\n", int64(1), 1)
	f.Add("a needs a\na\n", int64(-1), -1)
	f.Add(" x\n needs \n", int64(1)<<62, 1<<30)
	f.Add("a needs nothing\n\xff needs \xff\n", int64(0), 0)
	f.Add("a\tb needs a\n", int64(0), 0)
	f.Fuzz(func(t *testing.T, text string, timeout int64, most int) {
		var components []registry.Component
		for line := range strings.Lines(text) {
			name, needs, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " needs ")
			c := registry.Component{Name: name, StopTimeout: time.Duration(timeout), NonCritical: len(needs)%2 == 0}
			for need := range strings.SplitSeq(needs, ",") {
				if need != "" {
					c.Needs = append(c.Needs, startup.Need{Component: need})
				}
			}
			components = append(components, c)
		}
		o, err := registry.NewOrchestrator(testkit.New(t, registry.Options{}), startup.Options{MaxConcurrent: most, StartTimeout: time.Duration(timeout)}, components...)
		if err != nil {
			require.NotRegexp(t, `[\x00-\x1f\x7f]`, err.Error())
			var field *registry.FieldError
			var graph *startup.PlanError
			require.True(t, errors.As(err, &field) || errors.As(err, &graph), "%T: %v", err, err)
			return
		}
		plan := o.Plan()
		seen := make(map[string]bool)
		for _, step := range plan.Steps {
			require.False(t, seen[step.Name], "%s comes twice", step.Name)
			for _, link := range step.After {
				require.True(t, seen[link.Name], "%s comes before %s", step.Name, link.Name)
			}
			seen[step.Name] = true
		}
		require.Len(t, plan.Steps, len(components))
		_, err = json.Marshal(plan)
		require.NoError(t, err)
	})
}
