package top

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"

	"github.com/capreg/registry/cmd/registry/internal/plain"
)

const (
	// beat is the time between two looks at what has to be read again; it also bounds how often a program is asked.
	beat = 500 * time.Millisecond
	// poll is the age at which a snapshot is read again without an event, pollFollowing where events are followed:
	// numbers of the last minute change without one.
	poll          = time.Second
	pollFollowing = 2 * time.Second
	// staleAge is the age from which a snapshot is marked as stale.
	staleAge = 8 * time.Second
	// patience is the time that the program has for an answer.
	patience = 5 * time.Second
	// longestFilter bounds what is typed, in bytes.
	longestFilter = 200
)

// The messages that a Model is told, beside keys and sizes of the terminal.
type (
	// TickMsg is the time.
	TickMsg time.Time
	// SnapshotMsg is a snapshot that was read, or why it could not be.
	SnapshotMsg struct {
		Snapshot *Snapshot
		Err      error
	}
	// FollowMsg says whether the events of the program are followed.
	FollowMsg struct{ On bool }
	// ChangedMsg says that an event came.
	ChangedMsg struct{}
	// DoneMsg is the answer to a change.
	DoneMsg struct {
		Text string
		Err  error
	}
	// ExplainedMsg is the answer to a question.
	ExplainedMsg struct {
		Service, Text string
		Err           error
	}
	// FleetMsg has the fleet, or the reason why it could not be read.
	FleetMsg struct {
		Fleet *Fleet
		Err   error
	}
)

// page names the content of the screen.
type page int

const (
	list page = iota
	details
	explanation
	nodes
)

// Model is the state of the view. It is not safe for concurrent use: Bubble Tea calls one method at a time.
type Model struct {
	program Program
	ctx     context.Context //nolint:containedctx // requests are commands of Bubble Tea, which have no context of their own
	address string

	now           time.Time
	width, height int

	snapshot  *Snapshot
	read      time.Time // when snapshot was read
	problem   error     // why the latest reading failed
	reading   bool
	following bool
	changed   bool // an event came after the latest reading began

	lines    []line
	at       int // the selected line
	from     int // the first line that is shown
	filter   string
	typing   bool // keys belong to the filter
	page     page
	of       id       // what the page is about
	text     []string // lines of the explanation
	fleet    *Fleet   // what the page of nodes shows
	scrolled int

	opening bool    // the page of nodes was asked for
	asked   *Change // waits for a yes
	message string
	failed  bool // the message says what went wrong
}

// New returns a view of the program at an address, which is shown only. Requests end with ctx. now is the time at which it
// starts.
func New(ctx context.Context, program Program, address string, now time.Time) *Model {
	return &Model{program: program, ctx: ctx, address: plain.Line(address), now: now, width: 80, height: 24}
}

// Init reads the program for the first time.
func (m *Model) Init() tea.Cmd {
	return tea.Batch(m.readCmd(), tick())
}

func tick() tea.Cmd { return tea.Tick(beat, func(at time.Time) tea.Msg { return TickMsg(at) }) }

// readCmd reads the program, unless that is in progress.
func (m *Model) readCmd() tea.Cmd {
	if m.reading {
		return nil
	}
	m.reading, m.changed = true, false
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(m.ctx, patience)
		defer cancel()
		snapshot, err := m.program.Snapshot(ctx)
		return SnapshotMsg{snapshot, err}
	}
}

// Update takes a message, and returns what is to be done because of it.
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case TickMsg:
		m.now = time.Time(msg)
		return m, tea.Batch(append([]tea.Cmd{tick()}, m.due()...)...)
	case SnapshotMsg:
		m.take(msg)
	case FollowMsg:
		m.following, m.changed = msg.On, m.changed || msg.On // what came before was not seen
	case ChangedMsg:
		m.changed = true
	case DoneMsg:
		m.say(msg.Text, msg.Err)
		return m, m.readCmd()
	case ExplainedMsg:
		if m.say("", msg.Err); msg.Err == nil {
			m.open(explanation, id{service: msg.Service})
			m.text = strings.Split(strings.TrimRight(plain.Lines(msg.Text), "\n"), "\n")
		}
	case FleetMsg:
		m.takeFleet(msg)
	case tea.WindowSizeMsg:
		m.width, m.height = max(1, msg.Width), max(1, msg.Height)
		m.scroll()
	case tea.PasteMsg:
		if m.typing {
			m.enter(msg.Content)
		}
	case tea.KeyPressMsg:
		return m, m.key(msg)
	}
	return m, nil
}

// due reads the program where it has changed, or the snapshot is old.
func (m *Model) due() []tea.Cmd {
	limit := poll
	if m.following {
		limit = pollFollowing
	}
	if !m.changed && m.problem == nil && m.now.Sub(m.read) < limit {
		return nil
	}
	read := m.readCmd()
	if read != nil && m.page == nodes {
		return []tea.Cmd{read, m.readFleet()}
	}
	return []tea.Cmd{read}
}

// take takes a snapshot; the selected line stays selected.
func (m *Model) take(msg SnapshotMsg) {
	if m.reading, m.problem = false, msg.Err; msg.Err != nil {
		return
	}
	m.snapshot, m.read = msg.Snapshot, m.now
	m.list()
}

// readFleet reads what the program knows of other processes.
func (m *Model) readFleet() tea.Cmd {
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(m.ctx, patience)
		defer cancel()
		fleet, err := m.program.Fleet(ctx)
		return FleetMsg{fleet, err}
	}
}

