module github.com/capreg/registry/internal/prooftest

go 1.25.0

replace github.com/capreg/registry => ../..

require (
	github.com/anishathalye/porcupine v1.3.1 // indirect
	github.com/stretchr/testify v1.12.1 // indirect
	go.uber.org/goleak v1.3.0 // indirect
	pgregory.net/rapid v1.3.0 // indirect
)
