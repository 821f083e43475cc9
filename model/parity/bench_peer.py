"""Measures training steps of dpt and of PyTorch with Transformers' T5, in alternation, and writes its section of
BENCHMARKS.md.

    python bench_peer.py --dpt ../../dpt [--shape t5-base] [--rounds 3] [--data DIR --tokenizer FILE]

Run it by hand on a machine that does nothing else; BENCHMARKS.md says with which command it was made. A round runs every setting once, each
in a process of its own; the table gives the median over rounds. Both programs do the same step: the gradient of a frozen T5's loss with respect to a
decomposed soft prompt of 100 tokens, no dropout, no optimizer. dpt says how long the examples of its batches are; PyTorch gets the same lengths
with random ids, since what the ids are plays no part. Weights are random on both sides.

PyTorch's settings: float32; bfloat16 by autocast; bfloat16 weights. Attention is T5's in Transformers, eager or through
scaled_dot_product_attention. Sources are padded to 256, as the paper's code does, or to the longest of their batch.
"""

import argparse
import datetime
import json
import pathlib
import statistics
import subprocess
import sys
import time

import sections

HERE = pathlib.Path(__file__).resolve().parent
SHAPES = {  # the published config.json files
    "t5-small": dict(d_model=512, d_ff=2048, num_heads=8, num_layers=6),
    "t5-base": dict(d_model=768, d_ff=3072, num_heads=12, num_layers=12),
    "t5-large": dict(d_model=1024, d_ff=4096, num_heads=16, num_layers=24),
}
PAPER_LENGTH = 256
PROMPT, BOTTLENECK = 100, 10


def main():
    if sys.argv[1:2] == ["measure"]:
        json.dump(measure(json.load(sys.stdin)), sys.stdout)
        return
    args = arguments()
    step = alternate(args, "step", step_settings(args))
    data = alternate(args, "data", data_settings(args)) if args.data else []
    text = report(args, step, data)
    sections.write(f"step {args.shape}", text, args.out)
    print(text)


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("--dpt", required=True, help="the program to measure, built with oneDNN")
    p.add_argument("--shape", default="t5-base", choices=SHAPES)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--passes", type=int, default=2, help="passes that count, after those that warm up: two steps at least")
    p.add_argument("--data", help="directory with a directory per task: measures real lengths too")
    p.add_argument("--tokenizer", help="spiece.model or a directory with one")
    p.add_argument("--batches", type=int, default=1, help="batches of each task in a pass over real lengths")
    p.add_argument("--attention", default="eager,sdpa", help="PyTorch's attentions to try")
    p.add_argument("--data-attention", help="those to try with real lengths; default: the same")
    p.add_argument("--dpt-flags", default="", help="further flags for dpt, such as --engine onednn")
    p.add_argument("--out", default=str(sections.FILE))
    args = p.parse_args()
    if bool(args.data) != bool(args.tokenizer):
        p.error("--data and --tokenizer go together")
    return args


def step_settings(args):
    torch = [
        dict(name=f"PyTorch, {dtype}, {attention}", dtype=dtype, attention=attention, pad="longest", precision=precision)
        for dtype, precision in (("float32", "f32"), ("autocast bfloat16", "bf16"), ("bfloat16 weights", "bf16"))
        for attention in args.attention.split(",")
    ]
    return ours() + torch


def data_settings(args):
    torch = [
        dict(name=f"PyTorch, {dtype}, {attention}, padded to {pad}", dtype=dtype, attention=attention, pad=pad, precision=precision)
        for dtype, precision in (("float32", "f32"), ("autocast bfloat16", "bf16"))
        for attention in (args.data_attention or args.attention).split(",")
        for pad in (str(PAPER_LENGTH), "longest")
    ]
    return ours() + torch


def ours():
    return [dict(name=f"dpt, {name}", dpt=True, precision=p) for name, p in (("float32", "f32"), ("bfloat16", "bf16"))]


def alternate(args, what, settings):
    """Runs every setting once a round and adds the medians to it."""
    runs = [[] for _ in settings]
    for r in range(args.rounds):
        lengths = None
        for setting, results in zip(settings, runs):
            if setting.get("dpt"):
                result = run_dpt(args, what, setting["precision"])
                lengths = result["lengths"]
            else:
                result = run_torch(args, setting, lengths)
            results.append(result)
            print(f"{what}, round {r + 1}: {setting['name']}: {result['examples_per_second']:.3g} examples/s", file=sys.stderr)
    for setting, results in zip(settings, runs):
        for key in ("examples_per_second", "gflops_standard", "gflops_done", "gflops_limit", "limit_share",
                    "gflops_fastest", "fastest_share", "median_of_fastest", "peak_resident_bytes", "load_seconds"):
            values = [r[key] for r in results if key in r]
            if values:
                setting[key] = statistics.median(values)
        setting["engine"] = results[0].get("engine", "")
        setting["versions"] = results[0].get("versions", {})
    # A pass's FLOPs as the standard algorithm counts them are the same for all.
    per_example = settings[0]["gflops_standard"] / settings[0]["examples_per_second"]
    for setting in settings:
        setting["gflops_standard"] = per_example * setting["examples_per_second"]
    return settings


def run_dpt(args, what, precision):
    command = [args.dpt, "bench", what, "--json", "--cpu", "--shape", args.shape, "--batch", str(args.batch), "--dtype", precision,
               "--threads", str(args.threads), "--passes", str(args.passes), "--prompt-length", str(PROMPT), "--source-length", str(PAPER_LENGTH)]
    if what == "data":
        command += ["--data", args.data, "--tokenizer", args.tokenizer, "--batches", str(args.batches)]
    out = subprocess.run(command + args.dpt_flags.split(), check=True, stdout=subprocess.PIPE).stdout
    return json.loads(out)


