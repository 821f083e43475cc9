"""Writes testdata: what Transformers and PyTorch compute for two tiny T5s. See README.md.

    python make_goldens.py [--out testdata] [--data ../../../shared/data/fewglue]

--data is a directory with RTE/train.jsonl in SuperGLUE's format; without it the trajectory on real examples is
left as it is.
"""

import argparse
import copy
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file

import checkpoints
import reference
import superglue

VOCABULARY = 384
LENGTH, BOTTLENECK = 7, 3
GREEDY_LIMIT = 12
SOURCES = [1, 2, 9, 23, 40]
TARGETS = [1, 3, 7, 2, 20]

# The seeds are chosen so that greedy decoding says something other than one token over and over.
SHAPES = {
    "v10": dict(seed=50, feed_forward_proj="relu", d_ff=48, tie_word_embeddings=True),
    "v11": dict(seed=11, feed_forward_proj="gated-gelu", d_ff=64, tie_word_embeddings=False),
}


def checkpoint(directory, shape, generator):
    checkpoints.write(
        directory,
        generator,
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        num_heads=3,
        num_layers=2,
        num_decoder_layers=3,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        **shape,
    )
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"extra_ids": 125, "tokenizer_class": "ByT5Tokenizer"}, indent=2) + "\n"
    )


def batch(generator):
    def ids(n):
        return torch.randint(3, VOCABULARY, (n - 1,), generator=generator).tolist() + [1]

    return [(ids(s), ids(t)) for s, t in zip(SOURCES, TARGETS)]


def goldens(directory, shape, seed):
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    checkpoint(directory, shape, generator)
    pairs = batch(generator)
    sources = [s for s, _ in pairs]
    model = reference.load(directory)
    e = model.config.d_model
    A = 0.8 * torch.randn(e, BOTTLENECK, generator=generator)
    B = 0.8 * torch.randn(BOTTLENECK, LENGTH, generator=generator)
    prompt = reference.product(A, B).contiguous()
    save_file({"A": A, "B": B, "prompt": prompt}, directory / "prompt.safetensors")

    tensors, expected = {}, {}
    for name, p in (("prompt", prompt), ("plain", None)):
        loss, losses, logits, encoded = reference.score(model, p, pairs)
        tensors[f"{name}.logits"] = torch.cat(logits)
        tensors[f"{name}.encoder"] = torch.cat(encoded)
        outputs, margin = reference.greedy(model, p, sources, GREEDY_LIMIT)
        assert margin > 1e-3, f"{directory.name} {name}: greedy decided by {margin}; choose another seed"
        expected[name] = {"loss": loss, "losses": losses, "tokens": TARGETS, "greedy": outputs}
        # Padding must not matter, or the goldens would say something about padding.
        for i, pair in enumerate(pairs):
            alone, _, rows, _ = reference.score(model, p, [pair])
            assert (rows[0] - logits[i]).abs().max() < 2e-5
            assert reference.greedy(model, p, [pair[0]], GREEDY_LIMIT)[0] == [outputs[i]]
        print(directory.name, name, f"loss {loss:.4f}, logits std {torch.cat(logits).std():.2f},",
              f"greedy lengths {[len(o) for o in outputs]}, margin {margin:.4f}")

    loss, dP, dA, dB = reference.gradients(model, A, B, pairs)
    assert abs(loss - expected["prompt"]["loss"]) < 1e-6
    double = reference.load(directory, torch.float64)
    loss64, dP64, dA64, dB64 = reference.gradients(double, A.double(), B.double(), pairs)
    _, losses64, logits64, _ = reference.score(double, prompt.double(), pairs)
    expected["float64"] = {"loss": loss64, "losses": losses64}
    tensors |= {"dP": dP, "dA": dA, "dB": dB, "dP64": dP64}
    print(directory.name, f"float32 against float64: loss {abs(loss / loss64 - 1):.1e}, dP",
          f"{((dP - dP64).norm() / dP64.norm()).item():.1e}, logits",
          f"{(torch.cat(logits64) - tensors['prompt.logits']).abs().max().item():.1e},",
          f"|dP| {dP64.norm():.3f}")
    save_file({k: v.contiguous() for k, v in tensors.items()}, directory / "expected.safetensors")
    write_json(directory / "expected.json", expected)
    write_json(directory / "batch.json", {
        "max_new_tokens": GREEDY_LIMIT,
        "pairs": [{"source": s, "target": t} for s, t in pairs],
    })


STEPS, BATCH, MAX_SOURCE, MAX_TARGET = 20, 4, 64, 16
SETTINGS = dict(lr=0.3, weight_decay=1e-5, warmup=0.1)  # the paper's


