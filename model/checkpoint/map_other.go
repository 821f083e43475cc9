//go:build !unix

package checkpoint

import (
	"fmt"
	"os"
)

// mapFile returns the contents of a regular file and a function that releases
// them; here by reading the whole file.
func mapFile(path string) (data []byte, unmap func() error, err error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, nil, bareError(err)
	}
	if !st.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("is %v, want a regular file", st.Mode().Type())
	}
	data, err = os.ReadFile(path)
	return data, func() error { return nil }, bareError(err)
}
