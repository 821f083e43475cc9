//go:build !linux

package localworkers

import "syscall"

// childAttr is nil outside Linux: there a worker shares the process group of the coordinator, and
// outlives it if it is killed.
func childAttr() *syscall.SysProcAttr { return nil }
