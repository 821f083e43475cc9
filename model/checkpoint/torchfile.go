package checkpoint

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// zipMagic begins what torch.save has written since PyTorch 1.6, a zip archive; before, it wrote
// several pickles in a row, which begin with legacyMagic.
var (
	zipMagic    = []byte("PK\x03\x04")
	legacyMagic = []byte("\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.")
	lfsMagic    = []byte("version https://git-lfs.github.com/spec/")
)

// maxPickle limits a state dictionary's pickle, which holds names and shapes; its tensors lie
// beside it.
const maxPickle = 64 << 20

// parseWeights reads a file of tensors: torch.save's if it begins as one, else safetensors.
func parseWeights(name string, data []byte) (*File, error) {
	if !bytes.HasPrefix(data, zipMagic) && !bytes.HasPrefix(data, legacyMagic) {
		if strings.HasSuffix(name, ".bin") && checkLFS(data) == nil {
			return nil, fmt.Errorf("read %s: is not what torch.save writes, want its zip archive", name)
		}
		return Parse(name, data)
	}
	f := &File{name: name, data: data, metadata: make(map[string]string)}
	if err := f.parseTorch(); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return f, nil
}

// checkLFS returns an error if data is a pointer of Git LFS in place of the file itself.
func checkLFS(data []byte) error {
	if bytes.HasPrefix(data, lfsMagic) {
		return errors.New("is a Git LFS pointer, not the file itself: fetch it with git lfs pull")
	}
	return nil
}

// parseTorch reads a state dictionary that torch.save wrote: an archive of data.pkl, which names
// the tensors, and their storages in data/KEY, uncompressed. The pickle makes nothing but tensors.
//
// Of several names of one tensor, as a tied output projection and its table, it keeps the first in
// the order of the alphabet, and shared.weight before all others: the same that Transformers keeps
// in model.safetensors.
func (f *File) parseTorch() error {
	if bytes.HasPrefix(f.data, legacyMagic) {
		return errors.New("is a pickle of before PyTorch 1.6, want a later one or safetensors: " +
			"load it in Python and save it again with safe_serialization=True")
	}
	archive, err := zip.NewReader(bytes.NewReader(f.data), int64(len(f.data)))
	if err != nil {
		return fmt.Errorf("archive of torch.save: %w", err)
	}
	root, files := "", make(map[string]*zip.File, len(archive.File))
	for _, z := range archive.File {
		files[z.Name] = z
		if dir, ok := strings.CutSuffix(z.Name, "/data.pkl"); ok && root == "" {
			root = dir
		}
	}
	if root == "" {
		return errors.New("is a zip archive without data.pkl, want one that torch.save wrote")
	}
	if order := files[root+"/byteorder"]; order != nil {
		text, err := readZip(order, 16)
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(text)) != "little" {
			return fmt.Errorf("byteorder is %.16q, want \"little\"", text)
		}
	}
	pickled, err := readZip(files[root+"/data.pkl"], maxPickle)
	if err != nil {
		return err
	}
	result, err := unpickle(pickled)
	if err != nil {
		return err
	}
	dict, ok := result.(*pickleDict)
	if !ok {
		return fmt.Errorf("holds %s, want a dictionary of tensors", describe(result))
	}

	// The tensors' places in the file.
	f.tensors = make(map[string]entry, len(dict.keys))
	for i, key := range dict.keys {
		name, ok := key.(string)
		if !ok {
			return fmt.Errorf("holds %s as a tensor's name, want a string", describe(key))
		}
		t, ok := dict.values[i].(*pickleTensor)
		if !ok {
			return fmt.Errorf("%.100q is %s, want a tensor", name, describe(dict.values[i]))
		}
		if f.Has(name) {
			return fmt.Errorf("tensor %.100q appears twice", name)
		}
		e, err := t.locate(files[root+"/data/"+t.storage.key], int64(len(f.data)))
		if err != nil {
			return fmt.Errorf("tensor %.100s: %w", name, err)
		}
		f.tensors[name] = e
	}
	f.dropAliases()
	f.names = slices.Sorted(maps.Keys(f.tensors))
	return nil
}

// locate returns the tensor's place, given its storage's file in an archive of fileSize bytes.
func (t *pickleTensor) locate(z *zip.File, fileSize int64) (entry, error) {
	if z == nil {
		return entry{}, fmt.Errorf("its storage data/%.40s is missing", t.storage.key)
	}
	if z.Method != zip.Store {
		return entry{}, fmt.Errorf("its storage %.100s is compressed, want it stored", z.Name)
	}
	size := dtypes[t.storage.dtype].bits / 8
	if t.storage.numel > z.UncompressedSize64/size {
		return entry{}, fmt.Errorf("its storage %.100s is %d bytes, want %d elements of %d: the file is truncated",
			z.Name, z.UncompressedSize64, t.storage.numel, size)
	}
	start, err := z.DataOffset()
	if err != nil {
		return entry{}, fmt.Errorf("its storage %.100s: %w", z.Name, err)
	}
	e := entry{dtype: t.storage.dtype, shape: t.shape}
	if t.elements == 0 {
		return e, nil
	}
	if start < 0 || start > fileSize || t.reach > uint64(fileSize-start)/size {
		return entry{}, fmt.Errorf("its storage %.100s ends beyond the file's %d bytes: the file is truncated",
			z.Name, fileSize)
	}
	e.begin = uint64(start) + t.offset*size
	e.end = uint64(start) + t.reach*size
	if !t.rowMajor() {
		e.strides = t.strides
	}
	return e, nil
}

// dropAliases removes all but one of the names of the same elements in the same order.
func (f *File) dropAliases() {
	first := make(map[string]string)
	f.alias = make(map[string]bool)
	for _, name := range slices.Sorted(maps.Keys(f.tensors)) {
		e := f.tensors[name]
		if e.end == e.begin {
			continue
		}
		place := fmt.Sprint(e.dtype, e.begin, e.shape, e.strides)
		kept, ok := first[place]
		switch {
		case !ok:
			first[place] = name
		case name == "shared.weight":
			first[place] = name
			delete(f.tensors, kept)
			f.alias[kept] = true
		default:
			delete(f.tensors, name)
			f.alias[name] = true
		}
	}
}

// rowMajorCopy returns the elements of a tensor with strides in row-major order.
func rowMajorCopy(data []byte, e entry) []byte {
	size := int(dtypes[e.dtype].bits / 8)
	n := size
	for _, d := range e.shape {
		n *= d
	}
	out := make([]byte, 0, n)
	index, at := make([]int, len(e.shape)), 0
	for len(out) < n {
		out = append(out, data[at*size:(at+1)*size]...)
		for i := len(index) - 1; i >= 0; i-- {
			index[i]++
			at += e.strides[i]
			if index[i] < e.shape[i] {
				break
			}
			at -= index[i] * e.strides[i]
			index[i] = 0
		}
	}
	return out
}

// readZip reads a file of an archive that is at most limit bytes long.
func readZip(z *zip.File, limit int64) ([]byte, error) {
	r, err := z.Open()
	if err != nil {
		return nil, fmt.Errorf("%.100s: %w", z.Name, err)
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%.100s: %w", z.Name, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%.100s is over %d bytes, which no state dictionary's is", z.Name, limit)
	}
	return data, nil
}
