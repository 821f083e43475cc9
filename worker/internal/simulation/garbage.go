package simulation

import (
	"context"
	"fmt"
	"time"

	"github.com/dptune/dpt/coordinator/coordpb"
)

// garbageHost is the host that garbage comes from.
const garbageHost = "w99"

// sendGarbage connects to one of a host's ports and sends bytes that do not belong there: after
// nothing, or after the right beginning of HTTP/2 or of raft's greeting. It reads what comes back
// and hangs up when the fault's time is over. The run ends after that.
func (w *world) sendGarbage(f Fault) {
	r := seededRand(w.plan.Seed, "garbage", fmt.Sprint(f.At), f.Host)
	ports := []int{workerPort, raftPort}
	if f.Host[0] == 'w' {
		ports = []int{ringPort}
	}
	addr := addressOf(f.Host, pick(r, ports)).String()
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	const settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00" // an empty SETTINGS frame
	greeting := fmt.Sprintf("dptraft%c", coordpb.ProtocolVersion)
	data := []byte(pick(r, []string{
		"", preface, preface + settings, greeting, greeting + "\x00", greeting + "\x02",
	}))
	for range 1 + r.IntN(400) {
		data = append(data, byte(r.Uint32()))
	}
	w.garbageSenders.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), f.For)
		defer cancel()
		c, err := (&host{net: w.net, name: garbageHost}).dial(ctx, addr)
		if err != nil {
			return
		}
		defer c.Close()
		if _, err := c.Write(data); err != nil {
			return
		}
		if err := c.SetReadDeadline(time.Now().Add(f.For)); err != nil {
			return
		}
		var answer [512]byte
		for err == nil {
			_, err = c.Read(answer[:])
		}
	})
}
