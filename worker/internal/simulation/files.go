package simulation

import (
	"bytes"
	"io"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/dptune/dpt/coordinator/blobs"
)

// files is the disk as the store of large trainer states sees it. What is synced and renamed stays; a crash loses the rest.
type files struct{ *mount }

// List implements blobs.Disk.
func (f files) List() ([]string, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	return slices.Sorted(maps.Keys(f.view.files)), nil
}

// Create implements blobs.Disk.
func (f files) Create(name string) (blobs.File, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.failing != nil && !f.frozen {
		return nil, f.failing
	}
	return &written{files: f, name: name}, nil
}

// Open implements blobs.Disk.
func (f files) Open(name string) (io.ReadCloser, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	data, ok := f.view.files[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// Rename implements blobs.Disk.
func (f files) Rename(from, to string) error {
	return f.both(func(d *disk) error {
		data, ok := d.files[from]
		if !ok {
			return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
		}
		delete(d.files, from)
		d.files[to] = data
		return nil
	})
}

// Remove implements blobs.Disk.
func (f files) Remove(name string) error {
	return f.both(func(d *disk) error { delete(d.files, name); return nil })
}

// both changes what the process sees and, unless it has crashed, what stays.
func (f files) both(change func(*disk) error) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.failing != nil && !f.frozen {
		return f.failing
	}
	if !f.frozen {
		if err := change(f.disk); err != nil {
			return err
		}
	}
	return change(f.view)
}

// written is a file being written. It is there from its Sync on.
type written struct {
	files
	name string
	data []byte
}

func (w *written) Write(b []byte) (int, error) {
	w.data = append(w.data, b...)
	return len(b), nil
}

// Sync implements blobs.File. It takes a disk's time.
func (w *written) Sync() error {
	w.disk.mu.Lock()
	took := between(w.rand, 50*time.Microsecond, 3*time.Millisecond)
	w.disk.mu.Unlock()
	time.Sleep(took)
	return w.both(func(d *disk) error { d.files[w.name] = bytes.Clone(w.data); return nil })
}

func (w *written) Close() error { return nil }
