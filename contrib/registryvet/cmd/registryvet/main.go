// Command registryvet reports results of registry.Call that end with the context of its function.
//
//	go vet -vettool=$(which registryvet) ./...
package main

import (
	"golang.org/x/tools/go/analysis/singlechecker"

	"github.com/capreg/registry/contrib/registryvet"
)

func main() { singlechecker.Main(registryvet.Analyzer) }
