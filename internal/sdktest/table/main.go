// Command table measures what the registry makes of the errors of real clients, on loopback, and writes the page about
// it. It fails where a cell is not what it has to be.
//
//	go run ./internal/sdktest/table
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/capreg/registry/internal/sdktest"
)

func main() {
	page := flag.String("page", "docs/guide/sdk-errors.md", "the file to write, from the top of the repository")
	module := flag.String("module", "internal/sdktest/go.mod", "the file with the versions of the clients")
	flag.Parse()
	if err := write(*page, *module); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func write(page, module string) error {
	versions, err := sdktest.Versions(module)
	if err != nil {
		return err
	}
	table, err := sdktest.Measure(context.Background())
	if err != nil {
		return err
	}
	if err := table.Check(); err != nil {
		return err
	}
	return os.WriteFile(page, []byte(sdktest.Document(table, versions)), 0o644) //nolint:gosec // a page for everyone
}
