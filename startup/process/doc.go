// Package process makes a program of the operating system a component of an orchestrated start: a database, a tool
// server, a migration.
//
// [Component] returns a registry.Component that stands in one graph with components that are functions: what needs it starts
// when the process is ready, by [Ready]; it is stopped after those that use it, and restarted by its restart policy, whose count
// forgives with time. Each start of the process is a life with a number of its own: what an earlier life wrote or reported
// counts for nothing in a later one. A component with Completes set is ready when its process has ended with status 0, such as
// a migration that others wait for.
//
// # What is left behind
//
// Nothing. A process leads a process group of its own. To stop it, the group gets [Options.Signal] and, when
// [Options.Grace] is over, SIGKILL. When the process ends by itself, what is left of its group gets SIGKILL before
// the next life begins. Every process is waited for, so that there are no zombies; where this program is process 1, that
// includes what the group leaves to it.
//
// When this program is killed, so are the groups: a guard, which is one small shell process for all components, sees the
// end of a pipe and sends SIGKILL. On Linux and FreeBSD the kernel does that too, for the processes themselves. The guard
// needs /bin/sh; without one, only the latter is left.
//
// A process that leaves its group, as daemons do, is out of reach: run servers in the foreground, such as nginx with
// "daemon off;".
//
// # Output
//
// Output is read for as long as the process lives, so that the process never waits for it because it is unwanted. It goes to the
// logger line by line, or to writers. A line is cut after 8 KiB, so that output without an end of line needs no memory. The
// last lines are kept for the error of a process that ends by itself, an [ExitError].
//
// [Options.Talk] speaks with a process instead, through its standard input and output, in each of its lives.
//
// # Systems
//
// It works on Linux, macOS and other Unix systems. Elsewhere [Component] returns an error that matches
// [errors.ErrUnsupported].
package process
