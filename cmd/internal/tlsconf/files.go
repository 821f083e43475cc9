package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Files are the three PEM files of one program.
type Files struct {
	Cert string // its certificate, then intermediate ones if any
	Key  string // the certificate's private key
	CA   string // the authorities whose signature makes a peer acceptable
}

// material is the checked contents of the files.
type material struct {
	cert  tls.Certificate // with Leaf
	roots *x509.CertPool
}

// load reads the files and checks everything that a peer would check: a peer would refuse a fault
// with less information. Errors name the flag and the file.
func (f Files) load(now time.Time) (*material, error) {
	certPEM, err := os.ReadFile(f.Cert)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert: %w", err)
	}
	keyPEM, err := os.ReadFile(f.Key)
	if err != nil {
		return nil, fmt.Errorf("--tls-key: %w", err)
	}
	caPEM, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("--tls-ca: %w", err)
	}
	chain, err := certificates(certPEM)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert %s: %w", f.Cert, err)
	}
	if err := checkKey(keyPEM); err != nil {
		return nil, fmt.Errorf("--tls-key %s: %w", f.Key, err)
	}
	cas, err := certificates(caPEM)
	if err != nil {
		return nil, fmt.Errorf("--tls-ca %s: %w", f.CA, err)
	}
	m := &material{roots: x509.NewCertPool()}
	for i, ca := range cas {
		if !ca.IsCA {
			return nil, fmt.Errorf("--tls-ca %s: certificate %d (%q) is not a CA's", f.CA, i+1, nameOf(ca))
		}
		m.roots.AddCert(ca)
	}
	// The pair comes last: its errors are about the certificate and the key together.
	if m.cert, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		return nil, fmt.Errorf("--tls-key %s is not the key of --tls-cert %s: %w", f.Key, f.Cert, err)
	}
	if err := f.checkLeaf(chain, cas, m.roots, now); err != nil {
		return nil, fmt.Errorf("--tls-cert %s: %w", f.Cert, err)
	}
	return m, nil
}

// checkLeaf verifies the chain as a peer would, for both ends of a connection.
func (f Files) checkLeaf(chain, cas []*x509.Certificate, roots *x509.CertPool, now time.Time) error {
	leaf := chain[0]
	if err := within(leaf, now); err != nil {
		return err
	}
	if len(leaf.DNSNames)+len(leaf.IPAddresses) == 0 {
		return fmt.Errorf("certificate %q has no subject alternative names, want the machine's DNS names or "+
			"IP addresses", nameOf(leaf))
	}
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: now}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	for _, use := range []struct {
		usage x509.ExtKeyUsage
		name  string
	}{{x509.ExtKeyUsageServerAuth, "server"}, {x509.ExtKeyUsageClientAuth, "client"}} {
		opts.KeyUsages = []x509.ExtKeyUsage{use.usage}
		_, err := leaf.Verify(opts)
		var unknown x509.UnknownAuthorityError
		var invalid x509.CertificateInvalidError
		switch {
		case err == nil:
		case errors.As(err, &unknown):
			var names []string
			for _, ca := range cas {
				names = append(names, strconv.Quote(nameOf(ca)))
			}
			return fmt.Errorf("certificate %q is not signed by a CA in --tls-ca %s: its issuer is %q, the file "+
				"holds %s", nameOf(leaf), f.CA, leaf.Issuer.CommonName, strings.Join(names, ", "))
		case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
			return fmt.Errorf("its CA: %w", within(invalid.Cert, now))
		case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
			return fmt.Errorf("certificate %q is not for %s authentication, want one for both server and client",
				nameOf(leaf), use.name)
		default:
			return fmt.Errorf("certificate %q: %w", nameOf(leaf), err)
		}
	}
	return nil
}

// within checks that now is within the validity of the certificate.
func within(c *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(c.NotBefore):
		return fmt.Errorf("certificate %q is not valid before %s, and this machine's clock says %s",
			nameOf(c), formatTime(c.NotBefore), formatTime(now))
	case now.After(c.NotAfter):
		return fmt.Errorf("certificate %q expired %s, and this machine's clock says %s",
			nameOf(c), formatTime(c.NotAfter), formatTime(now))
	}
	return nil
}

// certificates parses the CERTIFICATE blocks, of which there must be one.
func certificates(data []byte) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	found := "nothing of PEM"
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if found = fmt.Sprintf("%q", block.Type); block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(list)+1, err)
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("found %s, want PEM with a CERTIFICATE block", found)
	}
	return list, nil
}

// checkKey checks for a private key that needs no password.
func checkKey(data []byte) error {
	const want = "want PEM with a PRIVATE KEY block"
	found := "nothing of PEM"
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return fmt.Errorf("found %s, %s", found, want)
		}
		found = fmt.Sprintf("%q", block.Type)
		if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return fmt.Errorf("found a key under a password, %s that needs none", want)
		}
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return nil
		}
	}
}

// nameOf is the name of a certificate in messages: its common name, else its first other name, else
// its serial number.
func nameOf(c *x509.Certificate) string {
	const longest = 100 // a peer chooses what its certificate says
	name := c.Subject.CommonName
	switch {
	case name != "":
	case len(c.DNSNames) > 0:
		name = c.DNSNames[0]
	case len(c.IPAddresses) > 0:
		name = c.IPAddresses[0].String()
	default:
		name = "number " + c.SerialNumber.String()
	}
	return name[:min(len(name), longest)]
}

func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }
