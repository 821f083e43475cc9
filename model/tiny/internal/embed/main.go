// Command embed makes the model of a finished run of dpt pretrain the embedded one: it copies the
// model's files to model/tiny/data and writes model/tiny/provenance.json. From the repository's
// root:
//
//	go run ./model/tiny/internal/embed RUN
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"github.com/dptune/dpt/model/checkpoint"
	"github.com/dptune/dpt/model/tiny/internal/provenance"
)

func main() {
	date := flag.String("date", time.Now().UTC().Format(time.DateOnly), "when the model was made")
	to := flag.String("to", filepath.Join("model", "tiny"), "directory of package tiny")
	unfinished := flag.Bool("unfinished", false, "take the model of a run that has not taken all its steps")
	note := flag.String("note", "", "what else there is to know of how it was made, for provenance.json")
	flag.Parse()
	if err := run(flag.Args(), *to, *date, *note, *unfinished); err != nil {
		fmt.Fprintln(os.Stderr, "embed:", err)
		os.Exit(1)
	}
}

func run(args []string, to, date, note string, unfinished bool) error {
	if len(args) != 1 {
		return fmt.Errorf("found %d arguments, want the directory of a run", len(args))
	}
	if _, err := os.Stat(filepath.Join(to, "tiny.go")); err != nil {
		return fmt.Errorf("want -to to be the directory of package tiny: %w", err)
	}
	dir := args[0]
	p, err := provenance.Of(dir)
	if err != nil {
		return err
	}
	p.Date, p.Note = date, note
	if p.Run.Steps != p.Run.Settings.Steps && !unfinished {
		return fmt.Errorf("run %s has taken %d of %d steps, want all of them, or -unfinished",
			dir, p.Run.Steps, p.Run.Settings.Steps)
	}
	for _, name := range provenance.Files {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if err := checkpoint.WriteFileAtomic(filepath.Join(to, "data", name), data); err != nil {
			return err
		}
	}
	// A run in progress rewrites these files: make sure that the copies are the files described.
	copied, err := provenance.Describe(os.DirFS(filepath.Join(to, "data")))
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(copied, p.Model) {
		return errors.New("the model has changed while it was copied: want a run that has ended")
	}
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	return checkpoint.WriteFileAtomic(filepath.Join(to, "provenance.json"), append(text, '\n'))
}
