package config

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// FileSource is a file or a directory that is watched. Use [File].
type FileSource struct {
	path string

	// Poll is the time between two looks that find what no notification has told, as on network file systems.
	// Default: 5 s. It is not to be changed once the source is followed.
	Poll time.Duration

	mu    sync.Mutex
	files []string // guarded by mu; those that were read last
}

// File returns a source that reads a file with all that it includes, or a directory as one document; see [Load].
//
// A new version is noticed however it is written: in place, by a rename over the old one, as editors do, by a symbolic
// link that is turned, as Kubernetes does, and after the file or its directory was deleted and made again. While there
// is none the last one stays in force. Notifications of the system are used where there are some; otherwise, and
// besides, the file is looked at every Poll.
func File(path string) *FileSource { return &FileSource{path: path, Poll: usualPoll} }

const usualPoll = 5 * time.Second

// String returns the path.
func (s *FileSource) String() string { return s.path }

// Load reads the document.
func (s *FileSource) Load(context.Context) (*Document, error) {
	d, files, err := load(s.path)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(files) > 0 {
		s.files = files
	}
	return d, err
}

// watched returns the paths that the document depends on.
func (s *FileSource) watched() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{s.path}, s.files...)
}

// Watch calls changed after each change of a file of the document, until ctx ends.
func (s *FileSource) Watch(ctx context.Context, changed func()) error {
	return watchFiles(ctx, s.Poll, s.watched, changed)
}

// watchFiles calls changed after each change of the files that paths returns, which may be others each time, until ctx
// ends.
func watchFiles(ctx context.Context, every time.Duration, paths func() []string, changed func()) error {
	w := &watch{paths: paths, changed: changed, dirs: make(map[string]bool)}
	var events chan fsnotify.Event
	var failures chan error
	if notify, err := fsnotify.NewWatcher(); err == nil { // else there are too many, or none on this system
		defer notify.Close() //nolint:errcheck // nothing is left to be told
		w.notify, events, failures = notify, notify.Events, notify.Errors
	}
	poll := time.NewTicker(max(every, time.Millisecond))
	defer poll.Stop()
	w.arm()
	w.seen = w.signature()
	changed() // what happened before is not known
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e := <-events:
			w.look(!e.Has(fsnotify.Chmod) && w.concerns(e.Name))
		case err := <-failures: // such as notifications that were lost
			w.look(err != nil)
		case <-poll.C:
			w.look(false)
		}
	}
}

// watch is one watch of files.
type watch struct {
	paths   func() []string
	changed func()
	notify  *fsnotify.Watcher // nil: there are no notifications
	dirs    map[string]bool   // that notify watches
	seen    string
}

// look tells of a change that is known, or that shows.
func (w *watch) look(known bool) {
	w.arm()
	now := w.signature()
	if known || now != w.seen {
		w.seen = now
		w.changed()
	}
}

// concerns reports whether an event may be about the document. Kubernetes turns a link named "..data".
func (w *watch) concerns(name string) bool {
	base := filepath.Base(name)
	return strings.HasPrefix(base, "..") || slices.ContainsFunc(w.paths(), func(path string) bool {
		return filepath.Base(path) == base || isFragment(base) && filepath.Clean(path) == filepath.Dir(name)
	})
}

// arm watches each directory in which a file of the document stands, or a link on the way to it. Of those that do not
// exist it watches the nearest that does, and so sees when they are made.
func (w *watch) arm() {
	if w.notify == nil {
		return
	}
	wanted := make(map[string]bool)
	for _, path := range w.paths() {
		for _, dir := range directories(path) {
			wanted[dir] = true
		}
	}
	listed := w.notify.WatchList()
	for dir := range w.dirs {
		if !wanted[dir] || !slices.Contains(listed, dir) { // it is not needed, or was deleted
			_ = w.notify.Remove(dir)
			delete(w.dirs, dir)
		}
	}
	for dir := range wanted {
		if !w.dirs[dir] && w.notify.Add(dir) == nil {
			w.dirs[dir] = true
		}
	}
}

// mostLinks bounds the links that are followed from one path: they may go in a circle.
const mostLinks = 16

// directories returns the directories in which a change of the file can show: its own, those of the links on the way
// to it, and the file itself where it is a directory.
func directories(path string) (dirs []string) {
	for range mostLinks {
		dirs = append(dirs, existing(filepath.Dir(path)))
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			dirs = append(dirs, path)
		}
		target, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		dirs = append(dirs, filepath.Dir(resolved))
	}
	return dirs
}

// existing returns the directory, or the nearest one around it that exists.
func existing(dir string) string {
	for {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			return dir
		}
		dir = up
	}
}

// signature describes the files of the document by what a change of them changes.
func (w *watch) signature() string {
	var b strings.Builder
	for _, path := range w.paths() {
		files, err := fragments(path)
		if err != nil {
			fmt.Fprintln(&b, path, "cannot be read")
		}
		for _, file := range files {
			resolved, _ := filepath.EvalSymlinks(file) // one that is missing is told below
			if info, err := os.Stat(file); err == nil {
				fmt.Fprintln(&b, file, resolved, info.Size(), info.ModTime().UnixNano(), info.Mode())
			} else {
				fmt.Fprintln(&b, file, "is missing")
			}
		}
	}
	return b.String()
}
