package blobs

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
)

// Disk is where a store keeps its files, in one flat directory. The store calls its methods from
// any goroutine.
type Disk interface {
	// List names the files in the directory, in any order; none if the directory does not exist.
	List() ([]string, error)
	// Create creates a file for writing. It is an error if the file exists.
	Create(name string) (File, error)
	// Open opens a file for reading. The error wraps fs.ErrNotExist if there is no such file. A
	// reader of a file that is removed meanwhile still reads all of it.
	Open(name string) (io.ReadCloser, error)
	// Rename renames a file and replaces what has the new name. Once it returns, the new name
	// survives a crash.
	Rename(from, to string) error
	// Remove removes a file. If there is none, the error is nil or wraps fs.ErrNotExist.
	Remove(name string) error
}

// File is a file being written.
type File interface {
	io.WriteCloser
	// Sync returns once all bytes written so far survive a crash.
	Sync() error
}

// directory is a Disk in the file system. It creates its directory with the first file.
type directory struct {
	path string

	mu      sync.Mutex
	created bool // by create; guarded by mu
}

func (d *directory) pathOf(name string) string { return filepath.Join(d.path, name) }

func (d *directory) List() (names []string, err error) {
	entries, err := os.ReadDir(d.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func (d *directory) Create(name string) (File, error) {
	if err := d.create(); err != nil {
		return nil, err
	}
	return os.OpenFile(d.pathOf(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
}

// create creates the directory so that it survives a crash.
func (d *directory) create() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.created {
		return nil
	}
	if err := os.MkdirAll(d.path, 0o755); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(d.path)); err != nil {
		return err
	}
	d.created = true
	return nil
}

func (d *directory) Open(name string) (io.ReadCloser, error) { return os.Open(d.pathOf(name)) }

func (d *directory) Rename(from, to string) error {
	if err := os.Rename(d.pathOf(from), d.pathOf(to)); err != nil {
		return err
	}
	return syncDir(d.path)
}

func (d *directory) Remove(name string) error { return os.Remove(d.pathOf(name)) }

// syncDir makes renames in dir durable, as far as the system can.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.EINVAL) {
		return errors.Join(err, d.Close())
	}
	return d.Close()
}
