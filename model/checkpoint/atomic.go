package checkpoint

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// WriteFileAtomic writes data to path so that a reader, and a crash at any
// moment, finds the old file or the whole new one. The directory must exist.
// A failed write, such as on a full disk, leaves path as it was and no other
// file beside it.
func WriteFileAtomic(path string, data []byte) error {
	return writeAtomic(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// writeAtomic writes what fill writes into a new file beside path, makes it
// durable and renames it to path.
func writeAtomic(path string, fill func(io.Writer) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	dir := filepath.Dir(path)
	f, err := createBeside(path)
	if err != nil {
		return bareError(err)
	}
	tmp := f.Name()
	renamed := false
	defer func() {
		if !renamed {
			err = errors.Join(err, bareError(os.Remove(tmp)))
		}
	}()

	w := bufio.NewWriterSize(f, 1<<20)
	err = fill(w)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return bareError(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return bareError(err)
	}
	renamed = true
	return bareError(syncDir(dir))
}

// createBeside creates a new file in path's directory with the permissions a
// plain os.Create would give it, which os.CreateTemp does not.
func createBeside(path string) (*os.File, error) {
	for {
		var r [8]byte
		if _, err := rand.Read(r[:]); err != nil {
			return nil, err
		}
		name := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+hex.EncodeToString(r[:])+".tmp")
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
	}
}

// syncDir makes a rename in dir durable. Windows cannot sync a directory, and
// some file systems refuse to; their rename is as durable as they can make it.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.EINVAL) {
		d.Close()
		return err
	}
	return d.Close()
}

// bareError drops the operation and path that package os puts before an error,
// for errors that name the path once already.
func bareError(err error) error {
	switch e := err.(type) {
	case *fs.PathError:
		return e.Err
	case *os.LinkError:
		return e.Err
	}
	return err
}
