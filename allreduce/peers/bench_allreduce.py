"""Measures an all-reduce of T5-Large's 11,240 parameters among 4 processes on loopback: dpt's, Gloo's (PyTorch's on CPUs) and Open
MPI's over TCP, in alternation, and writes its section of BENCHMARKS.md.

    python bench_allreduce.py [--rounds 5] [--steps 2000]

Run it by hand on a machine that does nothing else. It needs PyTorch (../../model/parity/requirements.txt), Go, and Open MPI with its compiler
(Debian: openmpi-bin libopenmpi-dev). A round runs each of the three once, in fresh processes that do one all-reduce after another; the
table gives medians over rounds of what rank 0 saw. dpt's sums are exact 128-bit integers, Gloo's and Open MPI's are of float32.
"""

import argparse
import datetime
import json
import multiprocessing
import os
import pathlib
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "model" / "parity"))
import sections  # noqa: E402

RANKS, LENGTH = 4, 11240 + 2  # with the loss and the token count


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--steps", type=int, default=2000, help="all-reduces that a round makes of each")
    p.add_argument("--go", default="go")
    p.add_argument("--out", default=str(sections.FILE))
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as dir:
        ours, mpi = pathlib.Path(dir, "allreduce.test"), pathlib.Path(dir, "allreduce")
        subprocess.run([args.go, "test", "-c", "-o", ours, "./allreduce"], cwd=ROOT, check=True)
        subprocess.run(["mpicc", "-O2", "-o", mpi, HERE / "allreduce.c"], check=True)
        programs = {"dpt": lambda: run_dpt(ours, args.steps), "Gloo": lambda: run_gloo(args.steps), "Open MPI": lambda: run_mpi(mpi, args.steps)}
        got = {name: [] for name in programs}
        for r in range(args.rounds):
            for name, program in programs.items():
                got[name].append(program())
                print(f"round {r + 1}, {name}: {got[name][-1]}", file=sys.stderr)
    text = report(args, got)
    sections.write("all-reduce", text, args.out)
    print(text)


def run_dpt(program, steps):
    out = subprocess.run([program, "-test.run", "^$", "-test.bench", "^BenchmarkAllReduceProcesses$", "-test.benchtime", f"{steps}x"],
                         cwd=ROOT / "allreduce", check=True, stdout=subprocess.PIPE, text=True).stdout
    metric = lambda name: float(re.search(rf"([0-9.e+-]+) {name}\b", out).group(1))
    return {"p50": metric("p50-ms"), "p99": metric("p99-ms"), "cpu": metric("cpu-ms"), "version": "this commit"}


def run_mpi(program, steps):
    command = ["mpirun", "--oversubscribe", "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "lo", "-np", str(RANKS)]
    if os.geteuid() == 0:
        command.insert(1, "--allow-run-as-root")
    return json.loads(subprocess.run(command + [program, str(LENGTH), str(steps)], check=True, stdout=subprocess.PIPE).stdout)


def run_gloo(steps):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    ranks = [context.Process(target=gloo_rank, args=(r, port, steps, results)) for r in range(RANKS)]
    for p in ranks:
        p.start()
    got = [results.get(timeout=600) for _ in ranks]
    for p in ranks:
        p.join()
    first = next(g for g in got if "p50" in g)
    return {**first, "cpu": sum(g["cpu"] for g in got)}


def gloo_rank(rank, port, steps, results):
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    source = 1e-3 * torch.randn(LENGTH, generator=torch.Generator().manual_seed(rank))
    x, times = source.clone(), []
    dist.barrier()
    began = cpu_time()
    for _ in range(steps):
        x.copy_(source)
        begin = time.perf_counter()
        dist.all_reduce(x)
        times.append(time.perf_counter() - begin)
    result = {"cpu": 1e3 * (cpu_time() - began) / steps}
    if rank == 0:
        times.sort()
        result |= {"p50": 1e3 * times[steps // 2], "p99": 1e3 * times[steps * 99 // 100], "version": f"PyTorch {torch.__version__}"}
    dist.barrier()
    results.put(result)
    dist.destroy_process_group()


def cpu_time():
    u = resource.getrusage(resource.RUSAGE_SELF)
    return u.ru_utime + u.ru_stime


def report(args, got):
    middle = {name: {key: statistics.median(g[key] for g in rounds) for key in ("p50", "p99", "cpu")} for name, rounds in got.items()}
    lines = [
        "## All-reduce of T5-Large's prompt", "",
        f"{datetime.date.today()}, {sections.cpu()}, {os.cpu_count()} threads. {LENGTH:,} numbers (11,240 parameters, loss and token count) among {RANKS} processes over",
        f"loopback, {args.steps} one after another, in {args.rounds} rounds that alternate between the three; medians over rounds of what rank 0 saw. CPU time is of all",
        "processes together. dpt sums 128-bit integers exactly, 57 KB a vector on the wire after its empty bytes are left out, and its messages carry checksums; the others sum 45 KB of",
        "float32, to bits that depend on the number of processes. Open MPI's processes poll without sleeping. Made by", "",
        f"    python allreduce/peers/bench_allreduce.py --rounds {args.rounds} --steps {args.steps}", "",
        "| | p50 | p99 | CPU time | dpt's p50 is |", "|---|---|---|---|---|",
    ]
    for name, m in middle.items():
        title = name if name == "dpt" else f"{name} ({got[name][0]['version']})"
        times = "" if name == "dpt" else f"{middle['dpt']['p50'] / m['p50']:.2f} times its"
        lines.append(f"| {title} | {m['p50']:.3f} ms | {m['p99']:.2f} ms | {m['cpu']:.2f} ms | {times} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
