"""The checks of run.py. Each takes a Bench and reports what it measured; none depends on another's having run."""

import functools
import json
import shutil

import sentencepiece
import tokenizers
import torch
from safetensors.torch import load_file, save_file

import checkpoints
import reference
import superglue

LOGITS, LOSS, GRADIENT, TRAJECTORY = 1e-4, 1e-5, 1e-4, 1e-3

# A ReLU's derivative jumps at 0. Among the 39 million inputs of ReLUs of the batch below a few lie nearer to 0 than float32 is
# exact (5e-7 here), and each that falls on the other side changes the gradient of its row by a percent: PyTorch's own
# gradients in float32 and float64 differ so. Hence the bound for a whole batch of v1.0, and the bound of GRADIENT
# where no input of a ReLU is nearer to 0 than CLEAR.
KINKS, CLEAR = 5e-3, 3e-6

SMALL = dict(cross=4, echo=0.05, vocab_size=32128, d_model=512, d_kv=64, num_heads=8, num_layers=6, num_decoder_layers=6)
MODELS = {
    "v1.0": dict(SMALL, d_ff=2048, feed_forward_proj="relu", tie_word_embeddings=True),
    "v1.0 in shards": dict(SMALL, d_ff=2048, feed_forward_proj="relu", tie_word_embeddings=True, max_shard_size="50MB"),
    "v1.1": dict(SMALL, d_ff=1024, num_heads=6, num_layers=8, num_decoder_layers=8, feed_forward_proj="gated-gelu",
                 tie_word_embeddings=False),
    # The vocabulary of T5 on a body that trains in seconds, for what needs many runs. It likes to say "1", a label, too.
    "quick": dict(loud=(1, 209), cross=4, echo=0.05, vocab_size=32128, d_model=64, d_kv=16, num_heads=4, d_ff=128, num_layers=2, num_decoder_layers=2,
                  feed_forward_proj="relu", tie_word_embeddings=True),
}

# What the paper trains with, but for the number of steps.
SETTINGS = dict(lr=0.3, weight_decay=1e-5, warmup=0.1, max_norm=1.0)

HARD = [
    "", " ", "   ", "\t\n\r", "a", " a", "a ", "a  b", "▁", "▁▁a ▁", "ＦＵＬＬ ｗｉｄｔｈ １２３　！", "ﬁﬂﬃ ſt ĳ", "e\u0301 n\u0303 a\u0308\u0301",
    "한국어 조선말 각", "日本語、中文。", "العربية עברית", "👩\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 👍🏽 🇩🇪", "zero\u200bwidth\u200c\u200d\ufeffjoin",
    "\u00ad soft\u00adhyphen", "\u0000\u0001\u001f\u007f\u0085", "½ ² ℃ ™ … ‥ ㎏", "\u2028\u2029\u00a0\u3000", "\U0010ffff \ufffd \ue000",
    "a" * 100_000, "ab " * 5_000, "<", "<extra_id", "</s", "x" + "\u0301" * 300,
]
SPECIAL = [
    "<extra_id_0>", "a <extra_id_0> b", "a<extra_id_1>b", "<extra_id_99><extra_id_98>", "  <extra_id_3>  c ", "</s>", "end</s>", "end </s> more",
    "<pad>", "a <pad> b", "<unk>", "x<unk>y", "<extra_id_100>", "<EXTRA_ID_0>", "</s></s>", "one <extra_id_0> two <extra_id_1> three </s>",
]


