package blobs

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/dptune/dpt/coordinator/ids"
)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func blobOf(data []byte) ids.Blob { return ids.Blob{Digest: ids.Sum(data), Size: int64(len(data))} }

// put writes data as the blob b, in pieces, and returns the first error.
func put(s *Store, b ids.Blob, data []byte) error {
	w, err := s.Create(b)
	if err != nil {
		return err
	}
	for len(data) > 0 {
		n := min(len(data), 3)
		if _, err := w.Write(data[:n]); err != nil {
			return errors.Join(err, w.Abort())
		}
		data = data[n:]
	}
	return w.Commit()
}

func get(s *Store, d ids.Digest) ([]byte, error) {
	r, err := s.Open(d)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestBlobsStay(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blobs")
	s := open(t, dir)
	if s.Any() || len(files(t, dir)) > 0 {
		t.Error("a store without blobs has files")
	}
	for _, data := range [][]byte{[]byte("one"), bytes.Repeat([]byte("two"), 100), {7}} {
		b := blobOf(data)
		if s.Has(b.Digest) {
			t.Errorf("the store has %q before it was written", data)
		}
		for range 2 { // to store it again does no harm
			if err := put(s, b, data); err != nil {
				t.Fatal(err)
			}
		}
		for _, s := range []*Store{s, open(t, dir)} {
			if got, err := get(s, b.Digest); !s.Has(b.Digest) || err != nil || !bytes.Equal(got, data) {
				t.Errorf("got %q (%v), want %q", got, err, data)
			}
		}
	}
	if _, err := get(s, ids.Sum([]byte("other"))); !errors.Is(err, ErrMissing) {
		t.Errorf("a blob that the store does not have: %v", err)
	}

	// A reader of a blob that is removed meanwhile still reads all of it.
	one := ids.Sum([]byte("one"))
	r, err := s.Open(one)
	if err != nil {
		t.Fatal(err)
	}
	keep := ids.Sum([]byte{7})
	if err := s.Keep(func(d ids.Digest) bool { return d == keep }); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != "one" {
		t.Errorf("read %q (%v) of a blob that was removed meanwhile, want all of it", got, err)
	}
	r.Close()
	if names := files(t, dir); len(names) != 1 || names[0] != keep.String() || s.Has(one) {
		t.Errorf("files %v are left, want %s", names, keep)
	}
}

// Bytes that are not those of the announced blob leave nothing, and do not touch the other blobs.
func TestWrongBytesLeaveNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	old := []byte("the old one")
	if err := put(s, blobOf(old), old); err != nil {
		t.Fatal(err)
	}
	data := []byte("what was announced")
	b := blobOf(data)
	for _, c := range []struct {
		name string
		data []byte
		want string // part of the error
	}{
		{"torn", data[:10], "ends after 10 bytes, want 18"},
		{"empty", nil, "ends after 0 bytes, want 18"},
		{"more", append(bytes.Clone(data), '!'), "19 bytes and more, want 18"},
		{"other", bytes.ToUpper(data),
			"has digest " + ids.Sum(bytes.ToUpper(data)).Short() + ", want " + b.Digest.Short()},
	} {
		err := put(s, b, c.data)
		if content, ok := errors.AsType[*ContentError](err); !ok || !strings.Contains(content.Text, c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
		if s.Has(b.Digest) || len(files(t, dir)) != 1 {
			t.Errorf("%s leaves %v, want the old blob alone", c.name, files(t, dir))
		}
	}
	if got, err := get(s, ids.Sum(old)); err != nil || !bytes.Equal(got, old) {
		t.Errorf("the old blob is %q (%v)", got, err)
	}
}

// full is a disk with room for a few more bytes, and may fail to sync.
type full struct {
	directory
	room    int   // bytes that can still be written
	syncErr error // nil: Sync works
}

func (d *full) Create(name string) (File, error) {
	f, err := d.directory.Create(name)
	return fullFile{f, d, d.pathOf(name)}, err
}

type fullFile struct {
	File
	disk *full
	path string
}

func (f fullFile) Write(p []byte) (int, error) {
	n := min(len(p), f.disk.room)
	f.disk.room -= n
	if n, err := f.File.Write(p[:n]); err != nil || n < len(p) {
		return n, errors.Join(err, &os.PathError{Op: "write", Path: f.path, Err: syscall.ENOSPC})
	}
	return n, nil
}

func (f fullFile) Sync() error { return errors.Join(f.disk.syncErr, f.File.Sync()) }

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	disk := &full{directory: directory{path: dir}, room: 1 << 20}
	s, err := OpenOn(disk, dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	old, data := []byte("the old one"), []byte("the new one")
	if err := put(s, blobOf(old), old); err != nil {
		t.Fatal(err)
	}
	disk.room = 5
	err = put(s, blobOf(data), data)
	if !errors.Is(err, syscall.ENOSPC) ||
		!strings.Contains(err.Error(), "after 5 bytes of 11") || !strings.Contains(err.Error(), dir) {
		t.Errorf("error %v, want one that names the file, the bytes written and why", err)
	}
	if s.Has(ids.Sum(data)) || !s.Has(ids.Sum(old)) || len(files(t, dir)) != 1 {
		t.Errorf("files %v are left, want the old blob's", files(t, dir))
	}
	disk.room, disk.syncErr = 1<<20, syscall.EIO
	err = put(s, blobOf(data), data)
	if !errors.Is(err, syscall.EIO) || s.Has(ids.Sum(data)) || len(files(t, dir)) != 1 {
		t.Errorf("a blob that could not be made durable: %v, files %v", err, files(t, dir))
	}
	disk.syncErr = nil
	if err := put(s, blobOf(data), data); err != nil || !s.Has(ids.Sum(data)) {
		t.Errorf("with room again: %v", err)
	}
}

// A reader notices damage, and a store that is opened again sets the damaged blob aside and logs
// what it found.
func TestDamage(t *testing.T) {
	good, bad := []byte("good"), []byte("to be damaged")
	flipped, torn := bytes.Replace(bad, []byte("m"), []byte("n"), 1), bad[:5]
	for _, c := range []struct {
		name   string
		data   []byte // what the file holds in place of bad
		read   string // part of the error of reading it
		logged string // part of what the store that is opened again logs
	}{
		{"flipped", flipped, "has digest", "of 13 bytes has digest " + ids.Sum(flipped).Short()},
		{"torn", torn, "has 5 bytes, want 13", "of 5 bytes has digest " + ids.Sum(torn).Short()},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			for _, data := range [][]byte{good, bad} {
				if err := put(s, blobOf(data), data); err != nil {
					t.Fatal(err)
				}
			}
			d := ids.Sum(bad)
			partial := d.String() + ".3.tmp"
			for name, data := range map[string][]byte{d.String(): c.data, partial: {'x'}, "stray": {'x'}} {
				if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			_, err := get(s, d)
			if !errors.Is(err, ErrDamaged) ||
				!strings.Contains(err.Error(), c.read) || !strings.Contains(err.Error(), dir) {
				t.Errorf("read with %v, want an error that names the file and %q", err, c.read)
			}

			var log bytes.Buffer
			again, err := Open(dir, slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			if again.Has(d) || !again.Has(ids.Sum(good)) {
				t.Errorf("opened again the store has the damaged blob: %v, the good one: %v; want the good one alone",
					again.Has(d), again.Has(ids.Sum(good)))
			}
			for _, want := range []string{c.logged, "stray"} {
				if !strings.Contains(log.String(), want) {
					t.Errorf("opened again the store does not log %q:\n%s", want, &log)
				}
			}
			if _, err := os.Stat(filepath.Join(dir, partial)); !errors.Is(err, os.ErrNotExist) {
				t.Error("the partial file of a process that died is still there")
			}
			if err := put(again, blobOf(bad), bad); err != nil || !again.Has(d) {
				t.Errorf("the damaged blob cannot be stored again: %v", err)
			}
			if err := again.Discard(d); err != nil || again.Has(d) {
				t.Errorf("discarded: %v", err)
			}
		})
	}
}
