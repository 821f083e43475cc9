package report

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/dptune/dpt/coordinator/lab/sweep"
	"github.com/dptune/dpt/model/checkpoint"
)

// Write renders the sweep in dir from its results: report.md with the settings, the tables and the
// figures, tables.csv, and an SVG and a PNG for each figure. It replaces the files of an earlier
// rendering and returns the path of report.md.
func Write(dir string) (string, error) {
	g, err := sweep.ReadGrid(dir)
	if err != nil {
		return "", err
	}
	results, err := sweep.Read(dir)
	if err != nil {
		return "", err
	}
	if len(results) == 0 {
		return "", fmt.Errorf("%s: no finished run yet, want at least one", filepath.Join(dir, sweep.File))
	}
	path := filepath.Join(dir, "report.md")
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s\n\n%d of %d runs are finished.\n", g.Preset, len(results), g.Total())
	fmt.Fprintf(&b, "\n## Settings\n\n%s", settingsTable(results))
	if g.Halving != nil {
		fmt.Fprintf(&b, "\n## Successive halving\n\n%s", halvingTable(g, results))
		results = slices.DeleteFunc(results, func(r sweep.Result) bool { return r.Rung > 0 })
	}
	if len(results) == 0 {
		fmt.Fprintf(&b, "\nNo run with the whole budget is finished yet.\n")
		return path, checkpoint.WriteFileAtomic(path, b.Bytes())
	}

	all := newGrid(results)
	fmt.Fprintf(&b, "\n## Scores\n\nIn percent, by each task's first metric, on the evaluation split;"+
		" mean of the best evaluation of each run over %s, as the paper's Table 1.\n\n%s",
		plural(all.seeds(), "seed"), all.means())
	if all.seeds() > 1 {
		fmt.Fprintf(&b, "\n## Standard deviation\n\nOver seeds, as the paper's Table 3.\n\n%s", all.deviations())
	}
	table, err := all.csv()
	if err != nil {
		return "", err
	}
	if err := checkpoint.WriteFileAtomic(filepath.Join(dir, "tables.csv"), table); err != nil {
		return "", err
	}

	figures := all.figures(g.Preset)
	if len(figures) > 0 {
		fmt.Fprintf(&b, "\n## Figures\n")
	}
	for _, f := range figures {
		if err := f.write(dir); err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "\n![%s](%s.svg)\n\n%s\n", f.caption, f.name, f.caption)
	}
	return path, checkpoint.WriteFileAtomic(path, b.Bytes())
}

// plural counts things: "one seed", "3 seeds".
func plural(n int, what string) string {
	if n == 1 {
		return "one " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
