package pretrain

import "math"

// Ids of the byte-level vocabulary: see tokenizer.NewByteLevel.
const (
	eosID         = 1
	byteOffset    = 3
	firstSentinel = byteOffset + 256
)

// encode returns the ids of a text's bytes with </s> last.
func encode(text string) []int32 {
	ids := make([]int32, 0, len(text)+1)
	for i := range len(text) {
		ids = append(ids, int32(text[i])+byteOffset)
	}
	return append(ids, eosID)
}

// corrupt takes random spans out of a text, T5's objective (Raffel et al., 2020,
// random_spans_noise_mask and noise_span_to_unique_sentinel) on ByT5's ids: the source has a
// sentinel in the place of each span, the target is each sentinel followed by its span. The share
// noise of the bytes is taken out, in at most as many spans as there are sentinels, of mean bytes
// on average. A text has at least two bytes.
func corrupt(text string, noise, mean float64, sentinels int, r *random) (source, target []int32) {
	n := len(text)
	out := min(max(int(math.RoundToEven(float64(n)*noise)), 1), n-1)
	spans := min(max(int(math.RoundToEven(float64(out)/mean)), 1), sentinels, out, n-out)
	kept, taken := r.partition(n-out, spans), r.partition(out, spans)
	at := 0
	piece := func(ids []int32, length int) []int32 {
		for ; length > 0; length-- {
			ids = append(ids, int32(text[at])+byteOffset)
			at++
		}
		return ids
	}
	for i := range spans {
		source = append(piece(source, kept[i]), int32(firstSentinel+i))
		target = piece(append(target, int32(firstSentinel+i)), taken[i])
	}
	return append(source, eosID), append(target, eosID)
}