class Bench:
    """What the checks share: the programs, the report, the data, and models made when first asked for."""

    def __init__(self, programs, report, work, data, tokenizer):
        self.programs, self.report, self.work, self.data, self.tokenizer = programs, report, work, data, tokenizer
        self.pieces = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer / "spiece.model"))

    @functools.cache
    def model(self, name):
        """The directory of a checkpoint as Transformers writes it, with T5's tokenizer."""
        directory = self.work / "models" / name.replace(" ", "-")
        if not (directory / "spiece.model").exists():
            checkpoints.write(directory, torch.Generator().manual_seed(1), **MODELS[name])
            shutil.copyfile(self.tokenizer / "spiece.model", directory / "spiece.model")
        return directory

    @functools.cache
    def reference(self, name):
        return reference.load(self.model(name))

    def prompt(self, name, length, bottleneck, std, seed=2):
        """A prompt file for a model, as the program reads it, and its A and B."""
        generator = torch.Generator().manual_seed(seed)
        A = std * torch.randn(MODELS[name]["d_model"], bottleneck, generator=generator)
        B = std * torch.randn(bottleneck, length, generator=generator)
        path = self.work / f"prompt-{name.replace(' ', '-')}-{length}-{std}-{seed}.safetensors"
        save_file({"A": A, "B": B, "prompt": reference.product(A, B).contiguous()}, path)
        return path, A, B

    def soft(self, name, method, length, bottleneck, std, seed=3):
        """A prompt file of a method for a model, as the program reads and writes it, and the prompt in PyTorch."""
        soft = reference.start(method, MODELS[name]["d_model"], length, bottleneck, std, torch.Generator().manual_seed(seed))
        path = self.work / f"{method}-{name.replace(' ', '-')}-{length}-{std}-{seed}.safetensors"
        # "prompt" of pt is what is trained; of the others it is what they make.
        save_file({**soft.state_dict(), "prompt": soft().detach().contiguous()}, path)
        return path, soft

    def ids(self, text, limit=None):
        """Token ids as SentencePiece gives them, with </s>, cut as Transformers cuts."""
        ids = self.pieces.encode(text)
        return (ids if limit is None else ids[: limit - 1]) + [1]

    def pair(self, example, max_source=None, max_target=None):
        return self.ids(example.source, max_source), self.ids(example.target, max_target)

    def examples(self):
        """A handful of different kinds: short and long sources, one token and several to generate."""
        chosen = []
        for task, count in (("rte", 2), ("copa", 1), ("record", 1), ("wsc", 1), ("multirc", 1)):
            chosen += superglue.train(self.data, task)[:count]
        return chosen

    def replay(self, name, task, metrics, soft, max_source, max_target):
        """The steps that metrics.jsonl tells of, done by PyTorch from a prompt, which it leaves trained."""
        known = superglue.by_id(self.data, task)
        batches = [[self.pair(known[i], max_source, max_target) for i in line["examples"]] for line in metrics]
        return list(reference.train(self.reference(name), soft, batches, len(metrics), **SETTINGS))


def tokenize(bench):
    """dpt tokenize against SentencePiece on every text of the data, and hard ones"""
    path = bench.tokenizer / "spiece.model"
    for what, texts, expected in (
        ("texts of the data", superglue.texts(bench.data), bench.pieces.encode),
        ("hard texts", HARD, bench.pieces.encode),
        ("special tokens in text (fast T5 tokenizer)", SPECIAL, _fast(bench.tokenizer / "tokenizer.json")),
    ):
        got = bench.programs.dpt("tokenize", "--tokenizer", path, lines=texts)
        want = [list(expected(text)) for text in texts]
        wrong = [t for t, g, w in zip(texts, got, want) if g != w]
        bench.report.equal(f"tokenize, {what}", len(wrong) + abs(len(got) - len(want)), len(texts))
        for text in wrong[:3]:
            bench.report.note(f"differs: {text[:80]!r}")
    got = bench.programs.dpt("tokenize", "--tokenizer", path, "--eos", lines=["a b"])
    bench.report.equal("tokenize --eos", int(got != [bench.ids("a b")]), 1)


def _fast(path):
    fast = tokenizers.Tokenizer.from_file(str(path))
    return lambda text: fast.encode(text, add_special_tokens=False).ids


