//go:build race

package registryetcd_test

// manyEntries is the number of records of a large node: the race detector makes a registration ten times as slow.
const manyEntries = 1000
