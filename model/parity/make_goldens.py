"""Writes testdata: what Transformers and PyTorch compute for two tiny T5s. See README.md.

    python make_goldens.py [--out testdata] [--data ../../../shared/data/fewglue]
"""

import argparse
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from transformers import T5Config, T5ForConditionalGeneration

import reference

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
    """A random model whose logits are of order one and whose every weight matters."""
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        num_heads=3,
        num_layers=2,
        num_decoder_layers=3,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        decoder_start_token_id=0,
        **shape,
    )
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(config)
    tied = shape["tie_word_embeddings"]
    if not tied:
        # Transformers 5 ties every T5 it makes from a configuration; a checkpoint with lm_head.weight is not.
        model.lm_head.weight = torch.nn.Parameter(torch.empty(VOCABULARY, config.d_model))
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if name.endswith("layer_norm.weight"):
                p.copy_(1 + 0.3 * noise)
            elif name.endswith("relative_attention_bias.weight") or name == "shared.weight":
                p.copy_(noise)
            elif name.endswith(".q.weight"):
                p.copy_(noise * (config.d_model * config.d_kv) ** -0.5)
            else:
                p.copy_(noise * p.shape[1] ** -0.5)
        if tied:
            # Small embeddings, or the tied head echoes the token that was put in.
            model.shared.weight *= 0.3
            model.decoder.final_layer_norm.weight *= 3
        # A louder </s>, so that greedy decoding stops early now and then.
        model.lm_head.weight[1] *= 3
    model.save_pretrained(directory)
    # As published: v1.0's and v1.1's config.json carry tie_word_embeddings, and Transformers takes from it
    # whether the decoder's output is scaled. Version 5 writes true for both and forgets, on reading, the
    # scale_decoder_outputs that it wrote itself.
    path = directory / "config.json"
    fields = json.loads(path.read_text())
    del fields["scale_decoder_outputs"]
    fields["tie_word_embeddings"] = tied
    path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")
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
        margin = reference.greedy_margin(model, p, sources, GREEDY_LIMIT)
        assert margin > 1e-3, f"{directory.name} {name}: greedy decided by {margin}; choose another seed"
        outputs = reference.greedy(model, p, sources, GREEDY_LIMIT)
        expected[name] = {"loss": loss, "losses": losses, "tokens": TARGETS, "greedy": outputs}
        # Padding must not matter, or the goldens would say something about padding.
        for i, pair in enumerate(pairs):
            alone, _, rows, _ = reference.score(model, p, [pair])
            assert (rows[0] - logits[i]).abs().max() < 2e-5
            assert reference.greedy(model, p, [pair[0]], GREEDY_LIMIT)[0] == outputs[i]
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


def write_json(path, value):
    """One top-level key a line, so that a change shows where it is."""
    rows = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()]
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n")


def main():
    here = pathlib.Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=here / "testdata")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name, shape in SHAPES.items():
        shape = dict(shape)
        goldens(args.out / name, shape, shape.pop("seed"))


if __name__ == "__main__":
    main()
