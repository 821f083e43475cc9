// Package cli has what the programs of this module share on the command line: flags in groups with
// checked values, help, version, exit codes, signals and logging.
//
// A program describes itself as a [Command], binds its flags to the fields of a settings value, and
// runs under [Main]:
//
//	func main() { cli.Main("dpt-worker", run) }
//
//	func run(ctx context.Context, args []string, std cli.IO) error {
//		s := worker.DefaultSettings()
//		cmd := cli.NewCommand("dpt-worker", "[flags]", "Runs one worker of a training job.")
//		g := cmd.Group("Engine")
//		g.Int(&s.Threads, "threads", "CPU threads, `N`; 0 is one per core", cli.AtLeast(0))
//		if err := cmd.Parse(args); err != nil {
//			return err
//		}
//		...
//	}
//
// The value a variable holds when its flag is bound is the flag's default, so defaults live in the
// packages that own the settings and nowhere else.
//
// # Exit codes
//
// 0: done, or help or version was asked for. 1: failed; one line on standard error says why.
// 2: wrong usage ([UsageError]): one line on standard error names the flag, what was found and what
// is wanted. 130: a second interrupt while the program was stopping after the first.
package cli
