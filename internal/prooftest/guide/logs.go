package main

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/bus"
)

// logLevels returns the table of the levels of lines, with the kinds of event that they are about.
func logLevels() string {
	byLevel := make(map[slog.Level][]string)
	for _, kind := range event.Kinds() {
		level, _ := bus.LevelOf(kind)
		byLevel[level] = append(byLevel[level], "`"+string(kind)+"`")
	}
	var table strings.Builder
	table.WriteString("| level | events |\n| --- | --- |\n")
	for _, level := range []slog.Level{slog.LevelWarn, slog.LevelInfo} {
		fmt.Fprintf(&table, "| %s | %s |\n", level, strings.Join(byLevel[level], ", "))
	}
	return table.String()
}
