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

// blobDisk is the disk as the store of large trainer states sees it. A crash loses what is not
// synced and renamed.
type blobDisk struct{ *mount }

// List implements blobs.Disk.
func (f blobDisk) List() ([]string, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	return slices.Sorted(maps.Keys(f.view.files)), nil
}

// Create implements blobs.Disk.
func (f blobDisk) Create(name string) (blobs.File, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.writeErr != nil && !f.crashed {
		return nil, f.writeErr
	}
	return &blobFile{blobDisk: f, name: name}, nil
}

// Open implements blobs.Disk.
func (f blobDisk) Open(name string) (io.ReadCloser, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	data, ok := f.view.files[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// Rename implements blobs.Disk.
func (f blobDisk) Rename(from, to string) error {
	return f.update(func(d *disk) error {
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
func (f blobDisk) Remove(name string) error {
	return f.update(func(d *disk) error { delete(d.files, name); return nil })
}

// update changes what the process sees and, unless it has crashed, what is on the disk.
func (f blobDisk) update(change func(*disk) error) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.writeErr != nil && !f.crashed {
		return f.writeErr
	}
	if !f.crashed {
		if err := change(f.disk); err != nil {
			return err
		}
	}
	return change(f.view)
}

// blobFile is a file that is being written. It exists once it is synced.
type blobFile struct {
	blobDisk
	name string
	data []byte
}

func (w *blobFile) Write(b []byte) (int, error) {
	w.data = append(w.data, b...)
	return len(b), nil
}

// Sync implements blobs.File. It takes as long as a disk takes.
func (w *blobFile) Sync() error {
	w.disk.mu.Lock()
	took := between(w.rand, 50*time.Microsecond, 3*time.Millisecond)
	w.disk.mu.Unlock()
	time.Sleep(took)
	return w.update(func(d *disk) error { d.files[w.name] = bytes.Clone(w.data); return nil })
}

func (w *blobFile) Close() error { return nil }
