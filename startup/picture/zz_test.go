package picture

import ("testing";"io";"fmt";"time";"github.com/capreg/registry/startup")
func TestZZ(t *testing.T) {
	for _, n := range []int{10000, 40000} {
		r := startup.Report{Wall: time.Second}
		for i := range n { r.Components = append(r.Components, startup.Component{Name: fmt.Sprint(i), State: startup.Ready, Started: time.Duration(i), Ready: time.Second}) }
		b := time.Now()
		_ = ChromeTrace(io.Discard, r)
		t.Log(n, time.Since(b))
	}
}
