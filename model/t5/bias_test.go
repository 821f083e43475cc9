package t5

import "testing"

// TestBuckets compares with T5Attention._relative_position_bucket of Transformers, as runs of
// distances that share a bucket.
func TestBuckets(t *testing.T) {
	var golden []struct {
		Buckets, MaxDistance int
		Bidirectional        bool
		Lo, Hi               int
		Runs                 [][2]int // first distance, bucket
	}
	readJSON(t, "testdata/buckets.json", &golden)
	if len(golden) == 0 {
		t.Fatal("testdata/buckets.json is empty")
	}
	for _, g := range golden {
		var want int
		runs := g.Runs
		for d := g.Lo; d <= g.Hi; d++ {
			if len(runs) > 0 && runs[0][0] == d {
				want, runs = runs[0][1], runs[1:]
			}
			if got := bucket(d, g.Bidirectional, g.Buckets, g.MaxDistance); got != want {
				t.Errorf("%d buckets to distance %d, bidirectional %v: distance %d is in bucket %d, want %d",
					g.Buckets, g.MaxDistance, g.Bidirectional, d, got, want)
			}
			// newBias keeps distances up to maxDistance and repeats the ends.
			end := max(min(d, g.MaxDistance), -g.MaxDistance)
			if got := bucket(end, g.Bidirectional, g.Buckets, g.MaxDistance); got != want {
				t.Errorf("%d buckets to distance %d: distance %d is in bucket %d, its end %d in %d",
					g.Buckets, g.MaxDistance, d, want, end, got)
			}
		}
	}
}
