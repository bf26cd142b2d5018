package version_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/version"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCompare_FollowsSemanticVersioning(t *testing.T) {
	t.Parallel()
	ascending := []string{
		"", "0.0.1", "0.9", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11",
		"1.0.0-rc.1", "1.0.0", "1.0.1", "1.2", "1.10", "2", "2.0.0.1", "10.0", "99999999999999999999999999",
	}
	for i, a := range ascending {
		for j, b := range ascending {
			want := 0
			switch {
			case i < j:
				want = -1
			case i > j:
				want = 1
			}
			require.Equal(t, want, version.Compare(a, b), "%q %q", a, b)
		}
	}
	for _, same := range [][2]string{{"1.2", "v1.2.0"}, {"1.0+build", "1"}, {"01.2", "1.02"}, {"1-", "1"}} {
		require.Zero(t, version.Compare(same[0], same[1]), "%v", same)
	}
}

func FuzzVersions_AreOrdered(f *testing.F) {
	f.Add("1.2.3-rc.1", "v1.2", "1.10+x")
	f.Add("", "-", ".")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		compare := version.Compare
		require.Zero(t, compare(a, a))
		require.Equal(t, compare(a, b), -compare(b, a), "antisymmetric")
		if compare(a, b) <= 0 && compare(b, c) <= 0 {
			require.LessOrEqual(t, compare(a, c), 0, "transitive: %q %q %q", a, b, c)
		}
	})
}
