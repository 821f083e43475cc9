"""Random T5 checkpoints, written by Transformers' save_pretrained."""

import json
import pathlib

import torch
import transformers
from transformers import T5Config, T5ForConditionalGeneration


def write(directory, generator, max_shard_size="5GB", cross=1, echo=0.3, loud=(1,), **fields):
    """A model whose logits are of order one and whose every weight matters, the norms and the position biases too.

    fields are T5Config's; tie_word_embeddings tells v1.0 (true) from v1.1 (false). cross amplifies what the decoder
    takes from the encoder: averaged over a long source it is little, and greedy outputs would not depend on the source. echo is how large a tied embedding is beside what the
    layers add: the larger, the more the output repeats the token that was put in. loud are tokens that the model likes to say: </s>, so that
    greedy decoding stops early now and then."""
    transformers.utils.logging.disable_progress_bar()
    directory = pathlib.Path(directory)
    config = T5Config(decoder_start_token_id=0, **fields)
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(config)
    tied = fields["tie_word_embeddings"]
    if not tied:
        # Transformers 5 ties every T5 it makes from a configuration; a checkpoint with lm_head.weight is not.
        model.lm_head.weight = torch.nn.Parameter(torch.empty(config.vocab_size, config.d_model))
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
            if name.endswith("EncDecAttention.o.weight"):
                p *= cross
        if tied:
            model.shared.weight *= echo
            model.decoder.final_layer_norm.weight *= round(0.9 / echo)
        for token in loud:
            model.lm_head.weight[token] *= 3
    model.save_pretrained(directory, max_shard_size=max_shard_size)
    # As published: v1.0's and v1.1's config.json carry tie_word_embeddings, and Transformers takes from it whether
    # the decoder's output is scaled. Version 5 writes true for both and forgets, on reading, the
    # scale_decoder_outputs that it wrote itself.
    path = directory / "config.json"
    config = json.loads(path.read_text())
    del config["scale_decoder_outputs"]
    config["tie_word_embeddings"] = tied
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
