package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// openHost makes a network namespace with the loopback device and one that reaches 10.77.0.0/24,
// which is returned. The namespace belongs to a thread, which runs what is sent to it until the
// channel is closed, and to the processes that it starts.
func openHost(ip net.IP) (*os.File, chan<- func(), error) {
	type made struct {
		device *os.File
		err    error
	}
	result, run := make(chan made), make(chan func())
	go func() {
		// Never unlocked: the thread ends with this goroutine, since it is of no other use.
		runtime.LockOSThread()
		device, err := openNamespace(ip)
		result <- made{device, err}
		if err != nil {
			return
		}
		for f := range run {
			f()
		}
	}()
	m := <-result
	return m.device, run, m.err
}

// openNamespace moves this thread into a new network namespace.
func openNamespace(ip net.IP) (device *os.File, err error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("unshare: %w", err)
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	const name = "dpt0"
	tun, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	tun.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, tun); err != nil {
		return nil, fmt.Errorf("make a TUN device: %w", err)
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(s)
	up := func(r *unix.Ifreq) { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING) }
	for _, set := range []struct {
		device  string
		request uint
		value   func(*unix.Ifreq)
	}{
		{"lo", unix.SIOCSIFFLAGS, up},
		{name, unix.SIOCSIFADDR, func(r *unix.Ifreq) { _ = r.SetInet4Addr(ip) }},
		{name, unix.SIOCSIFNETMASK, func(r *unix.Ifreq) { _ = r.SetInet4Addr([]byte{255, 255, 255, 0}) }},
		{name, unix.SIOCSIFMTU, func(r *unix.Ifreq) { r.SetUint32(packetSize) }},
		{name, unix.SIOCSIFFLAGS, up},
	} {
		r, err := unix.NewIfreq(set.device)
		if err != nil {
			return nil, err
		}
		set.value(r)
		if err := unix.IoctlIfreq(s, set.request, r); err != nil {
			return nil, fmt.Errorf("set up device %s, request %#x: %w", set.device, set.request, err)
		}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// killWithParent makes the kernel kill a process when the thread that started it ends, at the
// latest with this process.
func killWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
