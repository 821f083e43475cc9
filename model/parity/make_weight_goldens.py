"""Writes testdata/*/weights.*: gradients with respect to all weights of the tiny T5s, and five steps of full fine-tuning.

    python make_weight_goldens.py [--out testdata]

It takes the models and batches that make_goldens.py wrote. Versions as in requirements.txt.
"""

import argparse
import json
import pathlib

import torch
from safetensors.torch import save_file

import reference

STEPS = 5
SETTINGS = dict(lr=1e-3, weight_decay=1e-2, max_norm=1.0)


def trainable(directory, dtype):
    model = reference.load(directory, dtype)
    for p in model.parameters():
        p.requires_grad_(True)
    return model


def parameters(model):
    """Trainable parameters by name, those that are tied once; Transformers' own order."""
    return dict(model.named_parameters())


def train(model, pairs):
    """Yields (loss before the update, gradient norm before clipping) of each step on all of pairs."""
    chosen = list(parameters(model).values())
    optimizer = torch.optim.AdamW(chosen, lr=SETTINGS["lr"], weight_decay=SETTINGS["weight_decay"])
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = reference.forward(model, None, pairs).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(chosen, SETTINGS["max_norm"])
        optimizer.step()
        yield loss.item(), norm.item()


def goldens(directory):
    pairs = [(p["source"], p["target"]) for p in json.loads((directory / "batch.json").read_text())["pairs"]]
    model = trainable(directory, torch.float32)
    reference.forward(model, None, pairs).loss.backward()
    grads = {name: p.grad.clone() for name, p in parameters(model).items()}
    double = trainable(directory, torch.float64)
    reference.forward(double, None, pairs).loss.backward()
    worst = max(((grads[n] - p.grad).norm() / p.grad.norm()).item() for n, p in parameters(double).items())
    steps = list(train(trainable(directory, torch.float32), pairs))
    steps64 = list(train(trainable(directory, torch.float64), pairs))
    drift = max(abs(a[0] / b[0] - 1) for a, b in zip(steps, steps64))
    print(directory.name, f"{len(grads)} weights, gradient float32 against float64 {worst:.1e} at most; losses",
          " ".join(f"{s[0]:.4f}" for s in steps), f"drift {drift:.1e}")
    assert drift < 1e-4
    save_file({n: g.contiguous() for n, g in grads.items()}, directory / "weights.safetensors")
    rows = {**SETTINGS, "steps": [dict(loss=l, grad_norm=n) for l, n in steps]}
    (directory / "weights.json").write_text(json.dumps(rows, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent / "testdata")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in ("v10", "v11"):
        goldens(args.out / name)


if __name__ == "__main__":
    main()
