package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// VersionText is what --version prints: the program, its module version and commit as the Go
// toolchain recorded them, the Go version and platform, and the engines built in.
func VersionText(name string, engines []string) string {
	version, commit := readVersion()
	text := fmt.Sprintf("%s %s\ncommit %s\n%s %s/%s\n", name, version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if len(engines) > 0 {
		text += "engines: " + strings.Join(engines, ", ") + "\n"
	}
	return text
}

// Version is the module's version and commit on one line, for peers to tell builds apart.
func Version() string {
	version, commit := readVersion()
	return version + " " + commit
}

func readVersion() (version, commit string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown", "unknown"
	}
	return buildVersion(info)
}

// buildVersion reads the module's version and the commit, "modified" where the tree was not clean.
func buildVersion(info *debug.BuildInfo) (version, commit string) {
	version, commit = info.Main.Version, "unknown"
	if version == "" {
		version = "(devel)"
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
	return version, commit
}
