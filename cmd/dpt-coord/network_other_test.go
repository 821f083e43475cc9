//go:build !linux

package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
)

func openHost(net.IP) (*os.File, chan<- func(), error) {
	return nil, nil, errors.New("this is not Linux")
}

func killWithParent(*exec.Cmd) {}
