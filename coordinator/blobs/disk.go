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

// Disk is where a store keeps its files, in one flat directory. Its methods may be called from any goroutine.
type Disk interface {
	// List names the files that are there.
	List() ([]string, error)
	// Create makes a file, which is not there yet, for writing.
	Create(name string) (File, error)
	// Open opens a file for reading; an error is fs.ErrNotExist where there is none. Whoever reads a file that is removed reads on.
	Open(name string) (io.ReadCloser, error)
	// Rename gives a file another name, in place of what has it. It survives a crash once it has returned.
	Rename(from, to string) error
	Remove(name string) error
}

// File is a file being written.
type File interface {
	io.WriteCloser
	// Sync returns when what was written would survive a crash.
	Sync() error
}

// directory is a Disk in the file system. It makes its directory with the first file.
type directory struct {
	path string
	mu   sync.Mutex
	made bool
}

func (d *directory) in(name string) string { return filepath.Join(d.path, name) }

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
	if err := d.make(); err != nil {
		return nil, err
	}
	return os.OpenFile(d.in(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
}

// make makes the directory, durably.
func (d *directory) make() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.made {
		return nil
	}
	if err := os.MkdirAll(d.path, 0o755); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(d.path)); err != nil {
		return err
	}
	d.made = true
	return nil
}

func (d *directory) Open(name string) (io.ReadCloser, error) { return os.Open(d.in(name)) }

func (d *directory) Rename(from, to string) error {
	if err := os.Rename(d.in(from), d.in(to)); err != nil {
		return err
	}
	return syncDir(d.path)
}

func (d *directory) Remove(name string) error { return os.Remove(d.in(name)) }

// syncDir makes a rename in dir durable, as far as the system can.
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
