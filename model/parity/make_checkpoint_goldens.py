"""Writes testdata/torch and testdata/variants: checkpoints in forms that users have beside v10 and v11, and what
Transformers and PEFT compute with them. See README.md.

    python make_checkpoint_goldens.py [--out testdata]
"""

import argparse
import collections
import json
import os
import pathlib
import shutil

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration, UMT5Config
from transformers import UMT5ForConditionalGeneration

import reference

VOCABULARY = 40
LIMIT = 12
LENGTH = 3


def torch_files(out):
    """State dictionaries as torch.save writes them, and the same tensors as safetensors."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    g = torch.Generator().manual_seed(1)
    table = torch.randn(5, 4, generator=g)
    state = collections.OrderedDict(
        {
            "shared.weight": table,
            "encoder.embed_tokens.weight": table,
            "lm_head.weight": table,
            # Converted from TensorFlow: a transposed view, not row-major.
            "turned": torch.randn(3, 6, generator=g).T,
            "part": torch.randn(4, 6, generator=g)[1:3, 2:5],
            "cube": torch.randn(2, 3, 4, generator=g).permute(2, 0, 1),
            "half": torch.randn(3, generator=g).half(),
            "brain": torch.randn(2, 2, generator=g).bfloat16(),
            "double": torch.randn(3, generator=g).double(),
            "parameter": torch.nn.Parameter(torch.randn(2, 3, generator=g)),
            "scalar": torch.tensor(1.5),
            "none": torch.zeros(0, 3),
        }
    )
    state._metadata = collections.OrderedDict({"": {"version": 1}})
    torch.save(state, out / "state.bin")
    torch.save(dict(state), out / "protocol4.bin", pickle_protocol=4)
    torch.save(state, out / "legacy.bin", _use_new_zipfile_serialization=False)
    kept = {k: v.detach().contiguous() for k, v in state.items() if v is not table} | {"shared.weight": table}
    save_file(kept, out / "state.safetensors")

    class Evil:
        def __reduce__(self):
            return os.system, ("touch /tmp/owned",)

    torch.save({"shared.weight": table, "x": Evil()}, out / "evil.bin")
    torch.save({"state_dict": {"shared.weight": table}}, out / "nested.bin")


def adapters(out):
    """Adapters as PEFT saves them: as a pickle with the rows of two submodules, and of another method."""
    config = T5Config(vocab_size=VOCABULARY, d_model=8, d_kv=2, d_ff=8, num_heads=2, num_layers=1)
    for name, settings in {
        "two-submodules": peft.PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=LENGTH),
        "lora": peft.LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, target_modules=["q"]),
    }.items():
        torch.manual_seed(2)
        model = peft.get_peft_model(T5ForConditionalGeneration(config), settings)
        model.save_pretrained(out / name, safe_serialization=False)
        (out / name / "README.md").unlink(missing_ok=True)


def randomize(model, seed):
    g = torch.Generator().manual_seed(seed)
    d = model.config.d_model
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            if name.endswith("layer_norm.weight"):
                p.copy_(1 + 0.3 * noise)
            elif "relative_attention_bias" in name or "embed_tokens" in name or name == "shared.weight":
                p.copy_(noise)
            elif name.endswith(".q.weight"):
                p.copy_(noise * (d * model.config.d_kv) ** -0.5)
            else:
                p.copy_(noise * p.shape[1] ** -0.5)


SHAPE = dict(
    vocab_size=VOCABULARY,
    d_model=16,
    d_kv=4,
    num_heads=3,
    d_ff=20,
    num_layers=2,
    num_decoder_layers=2,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=16,
    decoder_start_token_id=0,
)


def variant(out, name, seed):
    """One model of out/name with losses, logits, the prompt's gradient and greedy outputs."""
    directory = out / name
    shutil.rmtree(directory, ignore_errors=True)
    family, fields = (T5Config, T5ForConditionalGeneration), {}
    if name.startswith("umt5"):
        family, fields = (UMT5Config, UMT5ForConditionalGeneration), dict(feed_forward_proj="gated-gelu")
    if name == "silu":
        fields = dict(feed_forward_proj="gated-silu")
    model = family[1](family[0](**SHAPE, **fields))
    randomize(model, seed)
    model.save_pretrained(directory)
    if name == "umt5-head":  # as published: an output projection of its own
        tensors = load_file(directory / "model.safetensors")
        g = torch.Generator().manual_seed(seed)
        tensors["lm_head.weight"] = 0.25 * torch.randn(VOCABULARY, SHAPE["d_model"], generator=g)
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        path = directory / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": False}, indent=2) + "\n")
    model = AutoModelForSeq2SeqLM.from_pretrained(directory, attn_implementation="eager", dtype=torch.float32).eval()
    for p in model.parameters():
        p.requires_grad_(False)
    if name == "umt5-head":
        # Version 5 forces true when it reads, and would scale the decoder's output; the published models do not.
        model.config.tie_word_embeddings = False
    # A prompt goes before the encoder's own embeddings.
    model.get_input_embeddings = lambda: model.encoder.embed_tokens
    g = torch.Generator().manual_seed(seed + 1)
    pairs = [
        (torch.randint(3, VOCABULARY, (s - 1,), generator=g).tolist() + [1],
         torch.randint(3, VOCABULARY, (t - 1,), generator=g).tolist() + [1])
        for s, t in [(1, 1), (5, 3), (23, 14)]
    ]
    prompt = torch.randn(LENGTH, SHAPE["d_model"], generator=g)
    _, losses, logits, _ = reference.score(model, prompt, pairs)
    _, gradient = reference.prompt_gradient(model, prompt, pairs)
    outputs, margin = reference.greedy(model, prompt, [s for s, _ in pairs], LIMIT)
    assert margin > 1e-3, f"{name}: greedy decided by {margin}; choose another seed"
    save_file(
        {"prompt": prompt, "logits": torch.cat(logits).contiguous(), "dP": gradient.contiguous()},
        directory / "expected.safetensors",
    )
    expected = {
        "max_new_tokens": LIMIT,
        "pairs": [{"source": s, "target": t} for s, t in pairs],
        "losses": losses,
        "greedy": outputs,
    }
    rows = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in expected.items()]
    (directory / "expected.json").write_text("{\n" + ",\n".join(rows) + "\n}\n")
    print(name, "losses", losses, "greedy", outputs, "margin", margin)


def main():
    here = pathlib.Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=here / "testdata")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch_files(out / "torch")
    adapters(out / "torch")
    for name, seed in {"silu": 3, "umt5": 7, "umt5-head": 9}.items():
        variant(out / "variants", name, seed)


if __name__ == "__main__":
    main()
