package tokenizer

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// trie finds the keys that are prefixes of a text. It is a double array: the
// child of unit p under byte c is unit p.base^c, and is p's if its check names
// p. A unit carries its key's id and score, so that a step of the search reads
// one 16-byte unit and nothing else.
type trie struct {
	units  []unit // a multiple of 256, unit 0 is the root
	maxLen int    // bytes of the longest key
}

type unit struct {
	base  uint32
	check uint32  // index of the parent; noParent if the slot is free
	id    int32   // -1 where no key ends
	score float32 // of the key that ends here
}

const (
	noParent = ^uint32(0)
	rootMark = ^uint32(1) // the root's check: taken, and no unit's child
	block    = 256
	// window is how many of the newest blocks a build looks for free slots in.
	// Older ones are nearly full; searching them all would make it quadratic.
	window = 16
)

type trieKey struct {
	text  string
	id    int32
	score float32
}

// newTrie builds a trie of keys, which it sorts in place. Keys must be distinct
// and not empty. Time and memory are proportional to the keys' total length.
func newTrie(keys []trieKey) (*trie, error) {
	slices.SortFunc(keys, func(a, b trieKey) int { return strings.Compare(a.text, b.text) })
	t := &trie{}
	for i, k := range keys {
		if k.text == "" {
			return nil, errors.New("a piece is empty, want at least one byte")
		}
		if i > 0 && keys[i-1].text == k.text {
			lo, hi := min(keys[i-1].id, k.id), max(keys[i-1].id, k.id)
			return nil, fmt.Errorf("pieces %d and %d are both %q, want distinct pieces", lo, hi, k.text)
		}
		t.maxLen = max(t.maxLen, len(k.text))
	}
	b := builder{trie: t, head: -1, tail: -1}
	b.grow()
	b.take(0, rootMark)
	b.insert(keys, 0, 0)
	return t, nil
}

// longest gives the id of the longest key that s starts with, and its length in
// bytes; the length is 0 if there is none.
func (t *trie) longest(s string) (id int32, n int) {
	cur, base := uint32(0), t.units[0].base
	for i := 0; i < len(s); i++ {
		next := base ^ uint32(s[i])
		u := &t.units[next]
		if u.check != cur {
			break
		}
		cur, base = next, u.base
		if u.id >= 0 {
			id, n = u.id, i+1
		}
	}
	return id, n
}

// builder keeps the free slots of the newest blocks in a doubly linked list, in
// order of index.
type builder struct {
	*trie
	next, prev []int32
	head, tail int32
}

// insert gives unit at the keys that share its path of depth bytes.
func (b *builder) insert(keys []trieKey, at uint32, depth int) {
	if len(keys[0].text) == depth { // sorted: the key that ends here is first
		b.units[at].id, b.units[at].score = keys[0].id, keys[0].score
		keys = keys[1:]
	}
	if len(keys) == 0 {
		return
	}
	var labels [256]byte
	n := 0
	for i, k := range keys {
		if c := k.text[depth]; i == 0 || c != labels[n-1] {
			labels[n] = c
			n++
		}
	}
	base := b.place(labels[:n])
	b.units[at].base = base
	for _, c := range labels[:n] {
		b.take(base^uint32(c), at)
	}
	for len(keys) > 0 {
		c := keys[0].text[depth]
		end, _ := slices.BinarySearchFunc(keys, int(c)+1, func(k trieKey, c int) int {
			return cmp.Compare(int(k.text[depth]), c)
		})
		b.insert(keys[:end], base^uint32(c), depth+1)
		keys = keys[end:]
	}
}

// place finds a base under which the slots of all labels are free.
func (b *builder) place(labels []byte) uint32 {
	first := uint32(labels[0])
next:
	for f := b.head; f >= 0; f = b.next[f] {
		base := uint32(f) ^ first
		for _, c := range labels[1:] {
			if b.units[base^uint32(c)].check != noParent {
				continue next
			}
		}
		return base
	}
	base := uint32(len(b.units))
	b.grow()
	return base
}

// grow adds a block of free slots and gives up on those of the block that leaves
// the window.
func (b *builder) grow() {
	start := len(b.units)
	for i := start; i < start+block; i++ {
		b.units = append(b.units, unit{check: noParent, id: -1})
		b.prev = append(b.prev, b.tail)
		b.next = append(b.next, -1)
		if b.tail >= 0 {
			b.next[b.tail] = int32(i)
		} else {
			b.head = int32(i)
		}
		b.tail = int32(i)
	}
	for oldest := start - (window-1)*block; b.head >= 0 && int(b.head) < oldest; {
		b.unlink(b.head)
	}
}

func (b *builder) take(slot, parent uint32) {
	b.units[slot].check = parent
	b.unlink(int32(slot))
}

func (b *builder) unlink(i int32) {
	if p := b.prev[i]; p >= 0 {
		b.next[p] = b.next[i]
	} else {
		b.head = b.next[i]
	}
	if n := b.next[i]; n >= 0 {
		b.prev[n] = b.prev[i]
	} else {
		b.tail = b.prev[i]
	}
}
