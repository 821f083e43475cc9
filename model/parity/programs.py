"""Runs the built programs the way a user does: by their flags, files and exit status."""

import contextlib
import json
import pathlib
import socket
import subprocess

from safetensors.torch import load_file

JOB_LIMIT = 3600  # seconds for a training job


class Programs:
    """dpt, dpt-coord and dpt-worker in a directory. threads is for each process."""

    def __init__(self, directory, threads):
        self.directory, self.threads = pathlib.Path(directory).resolve(), threads
        for name in ("dpt", "dpt-coord", "dpt-worker"):
            if not (self.directory / name).is_file():
                raise SystemExit(f"{self.directory / name} is not there; build it with: go build -o {directory} ./cmd/...")

    def dpt(self, *args, lines=None):
        """Runs dpt; lines are the JSON values of its standard input. Returns those of its standard output."""
        given = None if lines is None else "".join(json.dumps(line) + "\n" for line in lines)
        command = [str(self.directory / "dpt"), *map(str, args)]
        done = subprocess.run(command, input=given, capture_output=True, encoding="utf-8", timeout=JOB_LIMIT)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
        # One JSON value may be spread over lines (dpt eval); several are one a line.
        decoder, values, rest = json.JSONDecoder(), [], done.stdout.lstrip()
        while rest:
            value, end = decoder.raw_decode(rest)
            values.append(value)
            rest = rest[end:].lstrip()
        return values

    def score(self, model, pairs, work, prompt=None):
        """dpt score of (source, target) texts: the lines it prints, its gradients and its logits per pair."""
        data, grad, logits = work / "pairs.jsonl", work / "grad.safetensors", work / "logits.safetensors"
        data.write_text("".join(json.dumps({"source": s, "target": t}) + "\n" for s, t in pairs))
        args = ["score", "--model", model, "--data", data, "--logits", logits, "--cpu", "--threads", self.threads]
        if prompt is not None:
            args += ["--prompt", prompt, "--grad", grad]
        printed = self.dpt(*args)
        rows = load_file(logits)
        return printed, load_file(grad) if prompt is not None else None, [rows[f"logits.{i}"] for i in range(len(pairs))]

    def weight_gradients(self, model, pairs, work):
        """dpt score --weight-grad: the mean token loss of (source, target) texts and its gradient by weight."""
        data, grad = work / "pairs.jsonl", work / "weight-grad.safetensors"
        data.write_text("".join(json.dumps({"source": s, "target": t}) + "\n" for s, t in pairs))
        printed = self.dpt("score", "--model", model, "--data", data, "--weight-grad", grad, "--cpu", "--threads", self.threads)
        return printed[-1]["loss"], load_file(grad)

    def train(self, out, workers, *flags):
        """A job with worker processes of its own; returns the lines of metrics.jsonl."""
        out.parent.mkdir(parents=True, exist_ok=True)
        address = f"127.0.0.1:{free_port()}"
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(open(f"{out}.log", "w"))

            def start(name, *args):
                command = [str(self.directory / name), *map(str, args)]
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
                stack.callback(stop, process)
                return process

            coordinator = start(
                "dpt-coord", "--nodes", workers, "--listen", address, "--out", out, "--log-examples", *flags
            )
            for _ in range(workers):
                start("dpt-worker", "--coord", address, "--cpu", "--threads", self.threads)
            try:
                status = coordinator.wait(JOB_LIMIT)
            except subprocess.TimeoutExpired:
                raise RuntimeError(f"dpt-coord still runs after {JOB_LIMIT} s; see {out}.log") from None
            if status != 0:
                tail = pathlib.Path(f"{out}.log").read_text().strip().splitlines()[-3:]
                raise RuntimeError(f"dpt-coord: exit {status}: {' / '.join(tail)}; see {out}.log")
        return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def stop(process):
    """Ends a process, gently at first."""
    if process.poll() is None:
        process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
        return
    process.kill()
    process.wait()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
