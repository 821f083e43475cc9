package pretrain

import "testing"

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
