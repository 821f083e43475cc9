"""Holds the built programs to Transformers and PyTorch at T5-Small's full shape. See README.md.

    make parity PYTHON=venv/bin/python
    python run.py --bin ../../bin [--only score,train] [--work DIR]

Prints a line per check, with what was measured and its bound. Exits 0 if all hold, 1 if one does not.
"""

import argparse
import pathlib
import sys
import tempfile
import traceback

import torch

import checks
from programs import Programs

HERE = pathlib.Path(__file__).resolve().parent
SHARED = HERE.parents[1].parent / "shared" / "data"


class Report:
    """Prints the outcome of each measurement and remembers whether all held."""

    def __init__(self):
        self.measured = self.failed = 0

    def line(self, good, what, detail):
        self.measured += 1
        self.failed += not good
        print(f"{'ok  ' if good else 'FAIL'} {what:<62} {detail}", flush=True)

    def within(self, what, measured, bound):
        self.line(measured <= bound, what, f"{measured:.2e} (bound {bound:.0e})")  # a NaN is not within

    def equal(self, what, wrong, total):
        """wrong of total things are not as they should be."""
        self.line(wrong == 0 and total > 0, what, f"{total - wrong} of {total} equal (bound: all)")

    def note(self, text):
        print(f"     {text}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, default=HERE.parents[1] / "bin", help="directory of dpt, dpt-coord, dpt-worker")
    parser.add_argument("--data", type=pathlib.Path, default=SHARED / "fewglue", help="SuperGLUE's files, TASK/train.jsonl")
    parser.add_argument("--tokenizer", type=pathlib.Path, default=SHARED / "t5-tokenizer", help="directory of T5's spiece.model and tokenizer.json")
    parser.add_argument("--work", type=pathlib.Path, help="keep models and runs here (default: a temporary directory)")
    parser.add_argument("--only", help=f"some of the checks: {','.join(checks.ALL)}")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of PyTorch and of each worker")
    args = parser.parse_args()
    chosen = args.only.split(",") if args.only else list(checks.ALL)
    for name in chosen:
        if name not in checks.ALL:
            parser.error(f"--only {name}: want some of {','.join(checks.ALL)}")
    for path in (args.data / "ReCoRD" / "train.jsonl", args.tokenizer / "spiece.model"):
        if not path.is_file():
            raise SystemExit(f"{path} is not there; --data and --tokenizer say where to look")
    torch.set_num_threads(args.threads)
    programs = Programs(args.bin, args.threads)
    report = Report()
    with tempfile.TemporaryDirectory(prefix="dpt-parity-") as temporary:
        work = args.work or pathlib.Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        bench = checks.Bench(programs, report, work.resolve(), args.data.resolve(), args.tokenizer.resolve())
        for name in chosen:
            print(f"-- {name}: {checks.ALL[name].__doc__.splitlines()[0]}", flush=True)
            try:
                checks.ALL[name](bench)
            except Exception as e:  # one check's failure must not hide the others' outcome
                report.line(False, name, f"{type(e).__name__}: {e}")
                if not isinstance(e, RuntimeError):
                    traceback.print_exc()
    print(f"{report.measured - report.failed} of {report.measured} measurements hold")
    sys.exit(1 if report.failed else 0)


if __name__ == "__main__":
    main()
