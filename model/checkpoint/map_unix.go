//go:build unix

package checkpoint

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// mapMin is the size in bytes from which a file is mapped rather than read: a
// mapping costs more than reading a few pages.
const mapMin = 1 << 16

// mapFile returns the contents of a regular file and a function that releases
// them. Pages are shared with the page cache and with other processes.
func mapFile(path string) (data []byte, unmap func() error, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, bareError(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, nil, bareError(err)
	}
	if !st.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("is %v, want a regular file", st.Mode().Type())
	}
	if st.Size() < mapMin {
		data, err = io.ReadAll(f)
		return data, func() error { return nil }, bareError(err)
	}
	if int64(int(st.Size())) != st.Size() {
		return nil, nil, fmt.Errorf("%d bytes do not fit the address space", st.Size())
	}
	data, err = unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, fmt.Errorf("map %d bytes: %w", st.Size(), err)
	}
	return data, func() error { return unix.Munmap(data) }, nil
}
