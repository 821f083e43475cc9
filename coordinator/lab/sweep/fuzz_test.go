package sweep

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
)

// FuzzParse parses arbitrary results files: it returns an error, or results that their own encoding
// gives again, and cuts off no more than a torn last line.
func FuzzParse(f *testing.F) {
	var good []byte
	for seed := range uint64(2) {
		x := resultWith(seed)
		x.Key = x.Run.Key()
		line, err := json.Marshal(x)
		if err != nil {
			f.Fatal(err)
		}
		good = append(append(good, line...), '\n')
	}
	f.Add(good)
	f.Add(good[:len(good)-9])
	f.Add(append(good, good...))
	f.Add([]byte("{}\n"))
	f.Add([]byte("\n"))
	f.Add([]byte(`{"task":"rte","method":"dpt","seed":1,"key":"embedded-rte-dpt-seed1","metrics":{"a":1e999}}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, size, err := parse("results.jsonl", data)
		if err != nil {
			return
		}
		if size < 0 || size > int64(len(data)) || bytes.IndexByte(data[size:], '\n') >= 0 ||
			len(list) != bytes.Count(data[:size], []byte{'\n'}) {
			t.Fatalf("%d results in the first %d of %d bytes, want one in every whole line", len(list), size, len(data))
		}
		var again []byte
		for _, x := range list {
			line, err := json.Marshal(x)
			if err != nil {
				t.Fatalf("result %+v: %v", x, err)
			}
			again = append(append(again, line...), '\n')
		}
		back, _, err := parse("results.jsonl", again)
		if err != nil || len(list) > 0 && !reflect.DeepEqual(back, list) {
			t.Errorf("results %+v come back as %+v, %v", list, back, err)
		}
	})
}
