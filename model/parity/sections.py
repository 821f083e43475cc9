"""BENCHMARKS.md is made of sections, each written by the run that measured it, between two marks that name it."""

import pathlib

FILE = pathlib.Path(__file__).resolve().parent.parent.parent / "BENCHMARKS.md"
TITLE = "# Benchmarks\n"


def write(name, text, path=FILE):
    """Replaces the section of that name, or appends it. The other sections stay as they are."""
    path = pathlib.Path(path)
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->\n"
    whole = path.read_text() if path.exists() else TITLE
    section = begin + text.strip("\n") + "\n" + end
    if begin in whole:
        before, rest = whole.split(begin, 1)
        if end not in rest:
            raise SystemExit(f"{path}: found {begin.strip()} without {end.strip()}, want both")
        whole = before + section + rest.split(end, 1)[1]
    else:
        whole = whole.rstrip("\n") + "\n\n" + section
    path.write_text(whole)


def cpu():
    """The processor's name, as a section says it."""
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown CPU"