def score(bench):
    """dpt score --grad --logits against PyTorch, with and without a prompt"""
    examples = bench.examples()
    texts = [(e.source, e.target) for e in examples]
    pairs = [bench.pair(e) for e in examples]
    for name in ("v1.0", "v1.0 in shards", "v1.1"):
        model = bench.reference("v1.0" if name == "v1.0 in shards" else name)
        path, A, B = bench.prompt("v1.1" if name == "v1.1" else "v1.0", length=100, bottleneck=10, std=0.3)
        for front, soft in ((None, None), (path, reference.product(A, B))):
            what = f"score, {name}, {'no prompt' if front is None else 'prompt'}: "
            printed, grad, logits = bench.programs.score(bench.model(name), texts, bench.work, front)
            loss, losses, want, _ = reference.score(model, soft, pairs)
            farthest = max((g - w).abs().max().item() for g, w in zip(logits, want))
            bench.report.within(what + "logits", farthest, LOGITS)
            each = [relative(p["loss"] * p["tokens"], l) for p, l in zip(printed, losses)]
            bench.report.within(what + "loss of a pair", max(each), LOSS)
            bench.report.within(what + "mean token loss", relative(printed[-1]["loss"], loss), LOSS)
            counts = [len(t) for _, t in pairs]
            wrong = sum(p["tokens"] != c for p, c in zip(printed, counts + [sum(counts)]))
            bench.report.equal(what + "tokens", wrong, len(printed))
            if front is not None:
                _gradients(bench, what, grad, reference.gradients(model, A, B, pairs), GRADIENT if name == "v1.1" else KINKS)
    _clear_gradients(bench, examples)


def _gradients(bench, what, got, want, bound):
    for key, expected in zip(("prompt", "dA", "dB"), want[1:]):
        bench.report.within(f"{what}d{'P' if key == 'prompt' else key[1:]}", distance(got[key], expected), bound)


def _clear_gradients(bench, examples, wanted=3):
    """v1.0's gradients where no input of a ReLU is near 0: single short pairs behind the prompts of the first fitting seeds."""
    exact = reference.load(bench.model("v1.0"), torch.float64)
    for example in sorted(examples, key=lambda e: len(e.source))[:wanted]:
        pair = bench.pair(example)
        for seed in range(100, 200):
            path, A, B = bench.prompt("v1.0", length=20, bottleneck=10, std=0.3, seed=seed)
            if reference.kink_distance(exact, reference.product(A.double(), B.double()), [pair]) > CLEAR:
                break
            path.unlink()
        else:
            raise RuntimeError(f"no prompt of 100 keeps the ReLUs of {len(pair[0])} source tokens {CLEAR} away from 0")
        grad = bench.programs.score(bench.model("v1.0"), [(example.source, example.target)], bench.work, path)[1]
        want = reference.gradients(bench.reference("v1.0"), A, B, [pair])
        _gradients(bench, f"score, v1.0, prompt, {len(pair[0])} tokens clear of kinks: ", grad, want, GRADIENT)


def finetune(bench):
    """dpt score --weight-grad against PyTorch, and five AdamW steps on all weights by these gradients"""
    examples = sorted(bench.examples(), key=lambda e: len(e.source))[:3]
    texts = [(e.source, e.target) for e in examples]
    pairs = [bench.pair(e) for e in examples]
    for name, bound in (("v1.0", KINKS), ("v1.1", GRADIENT)):
        driven = bench.work / "models" / "driven"
        shutil.rmtree(driven, ignore_errors=True)
        shutil.copytree(bench.model(name), driven)
        stored = load_file(driven / "model.safetensors")
        by_torch, by_program = _trained(bench.model(name)), _trained(driven)
        worst = 0
        for step in range(FULL_STEPS):
            loss, grads = bench.programs.weight_gradients(driven, texts, bench.work)
            want = by_torch.step(pairs)
            if step == 0:
                assert set(grads) == set(want.grads), "other weights than PyTorch's"
                which, far = max(((n, distance(grads[n], g)) for n, g in want.grads.items()), key=lambda x: x[1])
                bench.report.within(f"finetune, {name}: gradient of {len(grads)} weights, worst {which}", far, bound)
            worst = max(worst, relative(loss, want.loss))
            by_program.take(grads)
            save_file({n: by_program.weights[n].detach().contiguous() for n in stored}, driven / "model.safetensors", metadata={"format": "pt"})
        bench.report.within(f"finetune, {name}: losses of {FULL_STEPS} steps of AdamW on all weights", worst, TRAJECTORY)


FULL_STEPS, FULL_SETTINGS, FULL_NORM = 5, dict(lr=1e-3, weight_decay=1e-2), 1.0


class _trained:
    """A model in a directory with an optimizer on all its weights."""

    def __init__(self, directory):
        self.model = reference.load(directory)
        self.weights = dict(self.model.named_parameters())
        for p in self.weights.values():
            p.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(list(self.weights.values()), **FULL_SETTINGS)

    def step(self, pairs):
        """One step by PyTorch's own gradient."""
        self.optimizer.zero_grad()
        loss = reference.forward(self.model, None, pairs).loss
        loss.backward()
        self.loss = loss.item()
        self.grads = {n: p.grad.clone() for n, p in self.weights.items()}
        self._update()
        return self

    def take(self, grads):
        """One step by somebody else's gradient."""
        for n, p in self.weights.items():
            p.grad = grads[n].clone()
        self._update()

    def _update(self):
        torch.nn.utils.clip_grad_norm_(list(self.weights.values()), FULL_NORM)
        self.optimizer.step()


def predict(bench):
    """dpt predict against Transformers' greedy generate"""
    limit, sources = 24, [e.source for e in bench.examples()]
    for name in ("v1.0", "v1.1", "quick"):
        path, A, B = bench.prompt(name, length=20, bottleneck=10, std=0.3)
        for front, soft in ((None, None), (path, reference.product(A, B))):
            _predict(bench, f"predict, {name}, {'no prompt' if front is None else 'prompt'}", name, front, soft, sources, limit)


def _predict(bench, what, name, front, soft, sources, limit, max_source=256):
    args = ["predict", "--model", bench.model(name), "--max-target-length", limit, "--max-source-length", max_source, "--cpu",
            "--threads", bench.programs.threads]
    got = bench.programs.dpt(*args, *([] if front is None else ["--prompt", front]), lines=sources)
    ids = [bench.ids(s, max_source) for s in sources]
    outputs, margin = reference.greedy(bench.reference(name), soft, ids, limit)
    fast = tokenizers.Tokenizer.from_file(str(bench.tokenizer / "tokenizer.json"))
    want = [fast.decode(o, skip_special_tokens=True) for o in outputs]
    wrong = sum(g != w for g, w in zip(got, want)) + abs(len(got) - len(want))
    bench.report.equal(what, wrong, len(sources))
    if wrong:
        bench.report.note(f"closest choice led by {margin:.1e} of a logit")
        for g, w in zip(got, want):
            if g != w:
                bench.report.note(f"got  {g[:120]!r}")
                bench.report.note(f"want {w[:120]!r}")


def train(bench):
    """two workers on ReCoRD follow PyTorch's losses; one and four workers end with the same bytes"""
    max_source, max_target, length, bottleneck, steps = 256, 128, 100, 10, 10
    init, A, B = bench.prompt("v1.0", length, bottleneck, std=1.0)
    flags = _job(bench, "v1.0", "record", init, length, bottleneck, steps, max_source, max_target)
    files = {}
    for workers in (2, 1, 4):
        out = bench.work / "runs" / f"record-{workers}"
        shutil.rmtree(out, ignore_errors=True)
        metrics = bench.programs.train(out, workers, *flags)
        files[workers] = (out / "prompt.safetensors").read_bytes()
        if workers == 2:
            soft = reference.Decomposed(A, B)
            _compare(bench, "train, ReCoRD, 2 workers: ", metrics, steps, bench.replay("v1.0", "record", metrics, soft, max_source, max_target))
            got = load_file(out / "prompt.safetensors")
            # Adam divides by small second moments, so the parameters drift apart sooner than the losses.
            bench.report.within("train, ReCoRD, 2 workers: final prompt", distance(got["prompt"], soft().detach()), 1e-2)
    for workers in (1, 4):
        bench.report.equal(f"train, ReCoRD: prompt.safetensors of {workers} and of 2 workers", int(files[workers] != files[2]), 1)


def methods(bench):
    """pt, respt and svd: two workers on RTE follow PyTorch's losses"""
    max_source, max_target, length, steps = 256, 16, 100, 10
    for method, bottleneck in (("pt", 0), ("respt", 400), ("svd", 100)):
        init, soft = bench.soft("v1.0", method, length, bottleneck, std=0.3)
        out = bench.work / "runs" / f"rte-{method}"
        shutil.rmtree(out, ignore_errors=True)
        flags = _job(bench, "v1.0", "rte", init, length, bottleneck, steps, max_source, max_target)
        metrics = bench.programs.train(out, 2, "--method", method, *flags)
        what = f"methods, {method}, RTE, 2 workers: "
        _compare(bench, what, metrics, steps, bench.replay("v1.0", "rte", metrics, soft, max_source, max_target))
        got = load_file(out / "final.safetensors")
        bench.report.within(what + "final prompt", distance(got["prompt"], soft().detach()), 1e-2)
        if method != "pt":
            wrong = sum(got[k].shape != v.shape for k, v in soft.state_dict().items())
            bench.report.equal(what + "trained tensors in the file", wrong + abs(len(got) - 1 - len(soft.state_dict())), len(got) - 1)


def _job(bench, name, task, init, length, bottleneck, steps, max_source, max_target):
    width = ["--bottleneck", bottleneck] if bottleneck else []
    return [*width, "--model", bench.model(name), "--data", bench.data, "--task", task, "--init", init, "--prompt-length", length,
            "--steps", steps, "--batch-size", 8, "--micro-batch", 2, "--lr", SETTINGS["lr"],
            "--weight-decay", SETTINGS["weight_decay"], "--warmup", SETTINGS["warmup"], "--max-grad-norm", SETTINGS["max_norm"],
            "--max-source-length", max_source, "--max-target-length", max_target, "--seed", 7]


def _compare(bench, what, metrics, steps, replayed):
    bench.report.equal(what + "steps", int([m["step"] for m in metrics] != list(range(1, steps + 1))), 1)
    losses = [relative(m["loss"], r[0]) for m, r in zip(metrics, replayed)]
    bench.report.within(what + "loss of any step", max(losses), TRAJECTORY)
    bench.report.within(what + "learning rate", max(abs(m["lr"] - r[1]) for m, r in zip(metrics, replayed)), 1e-9)
    bench.report.within(what + "gradient norm", max(relative(m["grad_norm"], r[2]) for m, r in zip(metrics, replayed)), 1e-2)
    bench.report.note("losses " + " ".join(f"{m['loss']:.4f}" for m in metrics))


def export(bench):
    """dpt export --format peft: PEFT with the adapter gives dpt's logits and greedy outputs, for every method's prompts"""
    from peft import PeftModel

    limit, examples = 24, bench.examples()
    texts = [(e.source, e.target) for e in examples]
    pairs = [bench.pair(e) for e in examples]
    width = max(len(s) for s, _ in pairs)
    ids = torch.tensor([s + [0] * (width - len(s)) for s, _ in pairs])
    mask = torch.tensor([[1] * len(s) + [0] * (width - len(s)) for s, _ in pairs])
    fast = tokenizers.Tokenizer.from_file(str(bench.tokenizer / "tokenizer.json"))
    for method, bottleneck in (("dpt", 10), ("pt", 0), ("respt", 400)):
        path, soft = bench.soft("v1.0", method, length=100, bottleneck=bottleneck, std=0.3)
        out = bench.work / "adapter"
        shutil.rmtree(out, ignore_errors=True)
        bench.programs.dpt("export", "--prompt", path, "--format", "peft", "--out", out, "--model", bench.model("v1.0"))
        peft = PeftModel.from_pretrained(reference.load(bench.model("v1.0")), out).eval()
        with torch.no_grad():
            logits = peft(input_ids=ids, attention_mask=mask, labels=reference.labels([t for _, t in pairs])).logits
            outputs = peft.generate(input_ids=ids, attention_mask=mask, max_new_tokens=limit, do_sample=False, num_beams=1)
        want = reference.score(bench.reference("v1.0"), soft().detach(), pairs)[2]
        ours = bench.programs.score(bench.model("v1.0"), texts, bench.work, path)[2]
        for what, rows in (("PyTorch", want), ("dpt score", ours)):
            farthest = max((logits[i, : len(w)] - w).abs().max().item() for i, w in enumerate(rows))
            bench.report.within(f"export, {method}, PEFT's logits and those of {what}", farthest, LOGITS)
        lines = bench.programs.dpt("predict", "--model", bench.model("v1.0"), "--prompt", path, "--max-target-length", limit,
                                   "--max-source-length", width, "--cpu", "--threads", bench.programs.threads, lines=[s for s, _ in texts])
        spoken = [fast.decode(row.tolist(), skip_special_tokens=True) for row in outputs]
        bench.report.equal(f"export, {method}, PEFT's greedy outputs and those of dpt predict", sum(a != b for a, b in zip(spoken, lines)), len(texts))
        # Outputs that do not depend on the prompt would say nothing about it.
        bare = reference.greedy(bench.reference("v1.0"), None, [s for s, _ in pairs], limit)[0]
        moved = sum(fast.decode(b, skip_special_tokens=True) != s for b, s in zip(bare, spoken))
        bench.report.equal(f"export, {method}, outputs that the prompt changes at all", int(moved == 0), 1)


