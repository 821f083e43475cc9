package localworkers

import "syscall"

// childAttr puts a worker into a process group of its own, so that a Ctrl-C on the terminal reaches the coordinator
// alone, and has the kernel kill it should the coordinator be killed.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
