//go:build !unix

// Command tools is an agent with MCP servers as child processes. This system has no process groups.
package main

import "fmt"

func main() { fmt.Println("this example needs a Unix system") }
