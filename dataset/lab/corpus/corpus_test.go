package corpus

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
	"unicode"
)

// The documentation of a pre-trained model names its seed. The same seed must give the same texts,
// always and on every platform.
func TestBytesNeverChange(t *testing.T) {
	h := sha256.New()
	for i := range uint64(2000) {
		p, name := Skill(1, i)
		h.Write([]byte(name + "\n" + p.Source + "\n" + p.Target + "\n" + Document(1, i) + "\n"))
		for _, of := range []func(seed, i uint64) (Pair, string){Several, Easy, Table, Keys} {
			p, name = of(1, i)
			h.Write([]byte(name + "\n" + p.Source + "\n" + p.Target + "\n"))
		}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != digest {
		t.Errorf("the streams' SHA-256 is %s, want %s: the model that was trained on them cannot be made again",
			got, digest)
	}
}

// Each text is a function of the seed and the number alone.
func TestPure(t *testing.T) {
	backward := make([]string, 200)
	for i := len(backward) - 1; i >= 0; i-- {
		p, _ := Skill(7, uint64(i))
		backward[i] = p.Source + p.Target + Document(7, uint64(i))
	}
	for i, want := range backward {
		p, _ := Skill(7, uint64(i))
		if got := p.Source + p.Target + Document(7, uint64(i)); got != want {
			t.Errorf("text %d is %q, and was %q", i, got, want)
		}
		if q, _ := Skill(8, uint64(i)); q == p {
			t.Errorf("text %d is the same for two seeds: %q", i, q.Source)
		}
	}
}

func TestShapes(t *testing.T) {
	const n = 40_000
	count := map[string]int{}
	total := 0
	for _, s := range skills {
		total += s.weight
	}
	for i := range uint64(n) {
		p, name := Skill(3, i)
		count[name]++
		if len(p.Source) > 220 || len(p.Target) == 0 || len(p.Target) > 60 {
			t.Errorf("%s: source of %d bytes, target of %d: %q -> %q",
				name, len(p.Source), len(p.Target), p.Source, p.Target)
		}
		d := Document(3, i)
		if len(d) < 50 || len(d) > 450 {
			t.Errorf("document %d has %d bytes, want 50 to 450: %q", i, len(d), d)
		}
		texts := []string{p.Source, p.Target, d}
		for _, of := range []func(seed, i uint64) (Pair, string){Several, Easy, Table, Keys} {
			q, name := of(3, i)
			count[name]++
			if len(q.Source) > 300 || len(q.Target) == 0 || len(q.Target) > 90 {
				t.Errorf("%s: source of %d bytes, target of %d: %q -> %q",
					name, len(q.Source), len(q.Target), q.Source, q.Target)
			}
			texts = append(texts, q.Source, q.Target)
		}
		for _, text := range texts {
			if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) ||
				strings.ContainsAny(text, "{}") {
				t.Errorf("%s: %q has a letter beyond printable ASCII, or a placeholder", name, text)
			}
		}
	}
	for _, s := range skills {
		if want := n * s.weight / total; count[s.name] < want/2 || count[s.name] > 2*want {
			t.Errorf("%s comes up %d times of %d, want about %d", s.name, count[s.name], n, want)
		}
	}
	for _, e := range exams {
		total := len(examBag) + len(otherBag)
		if want := n * e.weight / total; count["several-"+e.name] < want/2 || count["several-"+e.name] > 2*want {
			t.Errorf("several-%s comes up %d times of %d, want about %d", e.name, count["several-"+e.name], n, want)
		}
	}
}

// Neither the kind of judgement nor a label's place in the mapping may tell whether the answer is
// yes.
func TestJudgementsAreEven(t *testing.T) {
	count, yes, front := map[string]int{}, map[string]int{}, map[string]int{}
	for i := range uint64(60_000) {
		p, name := Skill(5, i)
		if !strings.HasPrefix(name, "judge-") || name == "judge-belief" {
			continue
		}
		head, _, _ := strings.Cut(p.Source, ": ")
		if one, other, named := strings.Cut(head, " or "); named {
			name += ", answers named"
			if p.Target != one && p.Target != other {
				t.Fatalf("%s: target %q is no answer of %q", name, p.Target, p.Source)
			}
			yes[name] += positive(p.Target)
		} else {
			for n, entry := range strings.Split(head, " ") {
				if key, label, _ := strings.Cut(entry, "="); label == p.Target {
					yes[name] += positive(key)
					front[name] += 1 - n
				}
			}
			if mapped := strings.Contains(head+" ", "="+p.Target+" "); !mapped {
				t.Fatalf("%s: target %q is no label of %q", name, p.Target, p.Source)
			}
		}
		count[name]++
	}
	for name, n := range count {
		even := func(what string, k int) {
			if d := float64(k) - float64(n)/2; d*d > 16*float64(n)/4 { // four standard deviations
				t.Errorf("%s: the answer is %s %d of %d times, want half", name, what, k, n)
			}
		}
		even("yes", yes[name])
		if front[name] > 0 {
			even("the first label", front[name])
		}
	}
	if len(count) != 12 {
		t.Errorf("%d kinds of judgement come up, want six in two ways: %v", len(count), count)
	}
}

// The same for pairs that ask several things. The answer to one must not tell the answer to
// another, either.
func TestSeveralAreEven(t *testing.T) {
	n, yes, pairs, same := 0, 0, 0, 0
	for i := range uint64(60_000) {
		p, name := Several(5, i)
		targets := strings.FieldsFunc(p.Target, func(r rune) bool { return !unicode.IsLetter(r) })
		head, _, named := strings.Cut(p.Source, ": ")
		if !named || head != "yes or no" {
			continue
		}
		for j, w := range targets {
			if w != "yes" && w != "no" {
				t.Fatalf("%s: %q is no answer to %q", name, w, p.Source)
			}
			n++
			yes += positive(w)
			if j > 0 && name == "several-scene" {
				pairs++
				if w == targets[j-1] {
					same++
				}
			}
		}
	}
	if n < 5000 || float64(yes) < 0.45*float64(n) || float64(yes) > 0.55*float64(n) {
		t.Errorf("the answer is yes %d of %d times, want about half of thousands", yes, n)
	}
	if pairs < 500 || float64(same) < 0.3*float64(pairs) || float64(same) > 0.7*float64(pairs) {
		t.Errorf("an answer is the one before %d of %d times, want about half", same, pairs)
	}
}

func positive(key string) int {
	if key == "yes" || key == "same" {
		return 1
	}
	return 0
}

func BenchmarkSkill(b *testing.B) {
	n := 0
	for i := range b.N {
		p, _ := Skill(1, uint64(i))
		n += len(p.Source) + len(p.Target)
	}
	b.SetBytes(int64(n / b.N))
}

func BenchmarkDocument(b *testing.B) {
	n := 0
	for i := range b.N {
		n += len(Document(1, uint64(i)))
	}
	b.SetBytes(int64(n / b.N))
}

// digest is the SHA-256 of the first texts of seed 1.
const digest = "e029b9726a180fc8f0dd3a0825f92ef096fb181123bafe34f79392b39770e126"
