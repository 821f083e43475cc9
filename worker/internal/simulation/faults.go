package simulation

import (
	"slices"

	"github.com/dptune/dpt/coordinator"
)

// inject makes a fault and schedules its remedy.
func (w *world) inject(f Fault) {
	// Resolve "leader" to the replica that leads now.
	w.mu.Lock()
	if f.Host == Leader {
		if f.Host = w.leader; f.Host == "" {
			f.Host = "c1"
		}
	}
	if f.Other == Leader {
		if f.Other = w.leader; f.Other == "" {
			f.Other = "c1"
		}
	}
	if f.Other == f.Host {
		f.Other = ""
	}
	p := w.current[f.Host]
	w.recordLocked("fault: %v", f)
	w.mu.Unlock()
	remedy := func(do func()) { w.schedule(w.now()+f.For, func() { w.record("remedy: %v", f); do() }) }

	// Faults of the network and of hosts, whether their process runs or not.
	switch f.Kind {
	case Join:
		w.start(f.Host)
		return
	case CrashAtPoint:
		w.mu.Lock()
		w.armedCrashes[f.Host] = append(w.armedCrashes[f.Host], &f)
		w.mu.Unlock()
		w.schedule(w.plan.end(), func() { w.disarm(&f) })
		return
	case SlowCompute:
		w.slowdown(f.Host).Store(int64(f.Count))
		remedy(func() { w.slowdown(f.Host).Store(1) })
		return
	case Hang, Partition, OneWayPartition:
		oneWay := f.Kind == OneWayPartition
		w.net.changeLinks(f.Host, f.Other, oneWay, func(l *link) { l.holds++ })
		remedy(func() { w.net.changeLinks(f.Host, f.Other, oneWay, func(l *link) { l.holds-- }) })
		return
	case SlowLink:
		w.net.changeLinks(f.Host, f.Other, false, func(l *link) { l.slowdown *= f.Count })
		remedy(func() { w.net.changeLinks(f.Host, f.Other, false, func(l *link) { l.slowdown /= f.Count }) })
		return
	case Garbage:
		w.sendGarbage(f)
		return
	case Disconnect:
		w.net.disconnect(f.Host, f.Other)
		return
	}

	// Faults of a running process and of its disk.
	if p == nil || p.dead {
		return
	}
	switch f.Kind {
	case Crash, PowerLoss:
		p.crash(f.Kind == PowerLoss, string(f.Kind))
	case Stop:
		w.mu.Lock()
		p.stopping = true
		w.mu.Unlock()
		p.cancel(errStop)
	case BitFlip:
		p.crash(false, string(f.Kind))
		w.mu.Lock()
		if what, undo := w.disk(f.Host).flipBit(p.rand("bit flip")); undo != nil && w.flippedBits[f.Host] == nil {
			w.flippedBits[f.Host] = undo
			w.recordLocked("%v: a bit of %s flips", p, what)
		} else if undo != nil {
			undo()
		}
		w.mu.Unlock()
	case DiskError, DiskFull:
		w.mu.Lock()
		p.diskFailing = true
		w.mu.Unlock()
		p.mount.failWrites(map[Kind]error{DiskError: errSync, DiskFull: errFull}[f.Kind])
		return // handleEnd starts it again when it has given up
	}
	remedy(func() { w.restart(f.Host) })
}

// passCrashPoint is called by a process at a crash point. It crashes the process if a fault waits
// for that.
func (w *world) passCrashPoint(p *process, point string) {
	w.mu.Lock()
	var hit *Fault
	if !p.dead && !w.shuttingDown {
		if point == coordinator.HalfPlan {
			p.plansDealt++
		}
		for i, f := range w.armedCrashes[p.name] {
			if f.Point == point {
				if f.Count--; f.Count == 0 {
					hit = f
					w.armedCrashes[p.name] = slices.Delete(w.armedCrashes[p.name], i, i+1)
					w.report.Crashed[point]++
				}
				break
			}
		}
	}
	w.mu.Unlock()
	if hit != nil {
		p.crash(false, point)
		w.crashes <- crashEvent{p, hit}
	}
}

// disarm drops a CrashAtPoint fault that did not happen.
func (w *world) disarm(f *Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armedCrashes[f.Host] = slices.DeleteFunc(w.armedCrashes[f.Host], func(o *Fault) bool { return o == f })
}
