package checkpoint

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestDiskFull writes in a process whose files may not exceed 64 KiB: as on a
// full disk, the kernel takes a part and then refuses.
func TestDiskFull(t *testing.T) {
	if dir := os.Getenv("CHECKPOINT_TEST_DISKFULL"); dir != "" {
		signal.Ignore(syscall.SIGXFSZ)
		limit := syscall.Rlimit{Cur: 64 << 10, Max: 64 << 10}
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
			t.Fatal(err)
		}
		fmt.Println("error:",
			Write(filepath.Join(dir, "w"), []Tensor{F32("a", []int{1 << 20}, make([]float32, 1<<20))}, nil))
		return
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "w")
	if err := WriteFileAtomic(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestDiskFull$")
	cmd.Env = append(os.Environ(), "CHECKPOINT_TEST_DISKFULL="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if want := "error: write " + path + ": file too large\n"; !strings.Contains(string(out), want) {
		t.Errorf("printed %q, want %q", out, want)
	}
	if got, _ := os.ReadFile(path); string(got) != "old" {
		t.Errorf("the old file became %d bytes", len(got))
	}
	onlyFile(t, dir)
}
