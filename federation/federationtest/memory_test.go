package federationtest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/federation/federationtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory_PassesTheSuite(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		memories := map[string]*federationtest.Memory{}
		federationtest.TestStore(t, federationtest.StoreSuite{
			Open: func(_ testing.TB, name string) federation.Store {
				if memories[name] == nil {
					memories[name] = federationtest.NewMemory()
				}
				return memories[name]
			},
			Restart: func(_ testing.TB, down time.Duration, wiped bool) {
				for _, m := range memories {
					m.Stop()
				}
				timer := time.NewTimer(down)
				defer timer.Stop()
				<-timer.C
				for _, m := range memories {
					m.Start(wiped)
				}
			},
			Entries: 1000,
		})
	})
}
