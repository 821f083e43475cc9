package simulation

import (
	"context"
	"fmt"
	"time"

	"github.com/dptune/dpt/coordinator/coordpb"
)

// strangerHost is where strangers come from.
const strangerHost = "w99"

// visit lets a stranger connect to one of a host's ports and send what does not belong there: nothing sensible from the start, or from some byte on
// after a right beginning. It hears what comes back and hangs up when the fault's time is over. The run ends after it.
func (w *world) visit(f Fault) {
	r := draw(w.plan.Seed, "stranger", fmt.Sprint(f.At), f.Host)
	ports := []int{workerPort, raftPort}
	if f.Host[0] == 'w' {
		ports = []int{ringPort}
	}
	addr := addressOf(f.Host, pick(r, ports)).String()
	greeting := fmt.Sprintf("dptraft%c", coordpb.ProtocolVersion)
	data := []byte(pick(r, []string{"", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", greeting, greeting + "\x00", greeting + "\x02"}))
	for range 1 + r.IntN(400) {
		data = append(data, byte(r.Uint32()))
	}
	w.visits.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), f.For)
		defer cancel()
		c, err := (&host{net: w.net, name: strangerHost}).dial(ctx, addr)
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
