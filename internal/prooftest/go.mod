module github.com/capreg/registry/internal/prooftest

go 1.25.0

replace github.com/capreg/registry => ../..

require (
	github.com/stretchr/testify v1.12.1
	go.uber.org/goleak v1.3.0
)

require go.yaml.in/yaml/v3 v3.0.5 // indirect
