package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// version names the build. The linker sets it:
//
//	-ldflags "-X github.com/dptune/dpt/cmd/internal/cli.version=v1.2.3"
//
// If it is empty, the name is what the Go toolchain recorded.
var version string

// VersionText is what --version prints: the program, its module version and commit as the Go
// toolchain recorded them, the Go version and platform, and the engines built in.
func VersionText(name string, engines []string) string {
	v, commit := readVersion()
	text := fmt.Sprintf("%s %s\ncommit %s\n%s %s/%s\n",
		name, v, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if len(engines) > 0 {
		text += "engines: " + strings.Join(engines, ", ") + "\n"
	}
	return text
}

// Version is the module's version and commit on one line, by which peers tell builds apart.
func Version() string {
	v, commit := readVersion()
	return v + " " + commit
}

func readVersion() (v, commit string) {
	v, commit = "unknown", "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		v, commit = buildVersion(info)
	}
	if version != "" {
		v = version
	}
	return v, commit
}

// buildVersion reads the module's version and the commit, with "modified" where the tree was not
// clean.
func buildVersion(info *debug.BuildInfo) (v, commit string) {
	v, commit = info.Main.Version, "unknown"
	if v == "" {
		v = "(devel)"
	}
	modified := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value
		case "vcs.modified":
			modified = s.Value == "true"
		}
	}
	if modified {
		commit += " (modified)"
	}
	return v, commit
}
