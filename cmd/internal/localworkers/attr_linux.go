package localworkers

import "syscall"

// childAttr puts a worker into a process group of its own, so that a Ctrl-C on the terminal reaches
// the coordinator alone. The kernel kills the worker when the coordinator is killed.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