def run_torch(args, setting, lengths):
    job = dict(setting, shape=args.shape, lengths=lengths, threads=args.threads, passes=args.passes)
    out = subprocess.run([sys.executable, __file__, "measure"], input=json.dumps(job).encode(), check=True, stdout=subprocess.PIPE).stdout
    return json.loads(out)


def measure(job):
    """One setting of PyTorch, in a process of its own."""
    import torch
    import transformers

    torch.set_num_threads(job["threads"])
    torch.manual_seed(1)
    config = transformers.T5Config(vocab_size=32128, d_kv=64, use_cache=False, decoder_start_token_id=0, **SHAPES[job["shape"]])
    config._attn_implementation = job["attention"]
    model = transformers.T5ForConditionalGeneration(config).eval().requires_grad_(False)
    if job["dtype"] == "bfloat16 weights":
        model = model.bfloat16()
    A = torch.randn(config.d_model, BOTTLENECK, requires_grad=True)
    B = torch.randn(BOTTLENECK, PROMPT, requires_grad=True)
    batches = [pad(torch, batch, job["pad"]) for batch in job["lengths"]]

    def step(ids, mask, labels):
        A.grad = B.grad = None
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=job["dtype"] == "autocast bfloat16"):
            embeds = model.get_input_embeddings()(ids)
            prompt = (A @ B).T.to(embeds.dtype).expand(len(ids), -1, -1)
            mask = torch.cat([torch.ones(len(ids), PROMPT, dtype=mask.dtype), mask], 1)
            loss = model(inputs_embeds=torch.cat([prompt, embeds], 1), attention_mask=mask, labels=labels).loss
        loss.backward()
        assert torch.isfinite(loss) and A.grad is not None and B.grad is not None

    def run():
        began = time.perf_counter()
        for batch in batches:
            step(*batch)
        return time.perf_counter() - began

    pathlib.Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    for _ in range(0, 2, len(batches)):
        run()
    seconds = statistics.median(run() for _ in range(job["passes"]))
    peak = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM:"))
    return dict(
        examples_per_second=sum(map(len, job["lengths"])) / seconds,
        peak_resident_bytes=peak,
        versions={"PyTorch": torch.__version__, "Transformers": transformers.__version__, "Python": sys.version.split()[0]},
    )


def pad(torch, batch, how):
    """Random ids, mask and labels of a batch of (source, target) lengths."""
    longest = max(s for s, _ in batch) if how == "longest" else int(how)
    ids = torch.randint(2, 32000, (len(batch), longest))
    mask = torch.zeros(len(batch), longest, dtype=torch.long)
    labels = torch.randint(2, 32000, (len(batch), max(t for _, t in batch)))
    for i, (source, target) in enumerate(batch):
        mask[i, :source] = 1
        ids[i, source:] = 0
        labels[i, target:] = -100
    return ids, mask, labels


def report(args, step, data):
    versions = next(s["versions"] for s in step if s["versions"])
    lines = [
        f"## Training steps of {args.shape}", "",
        f"{datetime.date.today()}, {sections.cpu()}, {args.threads} threads. {step[0]['engine']}; "
        + ", ".join(f"{k} {v}" for k, v in versions.items()) + ".", "",
        "Training steps of a decomposed soft prompt of 100 tokens before a frozen T5 with random weights: loss and gradient, no optimizer. Every setting ran",
        f"in a process of its own, in {args.rounds} rounds that alternate between all of them; numbers are medians over rounds. Peak memory is what was",
        "resident while stepping, weights included. GFLOP/s count what the standard algorithm multiplies without padding, the same for all. Made by", "",
        "    python model/parity/bench_peer.py " + " ".join(shown(sys.argv[1:])), "",
        f"### {args.shape}, batch {args.batch}, {PAPER_LENGTH} source tokens and 4 target tokens", "",
    ]
    lines += table(step)
    limits = [
        f"{s['name'].removeprefix('dpt, ')} {s['gflops_done']:.0f} of {s['gflops_limit']:.0f} GFLOP/s ({100 * s['limit_share']:.0f}%) by medians; "
        f"the fastest pass {100 * s['fastest_share']:.0f}% and the median pass {100 * s['median_of_fastest']:.0f}% of {s['gflops_fastest']:.0f} GFLOP/s, which the fastest time of each product gives"
        for s in step if "limit_share" in s
    ]
    lines += ["", "Of the engine's limit, measured between the same runs' passes on the same products by themselves, dpt reaches, counting the products really made: " + ". ".join(x[0].upper() + x[1:] for x in limits) + ".", ""]
    if data:
        lines += [f"### {args.shape}, batch {args.batch}, real lengths: {args.batches} batch(es) of each SuperGLUE task, sources up to {PAPER_LENGTH}", ""]
        lines += table(data) + [""]
    return "\n".join(lines)


def table(settings):
    best = {p: next(s["examples_per_second"] for s in settings if s.get("dpt") and s["precision"] == p) for p in ("f32", "bf16")}
    lines = ["| setting | examples/s | GFLOP/s | peak memory | dpt of the same precision is |", "|---|---|---|---|---|"]
    for s in settings:
        times = "" if s.get("dpt") else f"{best[s['precision']] / s['examples_per_second']:.2f} times as fast"
        lines.append(f"| {s['name']} | {s['examples_per_second']:.3g} | {s['gflops_standard']:.0f} | {s['peak_resident_bytes'] / 2**20:.0f} MiB | {times} |")
    return lines


def shown(argv):
    """The arguments without the directories of the machine."""
    return [pathlib.Path(a).name if "/" in a else a for a in argv]


if __name__ == "__main__":
    main()
