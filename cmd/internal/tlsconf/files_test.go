package tlsconf

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dptune/dpt/cmd/internal/certs"
	"github.com/dptune/dpt/cmd/internal/cmdtest"
)

func TestBadFilesAreNamed(t *testing.T) {
	ca, other := newCA(t, "ours"), newCA(t, "theirs")
	leaf, second := newLeaf(t, ca, "a", start), newLeaf(t, ca, "b", start)
	garbled := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("no DER")})
	for _, test := range []struct {
		name   string
		change func(t *testing.T, f Files)
		at     time.Duration // after start
		want   string        // with {cert}, {key} and {ca} for the paths
	}{
		{"good", func(*testing.T, Files) {}, 0, ""},
		{"good with several CAs", func(t *testing.T, f Files) { f.put(t, leaf, other, ca) }, 0, ""},
		{"good with text around",
			func(t *testing.T, f Files) { cmdtest.WriteFile(t, f.CA, append([]byte("# ours\n"), ca.CertPEM...)) }, 0,
			""},
		{"no certificate file", func(t *testing.T, f Files) { cmdtest.RemoveFile(t, f.Cert) }, 0,
			"--tls-cert: open {cert}: no such file"},
		{"no key file", func(t *testing.T, f Files) { cmdtest.RemoveFile(t, f.Key) }, 0,
			"--tls-key: open {key}: no such file"},
		{"no CA file", func(t *testing.T, f Files) { cmdtest.RemoveFile(t, f.CA) }, 0,
			"--tls-ca: open {ca}: no such file"},
		{"empty certificate", func(t *testing.T, f Files) { cmdtest.WriteFile(t, f.Cert, nil) }, 0,
			"--tls-cert {cert}: found nothing of PEM, want PEM with a CERTIFICATE block"},
		{"key for a certificate", func(t *testing.T, f Files) { cmdtest.WriteFile(t, f.Cert, leaf.KeyPEM) }, 0,
			`--tls-cert {cert}: found "PRIVATE KEY", want PEM with a CERTIFICATE block`},
		{"certificate for a key", func(t *testing.T, f Files) { cmdtest.WriteFile(t, f.Key, leaf.CertPEM) }, 0,
			`--tls-key {key}: found "CERTIFICATE", want PEM with a PRIVATE KEY block`},
		{"DER", func(t *testing.T, f Files) { cmdtest.WriteFile(t, f.CA, ca.Cert.Raw) }, 0,
			"--tls-ca {ca}: found nothing of PEM"},
		{"garbled CA", func(t *testing.T, f Files) {
			cmdtest.WriteFile(t, f.CA, append(ca.CertPEM[:len(ca.CertPEM):len(ca.CertPEM)], garbled...))
		}, 0, "--tls-ca {ca}: certificate 2: x509:"},
		{"garbled certificate", func(t *testing.T, f Files) { cmdtest.WriteFile(t, f.Cert, garbled) }, 0,
			"--tls-cert {cert}: certificate 1: x509:"},
		{"garbled key", func(t *testing.T, f Files) {
			cmdtest.WriteFile(t, f.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("no DER")}))
		}, 0, "--tls-key {key} is not the key of --tls-cert {cert}: tls: failed to parse private key"},
		{"key under a password", func(t *testing.T, f Files) {
			cmdtest.WriteFile(t, f.Key, pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{1}}))
		}, 0, "--tls-key {key}: found a key under a password, want PEM with a PRIVATE KEY block that needs none"},
		{"old key under a password", func(t *testing.T, f Files) {
			headers := map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "x"}
			block := &pem.Block{Type: "EC PRIVATE KEY", Headers: headers, Bytes: []byte{1}}
			cmdtest.WriteFile(t, f.Key, pem.EncodeToMemory(block))
		}, 0, "found a key under a password"},
		{"mismatched key", func(t *testing.T, f Files) { cmdtest.WriteFile(t, f.Key, second.KeyPEM) }, 0,
			"--tls-key {key} is not the key of --tls-cert {cert}: tls: private key does not match public key"},
		{"leaf for a CA", func(t *testing.T, f Files) { cmdtest.WriteFile(t, f.CA, second.CertPEM) }, 0,
			`--tls-ca {ca}: certificate 1 ("b") is not a CA's`},
		{"foreign CA", func(t *testing.T, f Files) { cmdtest.WriteFile(t, f.CA, other.CertPEM) }, 0,
			`--tls-cert {cert}: certificate "a" is not signed by a CA in --tls-ca {ca}: its issuer is "ours", the ` +
				`file holds "theirs"`},
		{"expired", func(*testing.T, Files) {}, 24*time.Hour + time.Second, `--tls-cert {cert}: certificate "a" ` +
			`expired 2031-02-04T04:05:06Z, and this machine's clock says 2031-02-04T04:05:07Z`},
		{"not yet valid", func(*testing.T, Files) {}, -time.Second, `--tls-cert {cert}: certificate "a" is not valid ` +
			`before 2031-02-03T04:05:06Z, and this machine's clock says 2031-02-03T04:05:05Z`},
		{"expired CA", func(t *testing.T, f Files) { shortCA(t, f, nil) }, 2 * time.Hour,
			`--tls-cert {cert}: its CA: certificate "short" expired 2031-02-03T05:05:06Z`},
		{"servers only", func(t *testing.T, f Files) { shortCA(t, f, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) },
			0, `certificate "a" is not for client authentication, want one for both`},
		{"clients only", func(t *testing.T, f Files) { shortCA(t, f, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) },
			0, `certificate "a" is not for server authentication, want one for both`},
		{"no names", func(t *testing.T, f Files) { shortCA(t, f, []x509.ExtKeyUsage{}) }, 0,
			`certificate "a" has no subject alternative names`},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := files(t, leaf, ca)
			test.change(t, f)
			_, err := f.load(start.Add(test.at))
			want := strings.NewReplacer("{cert}", f.Cert, "{key}", f.Key, "{ca}", f.CA).Replace(test.want)
			if (err == nil) != (test.want == "") ||
				err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n")) {
				t.Errorf("load: %v\nwant %q", err, want)
			}
		})
	}
}

