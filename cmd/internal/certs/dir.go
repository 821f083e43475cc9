package certs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Names of the authority's files in a directory.
const (
	CAFile    = "ca.pem"
	CAKeyFile = "ca-key.pem"
)

// Request describes the files to make in a directory.
type Request struct {
	Dir     string
	Leaves  [][]string // the hosts of each machine; the first one names its files
	CAFor   time.Duration
	LeafFor time.Duration
	Force   bool // overwrite leaves; the authority is always kept
	Now     time.Time
	CAName  string // the common name of a new authority
}

// File is one file in the directory after Make.
type File struct {
	Path string
	Kept bool   // it was there before
	What string // "CA certificate, valid until …"
}

// LeafFiles are the names of a machine's files.
func LeafFiles(host string) (cert, key string) {
	base := strings.NewReplacer("*", "_", ":", "_").Replace(host)
	return base + ".pem", base + "-key.pem"
}

// Make makes the directory's authority where it has none, and a certificate and key for each
// machine. It writes nothing unless it can write everything: without Force, a file that exists is
// an error.
func Make(r Request) ([]File, error) {
	if err := os.MkdirAll(r.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of certificates: %w", err)
	}
	owners := map[string]string{CAFile: "the CA", CAKeyFile: "the CA"} // by file name
	for _, hosts := range r.Leaves {
		cert, key := LeafFiles(hosts[0])
		for _, name := range []string{cert, key} {
			if owner, ok := owners[name]; ok {
				return nil, fmt.Errorf("the file %s of %s would be that of %s too", name, hosts[0], owner)
			}
			owners[name] = hosts[0]
			if _, err := os.Lstat(filepath.Join(r.Dir, name)); err == nil && !r.Force {
				return nil, fmt.Errorf("%s is there already, want --force to overwrite it", filepath.Join(r.Dir, name))
			} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
	}
	ca, kept, err := openCA(r)
	if err != nil {
		return nil, err
	}
	type write struct {
		name string
		data []byte
		mode fs.FileMode
		what string
	}
	var writes []write
	add := func(cert, key string, p *KeyPair, what string) {
		until := ", valid until " + formatTime(p.Cert.NotAfter)
		writes = append(writes,
			write{key, p.KeyPEM, 0o600, "key of the " + what},
			write{cert, p.CertPEM, 0o644, what + until})
	}
	var files []File
	if kept {
		what := fmt.Sprintf("CA %q, valid until %s", ca.Cert.Subject.CommonName, formatTime(ca.Cert.NotAfter))
		files = append(files, File{Path: filepath.Join(r.Dir, CAFile), Kept: true, What: what})
	} else {
		add(CAFile, CAKeyFile, ca, fmt.Sprintf("CA %q", ca.Cert.Subject.CommonName))
	}
	for _, hosts := range r.Leaves {
		leaf, err := Issue(ca, hosts, ValidFor(r.Now, r.LeafFor))
		if err != nil {
			return nil, err
		}
		cert, key := LeafFiles(hosts[0])
		add(cert, key, leaf, "certificate for "+strings.Join(hosts, ", "))
	}
	for _, w := range writes {
		path := filepath.Join(r.Dir, w.name)
		if err := writeFile(path, w.data, w.mode); err != nil {
			return files, fmt.Errorf("write %s: %w", path, err)
		}
		files = append(files, File{Path: path, What: w.what})
	}
	return files, nil
}

// openCA reads the directory's CA. It makes a new one where the directory has neither of the two
// files.
func openCA(r Request) (ca *KeyPair, kept bool, err error) {
	certPath, keyPath := filepath.Join(r.Dir, CAFile), filepath.Join(r.Dir, CAKeyFile)
	cert, certErr := os.ReadFile(certPath)
	key, keyErr := os.ReadFile(keyPath)
	switch noCert, noKey := errors.Is(certErr, fs.ErrNotExist), errors.Is(keyErr, fs.ErrNotExist); {
	case noCert && noKey:
		ca, err = NewCA(r.CAName, ValidFor(r.Now, r.CAFor))
		return ca, false, err
	case noCert:
		return nil, false, fmt.Errorf("found the CA's key %s without its certificate %s, want both or neither",
			keyPath, certPath)
	case noKey:
		return nil, false, fmt.Errorf("found the CA's certificate %s without its key %s, want both or neither",
			certPath, keyPath)
	case certErr != nil:
		return nil, false, certErr
	case keyErr != nil:
		return nil, false, keyErr
	}
	if ca, err = parseCA(cert, key); err != nil {
		return nil, false, fmt.Errorf("the CA in %s: %w", r.Dir, err)
	}
	if !r.Now.Before(ca.Cert.NotAfter) {
		return nil, false, fmt.Errorf("the CA in %s: %q ended %s, want another directory for a new one",
			r.Dir, ca.Cert.Subject.CommonName, formatTime(ca.Cert.NotAfter))
	}
	return ca, true, nil
}

// writeFile replaces the file atomically. Nobody sees a part of it, and a private key is never
// readable by others.
func writeFile(path string, data []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".certs-*") // with mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
