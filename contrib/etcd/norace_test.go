//go:build !race

package registryetcd_test

const manyEntries = 10_000