// shortCA puts a leaf of an hour-long CA into the files, for the usages given: nil is both, none is
// a leaf for no host. dpt certs makes nothing of the kind, so this is done by hand.
func shortCA(t *testing.T, f Files, usages []x509.ExtKeyUsage) {
	t.Helper()
	ca, err := certs.NewCA("short", certs.Validity{From: start, Until: start.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), NotBefore: start, NotAfter: start.Add(24 * time.Hour), ExtKeyUsage: usages,
	}
	template.Subject.CommonName = "a"
	if usages == nil {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	if usages == nil || len(usages) > 0 {
		template.DNSNames = []string{"a"}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Cert, &key.PublicKey, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	f.put(t, &certs.KeyPair{
		CertPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		KeyPEM:  pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
	}, ca)
}

func FuzzLoad(f *testing.F) {
	ca, err := certs.NewCA("ca", certs.ValidFor(start, time.Hour))
	if err != nil {
		f.Fatal(err)
	}
	leaf, err := certs.Issue(ca, []string{"a"}, certs.ValidFor(start, time.Hour))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(leaf.CertPEM, leaf.KeyPEM, ca.CertPEM)
	f.Add(ca.CertPEM, leaf.CertPEM, leaf.KeyPEM)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"), []byte{}, []byte("x"))
	dir := f.TempDir()
	paths := Files{Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key"), CA: filepath.Join(dir, "ca")}
	f.Fuzz(func(t *testing.T, cert, key, ca []byte) {
		for path, data := range map[string][]byte{paths.Cert: cert, paths.Key: key, paths.CA: ca} {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		m, err := paths.load(start)
		if err == nil && (m.cert.Leaf == nil || m.cert.PrivateKey == nil || m.roots == nil) {
			t.Error("accepted, and not whole")
		}
	})
}
