package coordinator

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// roster holds the workers' sessions: all of them, and those that are ready to take part. It
// belongs to the controller's goroutine.
type roster struct {
	sessions map[string]*session // by worker id
	ready    []*session          // by id; the same list as long as nobody comes or goes
}

func newRoster() *roster { return &roster{sessions: map[string]*session{}} }

// has reports whether a session is the one that its worker has now.
func (r *roster) has(s *session) bool { return r.sessions[s.id] == s }

// conflict returns the older session of the same process, whose stream is dead, or why the new
// session cannot be admitted: every worker needs an id and a ring address of its own.
func (r *roster) conflict(s *session) (same *session, err error) {
	if o := r.sessions[s.id]; o != nil {
		if o.host == s.host && o.addr == s.addr {
			return o, nil
		}
		return nil, fmt.Errorf("the worker id %s of %s is taken by %s; every worker needs an id of its own", s.id, s, o)
	}
	for _, o := range r.sessions {
		if o.addr == s.addr { // at most one has it
			return nil, fmt.Errorf("the ring address %s of worker %s is taken by %s; "+
				"every worker needs an address of its own", s.addr, s.id, o)
		}
	}
	return nil, nil
}

// add takes in a session that conflicts with none.
func (r *roster) add(s *session) { r.sessions[s.id] = s }

// remove takes a session out, unless its worker has another one by now.
func (r *roster) remove(s *session) {
	if !r.has(s) {
		return
	}
	delete(r.sessions, s.id)
	if i, found := r.place(s.id); found && r.ready[i] == s {
		r.ready = slices.Delete(r.ready, i, i+1)
	}
}

// enlist puts a session among those that are ready.
func (r *roster) enlist(s *session) {
	s.ready = true
	i, _ := r.place(s.id)
	r.ready = slices.Insert(r.ready, i, s)
}

// unready makes every session one that is not ready, because its job is over. What is known of the
// workers' speed goes with the job.
func (r *roster) unready() {
	r.ready = nil
	for _, s := range r.sessions {
		s.ready, s.numerics, s.pace = false, "", pace{}
	}
}

// place is where a worker's id is, or would be, among those that are ready.
func (r *roster) place(id string) (at int, found bool) {
	return slices.BinarySearchFunc(r.ready, id, func(o *session, id string) int { return strings.Compare(o.id, id) })
}

// available are the ready workers that can take part now: those that neither stand down nor rest.
// Where they are fewer than least, those that rest can take part too.
func (r *roster) available(now time.Time, least int) (list []*session) {
	var standing, resting int
	for _, s := range r.ready {
		switch {
		case s.standsDown:
			standing++
		case s.restsUntil.After(now):
			resting++
		default:
			list = append(list, s)
		}
	}
	if len(list) >= least || resting == 0 {
		return list
	}
	list = make([]*session, 0, len(r.ready)-standing)
	for _, s := range r.ready {
		if !s.standsDown {
			list = append(list, s)
		}
	}
	return list
}

// silent are the sessions that have not been heard since a time, by id.
func (r *roster) silent(since time.Time) (list []*session) {
	for _, s := range r.sessions {
		if s.lastHeard().Before(since) {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b *session) int { return strings.Compare(a.id, b.id) })
	return list
}
