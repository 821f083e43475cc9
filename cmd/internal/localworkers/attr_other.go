//go:build !linux

package localworkers

import "syscall"

// childAttr: beyond Linux a worker shares the coordinator's process group and outlives it if it is killed.
func childAttr() *syscall.SysProcAttr { return nil }