def trajectory(out, name, model, seed, std, max_norm, texts, extra, method="dpt", bottleneck=BOTTLENECK):
    """Twenty steps of a method. texts is a list of (source, target); only their indices are written here."""
    settings = dict(SETTINGS, max_norm=max_norm)
    generator = torch.Generator().manual_seed(seed)
    pairs = [superglue.byte_pair(s, t, MAX_SOURCE, MAX_TARGET) for s, t in texts]
    order = []
    while len(order) < STEPS * BATCH:
        order += torch.randperm(len(pairs), generator=generator).tolist()
    batches = [order[i * BATCH : (i + 1) * BATCH] for i in range(STEPS)]
    frozen = reference.load(out.parent / model)
    initial = reference.start(method, frozen.config.d_model, LENGTH, bottleneck, std, generator)
    chosen = [[pairs[i] for i in b] for b in batches]
    gradient = reference.first_gradient(frozen, initial, chosen[0])

    def run(backbone, dtype):
        soft = copy.deepcopy(initial).to(dtype)
        return list(reference.train(backbone, soft, chosen, STEPS, **settings)), soft.state_dict()

    steps, final = run(frozen, torch.float32)
    double, final64 = run(reference.load(out.parent / model, torch.float64), torch.float64)
    drift = max(abs(s[0] / d[0] - 1) for s, d in zip(steps, double))
    print(f"trajectory {name}: loss {steps[0][0]:.4f} to {steps[-1][0]:.4f}, norms",
          f"{min(s[2] for s in steps):.3f} to {max(s[2] for s in steps):.3f},",
          f"{sum(s[2] > max_norm for s in steps)} steps clipped, float32 against float64:",
          f"losses {drift:.1e},", *(f"{k} {((v - final64[k]).norm() / final64[k].norm()).item():.1e}" for k, v in final.items()))
    if method == "svd":
        print(f"trajectory {name}: {(final['Sigma'] > 0).sum().item()} of {final['Sigma'].numel()} entries of Sigma stay positive")
    assert 0 < sum(s[2] > max_norm for s in steps) < STEPS, "clipping must bite, but not always"
    # A trajectory that float32 itself cannot follow would say nothing at a bound of 1e-3.
    assert drift < 1e-4, f"trajectory {name} drifts by {drift}; choose another seed"
    out.mkdir(exist_ok=True)
    tensors = {f"{k}.initial": v for k, v in initial.state_dict().items()} | {f"{k}.final": v for k, v in final.items()}
    if method != "dpt":  # whose gradients testdata/v10 and v11 hold
        tensors |= {f"{k}.gradient": v for k, v in gradient.items()}
    save_file({k: v.contiguous() for k, v in tensors.items()}, out / f"{name}.safetensors")
    write_json(out / f"{name}.json", {
        "model": model,
        "method": method,
        "bottleneck": bottleneck,
        **extra,
        "max_source_length": MAX_SOURCE,
        "max_target_length": MAX_TARGET,
        **settings,
        "steps": [
            dict(examples=b, loss=loss, lr=lr, grad_norm=norm)
            for b, (loss, lr, norm) in zip(batches, steps)
        ],
    })


def invented(count, seed):
    """Small texts in the manner of RTE, from a seed; some not ASCII, some longer than the source may be."""
    generator = torch.Generator().manual_seed(seed)

    def pick(words):
        return words[torch.randint(len(words), (1,), generator=generator).item()]

    names, places = ["Ana", "Bjørn", "Chloé", "Davit", "Ewa"], ["Łódź", "Quito", "Oslo", "Pune"]
    verbs, tails = ["lives in", "left", "wrote to", "never saw"], ["", " in spring", " with 3 friends, again and again"]
    texts = []
    for _ in range(count):
        name, verb, place = pick(names), pick(verbs), pick(places)
        other = pick(places)
        source = f"premise: {name} {verb} {place}{pick(tails)}. hypothesis: {name} {verb} {other}."
        texts.append((source, "0" if other == place else "1"))
    return texts


def write_json(path, value):
    """One top-level key a line, so that a change shows where it is."""
    rows = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()]
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n")


def main():
    here = pathlib.Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=here / "testdata")
    parser.add_argument("--data", type=pathlib.Path, default=here.parents[1].parent / "shared/data/fewglue")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name, shape in SHAPES.items():
        shape = dict(shape)
        goldens(args.out / name, shape, shape.pop("seed"))
    out = args.out / "trajectory"
    texts = invented(20, seed=1)
    examples = [dict(source=s, target=t) for s, t in texts]
    trajectory(out, "invented", "v11", 31, 0.5, 0.2, texts, dict(examples=examples))
    trajectory(out, "invented-pt", "v11", 32, 0.5, 0.2, texts, dict(examples=examples), "pt", 0)
    trajectory(out, "invented-respt", "v11", 33, 0.5, 0.2, texts, dict(examples=examples), "respt", 5)
    trajectory(out, "invented-svd", "v11", 34, 0.5, 0.2, texts, dict(examples=examples), "svd", 7)
    if (args.data / "RTE").is_dir():
        texts = [(x.source, x.target) for x in superglue.train(args.data, "rte")]
        trajectory(out, "rte", "v10", 30, 0.15, 1.0, texts, dict(task="rte", split="train", template="dpt"))
    else:
        print(f"no {args.data / 'RTE'}: testdata/trajectory/rte.* left as it is")


if __name__ == "__main__":
    main()
