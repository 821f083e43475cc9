"""Measures what committing every step costs, and what a step with many workers costs the leader, and writes their section of BENCHMARKS.md.

    python bench_commit.py [--steps 300] [--go go]

Run it by hand on a machine that does nothing else, with TMPDIR on the disk to measure.
"""

import argparse
import datetime
import re
import subprocess

import sections


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("--steps", type=int, default=300, help="steps of 300 ms")
    p.add_argument("--go", default="go")
    p.add_argument("--out", default=str(sections.FILE))
    args = p.parse_args()
    commit = bench(args.go, "^BenchmarkStepsWithCommit$", args.steps)["BenchmarkStepsWithCommit"]
    workers = bench(args.go, "^BenchmarkWorkers$", 50)
    lines = [
        "## The coordinator", "", f"{datetime.date.today()}, {sections.cpu()}. Made by", "",
        f"    python model/parity/bench_commit.py --steps {args.steps}", "",
        f"**Commits.** {args.steps} steps whose gradients take 300 ms and no processor, each committed with T5-Large's trainer state (135 KB) by 3 replicas in one process, over",
        "loopback and on one disk, with `--commit-window 1` and 4 workers. Overhead is the time in which no gradient is computed.", "",
        "| overhead of a step | commit, p50 | commit, p99 |", "|---|---|---|",
        f"| {commit['overhead-%']:.2f}% | {commit['p50-ms']:.1f} ms | {commit['p99-ms']:.1f} ms |", "",
        "**Many workers.** Processor time of a step at the leader, without the network: planning and tokenizing a micro-batch of one example of about 100 byte-level tokens for each worker, dealing,",
        "reports, comparing digests, the log and garbage collection; encoding the plans, which the sessions do beside it; and the heap.", "",
        "| workers | a step | encoding | heap |", "|---|---|---|---|",
    ]
    for name, m in workers.items():
        lines.append(f"| {name.split('/')[1]} | {m['cpu-ms']:.1f} ms | {m['wire-ms']:.1f} ms | {m['heap-MB']:.0f} MB |")
    text = "\n".join(lines)
    sections.write("coordinator", text, args.out)
    print(text)


def bench(go, pattern, times):
    """The metrics of the benchmarks that match, by name and unit."""
    out = subprocess.run([go, "test", "-run", "^$", "-bench", pattern, "-benchtime", f"{times}x", "-timeout", "60m", "./coordinator"],
                         cwd=sections.FILE.parent, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {re.sub(r"-\d+$", "", line.split()[0]): {unit: float(value) for value, unit in re.findall(r"([0-9.e+-]+) (\S+)", line.split(None, 2)[2])}
            for line in out.splitlines() if line.startswith("Benchmark")}


if __name__ == "__main__":
    main()
