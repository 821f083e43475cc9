package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dptune/dpt/cmd/internal/cmdtest"
)

var now = time.Date(2030, 5, 6, 7, 8, 9, 0, time.UTC)

func request(dir string, leaves ...[]string) Request {
	return Request{
		Dir: dir, Leaves: leaves, CAFor: 100 * time.Hour, LeafFor: 10 * time.Hour, Now: now, CAName: "test CA",
	}
}

func mustMake(t *testing.T, r Request) []File {
	t.Helper()
	files, err := Make(r)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestMadeCertificatesVerify(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	files := mustMake(t,
		request(dir, []string{"a.example", "10.0.0.1"}, []string{"2001:db8::7"}, []string{"*.b.example"}))
	if len(files) != 8 {
		t.Errorf("%d files, want the CA's two and two for each of three machines", len(files))
	}
	for _, f := range files {
		info, err := os.Stat(f.Path)
		if err != nil {
			t.Fatal(err)
		}
		want := fs.FileMode(0o644)
		if strings.HasSuffix(f.Path, "-key.pem") {
			want = 0o600
		}
		if info.Mode().Perm() != want || f.Kept {
			t.Errorf("%s: mode %v, want %v; kept %v", f.Path, info.Mode(), want, f.Kept)
		}
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cmdtest.ReadFile(t, dir, CAFile))
	for _, test := range []struct {
		file      string
		good, bad []string
	}{
		{"a.example", []string{"a.example", "10.0.0.1", "localhost", "127.0.0.1", "::1"},
			[]string{"b.example", "10.0.0.2"}},
		{"2001:db8::7", []string{"2001:db8::7", "127.0.0.1"}, []string{"a.example"}},
		{"*.b.example", []string{"x.b.example"}, []string{"b.example"}},
	} {
		certFile, keyFile := LeafFiles(test.file)
		pair, err := tls.X509KeyPair(cmdtest.ReadFile(t, dir, certFile), cmdtest.ReadFile(t, dir, keyFile))
		if err != nil {
			t.Fatalf("%s: %v", test.file, err)
		}
		for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			for _, host := range slices.Concat(test.good, test.bad) {
				_, err := pair.Leaf.Verify(x509.VerifyOptions{
					Roots: roots, CurrentTime: now, DNSName: host, KeyUsages: []x509.ExtKeyUsage{use},
				})
				if want := slices.Contains(test.good, host); (err == nil) != want {
					t.Errorf("%s as %s, usage %v: %v, want accepted: %v", test.file, host, use, err, want)
				}
			}
		}
		for at, want := range map[time.Duration]bool{
			-Skew - time.Second: false, -Skew: true, 10 * time.Hour: true, 10*time.Hour + time.Second: false,
		} {
			_, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now.Add(at)})
			if (err == nil) != want {
				t.Errorf("%s at %v: %v, want valid: %v", test.file, at, err, want)
			}
		}
	}
}

