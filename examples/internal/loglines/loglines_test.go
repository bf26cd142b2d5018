package loglines_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/examples/internal/loglines"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// disk keeps what is written, unless it is full.
type disk struct {
	mu   sync.Mutex // guards the fields below
	text string
	full bool
}

func (d *disk) Write(text []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		return 0, errors.New("no space left on device")
	}
	d.text += string(text)
	return len(text), nil
}

func (d *disk) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text
}

func (d *disk) fill(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = full
}

func TestLogger_WritesAtOnceBySyncAndElseWithinASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out disk
		log, end := loglines.Logger(&out)
		log.Info("first")
		require.NoError(t, log.Sync())
		require.Contains(t, out.String(), `"first"`)
		log.Info("second")
		synctest.Wait()
		require.NotContains(t, out.String(), `"second"`)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Contains(t, out.String(), `"second"`)
		log.Info("last")
		end()
		require.Equal(t, 3, strings.Count(out.String(), "\n"))
		require.Contains(t, out.String(), `"last"`)
	})
}

func TestLogger_WritesAgainWhenTheDiskIsFullNoMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out disk
		out.fill(true)
		log, end := loglines.Logger(&out)
		defer end()
		log.Info("lost")
		time.Sleep(time.Second)
		synctest.Wait()
		out.fill(false)
		log.Info("kept")
		require.NoError(t, log.Sync())
		require.NotContains(t, out.String(), "lost")
		require.Contains(t, out.String(), "kept")
	})
}