// takeFleet takes what was read of other processes, and opens the page of them the first time.
func (m *Model) takeFleet(msg FleetMsg) {
	opening := m.opening
	if m.opening = false; msg.Err != nil {
		m.say("", msg.Err)
		return
	}
	if m.fleet = msg.Fleet; opening {
		m.open(nodes, id{})
	}
}

// list makes the lines again.
func (m *Model) list() {
	var selected id
	if m.at < len(m.lines) {
		selected = m.lines[m.at].id()
	}
	first := m.at == 0 // stays on what is worst
	if m.lines = nil; m.snapshot != nil {
		m.lines = linesOf(m.snapshot, m.filter)
	}
	for i, l := range m.lines {
		if !first && l.id() == selected {
			m.at = i
		}
	}
	m.scroll()
}

// scroll keeps the selected line in sight.
func (m *Model) scroll() {
	m.at = max(0, min(m.at, len(m.lines)-1))
	m.from = max(0, min(m.from, m.at), m.at-m.rows()+1)
}

func (m *Model) say(text string, err error) {
	if m.message, m.failed = plain.Line(text), err != nil; m.failed {
		m.message = plain.Line(err.Error())
	}
}

func (m *Model) open(p page, of id) { m.page, m.of, m.scrolled = p, of, 0 }

// key takes a key.
func (m *Model) key(key tea.KeyPressMsg) tea.Cmd {
	switch name := key.String(); {
	case name == "ctrl+c":
		return tea.Quit
	case m.asked != nil:
		return m.answer(name)
	case m.typing:
		m.edit(name, key.Text)
		return nil
	case name == "q":
		return tea.Quit
	case m.page != list && (name == "esc" || name == "enter" || name == "backspace"):
		m.open(list, id{})
		return nil
	default:
		m.message = ""
		return m.command(name)
	}
}

// command is a key of a page.
func (m *Model) command(name string) tea.Cmd {
	switch name {
	case "up", "k":
		m.move(-1)
	case "down", "j":
		m.move(1)
	case "pgup", "ctrl+b":
		m.move(-m.rows())
	case "pgdown", "ctrl+f", "space":
		m.move(m.rows())
	case "home", "g":
		m.move(-1 << 30)
	case "end", "G":
		m.move(1 << 30)
	case "/":
		m.typing, m.page = true, list
	case "esc":
		m.filter = ""
		m.list()
	case "f":
		m.opening = m.page != nodes
		return m.readFleet()
	default:
		return m.act(name)
	}
	return nil
}

// act is a key that is about what is selected.
func (m *Model) act(name string) tea.Cmd {
	l, ok := m.target()
	if !ok {
		return nil
	}
	switch name {
	case "e":
		return m.explain(l.service.Name)
	case "enter":
		if l.provider == nil {
			return m.explain(l.service.Name)
		}
		m.open(details, l.id())
	case "r":
		m.asked = &Change{Reset, l.id().service, l.id().provider}
	case "d":
		switch {
		case l.provider == nil:
			m.say("drain is for a provider: select one", nil)
		case l.provider.Weight == 0:
			m.asked = &Change{Undrain, l.id().service, l.id().provider}
		default:
			m.asked = &Change{Drain, l.id().service, l.id().provider}
		}
	}
	return nil
}

// target is the line that keys are about: that of the page, or the selected one.
func (m *Model) target() (line, bool) {
	switch {
	case m.page == nodes:
		return line{}, false
	case m.page != list:
		return m.find(m.of)
	}
	if m.at >= len(m.lines) {
		return line{}, false
	}
	return m.lines[m.at], true
}

// find finds a service or a provider in the latest snapshot.
func (m *Model) find(wanted id) (line, bool) {
	if m.snapshot == nil {
		return line{}, false
	}
	for i := range m.snapshot.Services {
		s := &m.snapshot.Services[i]
		if s.Name != wanted.service {
			continue
		}
		for j := range s.Providers {
			if s.Providers[j].Name == wanted.provider {
				return line{s, &s.Providers[j]}, true
			}
		}
		return line{service: s}, wanted.provider == ""
	}
	return line{}, false
}

// move moves the selection, or the text of the page.
func (m *Model) move(by int) {
	if m.page != list {
		m.scrolled = max(0, min(m.scrolled+by, len(m.body())-m.rows()))
		return
	}
	m.at = max(0, min(m.at+by, len(m.lines)-1))
	m.scroll()
}

// edit is a key of the filter.
func (m *Model) edit(name, text string) {
	switch name {
	case "enter":
		m.typing = false
	case "esc":
		m.typing, m.filter = false, ""
	case "backspace":
		_, size := utf8.DecodeLastRuneInString(m.filter)
		m.filter = m.filter[:len(m.filter)-size]
	case "ctrl+u":
		m.filter = ""
	default:
		m.enter(text)
		return
	}
	m.list()
}

func (m *Model) enter(text string) {
	if text = plain.Line(text); len(m.filter)+len(text) <= longestFilter {
		m.filter += text
		m.at = 0
		m.list()
	}
}

func (m *Model) explain(service string) tea.Cmd {
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(m.ctx, patience)
		defer cancel()
		text, err := m.program.Explain(ctx, service)
		return ExplainedMsg{service, text, err}
	}
}

// answer is a key after a question.
func (m *Model) answer(name string) tea.Cmd {
	change := *m.asked
	switch name {
	case "y", "Y":
		m.asked = nil
		m.say("…", nil)
		return func() tea.Msg {
			ctx, cancel := context.WithTimeout(m.ctx, patience)
			defer cancel()
			text, err := m.program.Change(ctx, change)
			return DoneMsg{text, err}
		}
	case "n", "N", "esc", "q":
		m.asked = nil
		m.say("nothing was changed", nil)
	}
	return nil
}
