// Package certs makes the files for mutual TLS between a job's programs: a private certificate
// authority, and one certificate for every machine.
//
// All keys are ECDSA P-256. Every leaf is good for both ends of a connection, since a worker serves
// its ring neighbour and dials the next one with the same certificate. A leaf carries the loopback
// names beside its own, since programs on one machine reach each other there.
package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"time"
)

// PEM block types.
const (
	certificateBlock = "CERTIFICATE"
	keyBlock         = "PRIVATE KEY"
)

// Skew is the time by which a certificate becomes valid early, for machines whose clocks are slow.
const Skew = 5 * time.Minute

// maxCommonName is the longest common name that X.509 allows (RFC 5280, appendix A.1).
const maxCommonName = 64

// loopback are the names that every leaf carries beside its own.
var loopback = []string{"localhost", "127.0.0.1", "::1"}

// KeyPair is a certificate and its private key.
type KeyPair struct {
	Cert    *x509.Certificate
	Key     *ecdsa.PrivateKey
	CertPEM []byte
	KeyPEM  []byte // PKCS #8
}

// Validity is the time within which a certificate is valid.
type Validity struct{ From, Until time.Time }

// ValidFor is a validity of the given length from now, with Skew before it.
func ValidFor(now time.Time, length time.Duration) Validity {
	return Validity{From: now.Add(-Skew), Until: now.Add(length)}
}

// NewCA makes a self-signed authority that signs leaves only.
func NewCA(name string, v Validity) (*KeyPair, error) {
	return issue(&x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, nil, v)
}

// Issue makes a leaf that ca signs, for a machine with the given hosts: DNS names or IP addresses
// that CheckHost accepts. The first one names the certificate. The leaf is not valid longer than
// ca.
func Issue(ca *KeyPair, hosts []string, v Validity) (*KeyPair, error) {
	if len(hosts) == 0 {
		return nil, fmt.Errorf("issue a certificate: no host, want one or more")
	}
	leaf := &x509.Certificate{
		Subject:               pkix.Name{CommonName: hosts[0][:min(len(hosts[0]), maxCommonName)]},
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, h := range slices.Concat(hosts, loopback) {
		if err := CheckHost(h); err != nil {
			return nil, fmt.Errorf("issue a certificate: host %q: %w", h, err)
		}
		if ip := net.ParseIP(h); ip == nil {
			if !slices.Contains(leaf.DNSNames, h) {
				leaf.DNSNames = append(leaf.DNSNames, h)
			}
		} else if !slices.ContainsFunc(leaf.IPAddresses, ip.Equal) {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		}
	}
	if v.Until.After(ca.Cert.NotAfter) {
		v.Until = ca.Cert.NotAfter
	}
	if !v.Until.After(v.From) {
		return nil, fmt.Errorf("issue a certificate for %s: the CA %q ended %s",
			hosts[0], ca.Cert.Subject.CommonName, formatTime(ca.Cert.NotAfter))
	}
	return issue(leaf, ca, v)
}

// issue signs the certificate with the key of ca. Without ca, the new key signs it.
func issue(template *x509.Certificate, ca *KeyPair, v Validity) (*KeyPair, error) {
	name := template.Subject.CommonName
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of %s: %w", name, err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, fmt.Errorf("make the serial number of %s: %w", name, err)
	}
	template.NotBefore, template.NotAfter = v.From, v.Until
	parent, signer := template, key
	if ca != nil {
		parent, signer = ca.Cert, ca.Key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", name, err)
	}
	p := &KeyPair{Key: key, CertPEM: pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: der})}
	if p.Cert, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("read back the certificate of %s: %w", name, err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode the key of %s: %w", name, err)
	}
	p.KeyPEM = pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: keyDER})
	return p, nil
}

// parseCA finds the certificate that the key belongs to. Where one authority succeeds another, the
// file holds the certificates of both.
func parseCA(certPEM, keyPEM []byte) (*KeyPair, error) {
	block, _ := pem.Decode(keyPEM)
	if block == nil || block.Type != keyBlock {
		return nil, fmt.Errorf("its key file holds no PEM block %q", keyBlock)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("its key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("its key is a %T, want ECDSA", parsed)
	}
	for rest := certPEM; ; {
		if block, rest = pem.Decode(rest); block == nil {
			return nil, fmt.Errorf("its certificate file holds no CA certificate of that key")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("its certificate: %w", err)
		}
		if cert.IsCA && key.PublicKey.Equal(cert.PublicKey) {
			return &KeyPair{Cert: cert, Key: key, CertPEM: bytes.Clone(certPEM), KeyPEM: bytes.Clone(keyPEM)}, nil
		}
	}
}

// CheckHost checks for an IP address, or a DNS name of letters, digits, hyphens and underscores
// that may start with "*.".
func CheckHost(h string) error {
	if net.ParseIP(h) != nil {
		return nil
	}
	const want = "want a DNS name or an IP address"
	if _, _, err := net.SplitHostPort(h); err == nil {
		return fmt.Errorf("found a port, %s", want)
	}
	name := strings.TrimPrefix(h, "*.")
	if name == "" || len(name) > 253 {
		return fmt.Errorf("found %d bytes, %s", len(h), want)
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || strings.ContainsFunc(label, notInName) {
			return fmt.Errorf("found the part %q, %s", label, want)
		}
	}
	return nil
}

func notInName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
}

func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }
