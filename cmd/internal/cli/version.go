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
	version, commit := "unknown", "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version, commit = buildVersion(info)
	}
	text := fmt.Sprintf("%s %s\ncommit %s\n%s %s/%s\n", name, version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if len(engines) > 0 {
		text += "engines: " + strings.Join(engines, ", ") + "\n"
	}
	return text
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