func TestAuthorityIsKept(t *testing.T) {
	dir := t.TempDir()
	mustMake(t, request(dir, []string{"a"}))
	ca, key, a := cmdtest.ReadFile(t, dir, CAFile), cmdtest.ReadFile(t, dir, CAKeyFile),
		cmdtest.ReadFile(t, dir, "a.pem")

	r := request(dir, []string{"a"}, []string{"b"})
	if _, err := Make(r); err == nil || !strings.Contains(err.Error(), "a.pem is there already, want --force") {
		t.Errorf("second time without force: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "b.pem")); err == nil {
		t.Error("a refused request has written a file")
	}
	r.Force, r.LeafFor = true, 1000*time.Hour
	files := mustMake(t, r)
	if !files[0].Kept || !bytes.Equal(cmdtest.ReadFile(t, dir, CAFile), ca) ||
		!bytes.Equal(cmdtest.ReadFile(t, dir, CAKeyFile), key) {
		t.Error("the CA was not kept")
	}
	if bytes.Equal(cmdtest.ReadFile(t, dir, "a.pem"), a) {
		t.Error("the leaf was not replaced by force")
	}
	pair, err := tls.X509KeyPair(cmdtest.ReadFile(t, dir, "a.pem"), cmdtest.ReadFile(t, dir, "a-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if want := now.Add(100 * time.Hour); !pair.Leaf.NotAfter.Equal(want) {
		t.Errorf("a leaf asked for longer than its CA is valid until %v, want %v", pair.Leaf.NotAfter, want)
	}

	// Where two authorities are trusted during a change, the key says which one signs.
	next := t.TempDir()
	mustMake(t, request(next, []string{"a"}))
	cmdtest.WriteFile(t, filepath.Join(dir, CAFile), slices.Concat(cmdtest.ReadFile(t, next, CAFile), ca))
	mustMake(t, r)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	if pair,
		err = tls.X509KeyPair(cmdtest.ReadFile(t, dir, "a.pem"), cmdtest.ReadFile(t, dir, "a-key.pem")); err != nil {
		t.Fatal(err)
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now}); err != nil {
		t.Errorf("signed by the other CA: %v", err)
	}
}

func TestMakeRefuses(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(t *testing.T, r *Request)
		want   string
	}{
		{"no CA key", func(t *testing.T, r *Request) { cmdtest.RemoveFile(t, r.Dir, CAKeyFile) }, "without its key"},
		{"no CA certificate", func(t *testing.T, r *Request) { cmdtest.RemoveFile(t, r.Dir, CAFile) },
			"without its certificate"},
		{"ended CA", func(_ *testing.T, r *Request) { r.Now = now.Add(100 * time.Hour) }, "ended 2030-05-10T11:08:09Z"},
		{"another CA's key", func(t *testing.T, r *Request) {
			other := request(t.TempDir(), []string{"x"})
			mustMake(t, other)
			cmdtest.WriteFile(t, filepath.Join(r.Dir, CAKeyFile), cmdtest.ReadFile(t, other.Dir, CAKeyFile))
		}, "holds no CA certificate of that key"},
		{"not a key", func(t *testing.T, r *Request) {
			cmdtest.WriteFile(t, filepath.Join(r.Dir, CAKeyFile), cmdtest.ReadFile(t, r.Dir, CAFile))
		}, `no PEM block "PRIVATE KEY"`},
		{"the CA's name", func(_ *testing.T, r *Request) { r.Leaves = [][]string{{"ca"}} },
			"the file ca.pem of ca would be that of the CA too"},
		{"a name twice", func(_ *testing.T, r *Request) { r.Leaves = [][]string{{"x"}, {"y"}, {"x"}} },
			"the file x.pem of x would be that of x too"},
		{"a name that is another's key file",
			func(_ *testing.T, r *Request) { r.Leaves = [][]string{{"x"}, {"x-key"}} }, "x-key.pem of x-key"},
		{"a bad host", func(_ *testing.T, r *Request) { r.Leaves = [][]string{{"x", "b c"}} }, `host "b c"`},
	} {
		r := request(t.TempDir(), []string{"a"})
		mustMake(t, r)
		r.Leaves = [][]string{{"z"}}
		test.change(t, &r)
		if _, err := Make(r); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want an error with %q", test.name, err, test.want)
		}
		if _, err := os.Stat(filepath.Join(r.Dir, "z.pem")); err == nil {
			t.Errorf("%s: a refused request has written a file", test.name)
		}
	}
}

func TestCheckHost(t *testing.T) {
	for _, h := range []string{"a", "a-b.c_d.Example9", "10.0.0.1", "::1", "*.a.b", strings.Repeat("a", 63) + ".b"} {
		if err := CheckHost(h); err != nil {
			t.Errorf("%q: %v", h, err)
		}
	}
	for _, h := range []string{
		"", ".", "a.", ".a", "a..b", "-a", "a b", "a/b", "..", "a:7070", "[::1]:1", "*", "*.", "a.*.b", "ä", "a\n",
		strings.Repeat("a", 64), strings.Repeat("a.", 127),
	} {
		if err := CheckHost(h); err == nil {
			t.Errorf("%q is accepted", h)
		}
	}
}
