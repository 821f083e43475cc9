package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// network joins hosts that are as separate as machines. Each host is a network namespace of its
// own, and this process holds its one device. What a process sends arrives here packet by packet,
// and is passed on at once, later, or not at all. So the kernel needs no queueing disciplines, and
// everything disappears when this process ends in any way.
type network struct {
	hosts []*host

	mu    sync.Mutex
	links map[[2]*host]link
}

// host is one network namespace.
type host struct {
	net    *network
	ip     net.IP
	device *os.File             // reads and writes one IP packet at a time
	run    chan<- func()        // executed by the thread that lives in the namespace
	out    map[*host]chan frame // by receiver
}

// link determines what happens to packets from one host to another. The zero value passes them on
// at once.
type link struct {
	cut   bool
	delay time.Duration
}

// frame is a packet on its way.
type frame struct {
	due  time.Time
	data []byte
}

const (
	// packetSize is the devices' largest packet.
	packetSize = 9000
	// onTheWay bounds the packets between two hosts; further ones are lost, as in any router.
	onTheWay = 4096
)

// newNetwork makes n hosts, 10.77.0.1 and up. It skips the test where that is not possible.
func newNetwork(t *testing.T, n int) *network {
	t.Helper()
	nw := &network{links: map[[2]*host]link{}}
	for i := range n {
		h := &host{net: nw, ip: []byte{10, 77, 0, byte(i + 1)}, out: map[*host]chan frame{}}
		var err error
		if h.device, h.run, err = openHost(h.ip); err != nil {
			nw.close()
			t.Skipf("network namespaces cannot be made here: %v; root on Linux with /dev/net/tun can", err)
		}
		nw.hosts = append(nw.hosts, h)
	}
	var working sync.WaitGroup
	for _, h := range nw.hosts {
		for _, to := range nw.hosts {
			lane := make(chan frame, onTheWay)
			h.out[to] = lane
			working.Go(func() { carry(lane, to.device) })
		}
		working.Go(h.read)
	}
	t.Cleanup(func() { nw.close(); working.Wait() })
	return nw
}

func (n *network) close() {
	for _, h := range n.hosts {
		h.device.Close()
		close(h.run)
	}
}

// read passes on what the host sends until its device is closed.
func (h *host) read() {
	defer func() {
		for _, lane := range h.out {
			close(lane)
		}
	}()
	packet := make([]byte, packetSize)
	for {
		n, err := h.device.Read(packet)
		if err != nil {
			return
		}
		if n < 20 || packet[0]>>4 != 4 {
			continue // not IPv4
		}
		last := int(binary.BigEndian.Uint32(packet[16:20]) - binary.BigEndian.Uint32([]byte{10, 77, 0, 1}))
		if last < 0 || last >= len(h.net.hosts) {
			continue
		}
		to := h.net.hosts[last]
		h.net.mu.Lock()
		l := h.net.links[[2]*host{h, to}]
		h.net.mu.Unlock()
		if l.cut {
			continue
		}
		select {
		case h.out[to] <- frame{time.Now().Add(l.delay), append([]byte(nil), packet[:n]...)}:
		default:
		}
	}
}

// carry delivers packets in their order, each when it is due.
func carry(lane <-chan frame, to *os.File) {
	for f := range lane {
		time.Sleep(time.Until(f.due))
		_, _ = to.Write(f.data) // without effect on a host that is closed
	}
}

// start starts cmd on the host.
func (h *host) start(cmd *exec.Cmd) error {
	result := make(chan error)
	h.run <- func() { result <- cmd.Start() }
	return <-result
}

// addr is an address on the host.
func (h *host) addr(port int) string { return fmt.Sprintf("%v:%d", h.ip, port) }

// set makes all links that come to h, those that go from it, or both like l.
func (n *network) set(h *host, to, from bool, l link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, other := range n.hosts {
		if other == h {
			continue
		}
		if to {
			n.links[[2]*host{other, h}] = l
		}
		if from {
			n.links[[2]*host{h, other}] = l
		}
	}
}