def tasks(bench):
    """all eight tasks train, evaluate and predict, and follow PyTorch's losses"""
    max_source, max_target, length, bottleneck, steps = 256, 16, 10, 4, 20
    for task in superglue.DIRECTORIES:
        out = bench.work / "runs" / f"quick-{task}"
        shutil.rmtree(out, ignore_errors=True)
        init, A, B = bench.prompt("quick", length, bottleneck, std=0.5)
        flags = _job(bench, "quick", task, init, length, bottleneck, steps, max_source, max_target)
        metrics = bench.programs.train(out, 2, *flags, "--eval-split", "train", "--eval-every", steps // 2)
        _compare(bench, f"{task}: ", metrics, steps, bench.replay("quick", task, metrics, reference.Decomposed(A, B), max_source, max_target))

        prompt = out / "final.safetensors"
        scores = bench.programs.dpt("eval", "--model", bench.model("quick"), "--prompt", prompt, "--task", task, "--data", bench.data,
                                    "--split", "train", "--max-target-length", max_target, "--cpu", "--threads", bench.programs.threads)[0]
        evaluations = [json.loads(line) for line in (out / "eval.jsonl").read_text().splitlines()]
        want = {**evaluations[-1]["metrics"], "loss": evaluations[-1]["loss"], "examples": evaluations[-1]["examples"]}
        bench.report.equal(f"{task}: evaluations of the run", int([e["step"] for e in evaluations] != [0, steps // 2, steps]), 1)
        wrong = sum(scores.get(k) != v for k, v in want.items())
        bench.report.equal(f"{task}: dpt eval and the run's own last evaluation", wrong, len(want))
        bench.report.note(json.dumps(scores))

        sources = list(dict.fromkeys(e.source for e in superglue.train(bench.data, task)))
        _predict(bench, f"{task}: dpt predict", "quick", prompt, load_file(prompt)["prompt"], sources, max_target, max_source)
        if task in ("boolq", "cb", "copa", "rte", "wic"):
            _accuracy(bench, task, prompt, max_source)


def _accuracy(bench, task, prompt, max_source):
    """dpt eval's accuracy of one-token answers, of which some are right even for a random model."""
    got = bench.programs.dpt("eval", "--model", bench.model("quick"), "--prompt", prompt, "--task", task, "--data", bench.data,
                             "--split", "train", "--max-source-length", max_source, "--max-target-length", 1, "--cpu",
                             "--threads", bench.programs.threads)[0]["accuracy"]
    examples = superglue.train(bench.data, task)
    ids = [bench.ids(e.source, max_source) for e in examples]
    outputs, _ = reference.greedy(bench.reference("quick"), load_file(prompt)["prompt"], ids, 1)
    want = 100 * sum(bench.pieces.decode(o) == e.target for o, e in zip(outputs, examples)) / len(examples)
    bench.report.within(f"{task}: accuracy of one-token answers", abs(got - want), 1e-9)
    bench.report.note(f"accuracy {got}")


def relative(got, want):
    return abs(got - want) / abs(want)


def distance(got, want):
    """The norm of the difference over the norm."""
    return ((got - want).norm() / want.norm()).item()


ALL = {"tokenize": tokenize, "score": score, "finetune": finetune, "predict": predict, "train": train, "methods": methods, "export": export, "tasks": tasks}
