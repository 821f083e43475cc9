package coordinator

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func testSession(id, host, addr string) *session { return &session{id: id, host: host, addr: addr} }

func namesOf(list []*session) (names []string) {
	for _, s := range list {
		names = append(names, s.id)
	}
	return names
}

func TestRosterRefusesASecondIDAndASecondAddress(t *testing.T) {
	r := newRoster()
	a, b := testSession("a", "h1", "h1:1"), testSession("b", "h2", "h2:1")
	r.add(a)
	r.add(b)
	for _, c := range []struct {
		name string
		s    *session
		same *session
		want string // in the error; "" is none
	}{
		{"new", testSession("c", "h3", "h3:1"), nil, ""},
		{"the same process again", testSession("a", "h1", "h1:1"), a, ""},
		{"its id from another host", testSession("a", "h3", "h3:1"), nil, "the worker id a of"},
		{"its id at another address", testSession("a", "h1", "h1:2"), nil, "the worker id a of"},
		{"its address under another id", testSession("c", "h1", "h1:1"), nil, "the ring address h1:1 of worker c"},
		{"id of one and address of another", testSession("a", "h1", "h2:1"), nil, "the worker id a of"},
	} {
		same, err := r.conflict(c.s)
		if same != c.same || (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: session %v, error %v; want %v and %q", c.name, same, err, c.same, c.want)
		}
	}
}

func TestRosterKeepsTheReadyInOrder(t *testing.T) {
	r := newRoster()
	sessions := map[string]*session{}
	for _, id := range []string{"d", "a", "c", "b"} {
		sessions[id] = testSession(id, "h", "h:"+id)
		r.add(sessions[id])
		r.enlist(sessions[id])
	}
	if got := namesOf(r.ready); !slices.Equal(got, []string{"a", "b", "c", "d"}) {
		t.Errorf("ready are %v, want a to d", got)
	}
	r.remove(sessions["b"])
	r.remove(sessions["b"]) // twice is once
	again := testSession("a", "h", "h:a")
	r.remove(again) // not the session that a has
	if got := namesOf(r.ready); !slices.Equal(got, []string{"a", "c", "d"}) || !r.has(sessions["a"]) || r.has(again) {
		t.Errorf("ready are %v, want a, c and d", got)
	}
	sessions["a"].numerics, sessions["a"].speed = "x", 5
	r.unready()
	if a := sessions["a"]; len(r.ready) > 0 || a.ready || a.numerics != "" || a.speed != 0 || !r.has(a) {
		t.Errorf("after the job %d are ready and a is %+v, want it connected and unknown", len(r.ready), a)
	}
}

func TestRosterLetsTheRestingInWhereTooFewAreLeft(t *testing.T) {
	r := newRoster()
	now := time.Unix(1000, 0)
	for id, change := range map[string]func(*session){
		"a": func(*session) {},
		"b": func(s *session) { s.standsDown = true },
		"c": func(s *session) { s.restsUntil = now.Add(time.Second) },
		"d": func(s *session) { s.restsUntil = now },
	} {
		s := testSession(id, "h", "h:"+id)
		change(s)
		r.add(s)
		r.enlist(s)
	}
	for _, c := range []struct {
		least int
		want  []string
	}{
		{1, []string{"a", "d"}},
		{2, []string{"a", "d"}},
		{3, []string{"a", "c", "d"}},
		{9, []string{"a", "c", "d"}},
	} {
		if got := namesOf(r.available(now, c.least)); !slices.Equal(got, c.want) {
			t.Errorf("with at least %d wanted, available are %v, want %v", c.least, got, c.want)
		}
	}
}

func TestRosterKnowsTheSilent(t *testing.T) {
	r := newRoster()
	for id, heard := range map[string]int64{"a": 10, "b": 30, "c": 20} {
		s := testSession(id, "h", "h:"+id)
		s.heardAt.Store(time.Unix(heard, 0).UnixNano())
		r.add(s)
	}
	if got := namesOf(r.silent(time.Unix(25, 0))); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("silent are %v, want a and c", got)
	}
}
