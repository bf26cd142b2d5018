// Package loglines writes the lines of a server's log together: a write for each would be a good part of what a short request costs.
package loglines

import (
	"io"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Logger returns a logger of JSON lines. They are written once a second, when there are 64 KiB of them, by Sync, and by end, behind
// which nothing may be logged. Those that cannot be written, as to a full disk, are lost; later ones are written again. A process
// that is killed loses those of its last second. It starts a goroutine, which ends with end.
func Logger(out io.Writer) (log *zap.Logger, end func()) {
	form := zap.NewProductionEncoderConfig()
	form.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	together := &zapcore.BufferedWriteSyncer{WS: zapcore.AddSync(unfailing{out}), FlushInterval: time.Second, Size: 64 << 10}
	log = zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(form), together, zap.InfoLevel))
	return log, func() { _ = together.Stop() }
}

// unfailing keeps errors from the buffer, which would write nothing more after the first one.
type unfailing struct{ io.Writer }

func (u unfailing) Write(text []byte) (int, error) {
	_, _ = u.Writer.Write(text)
	return len(text), nil
}
