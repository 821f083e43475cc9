"""The reference computation: a frozen T5 of Transformers with a soft prompt in front of it.

Everything here is PyTorch and Transformers used as their documentation says, so that what it computes
is what the field computes. Nothing in it knows the Go program.

Shapes: e = d_model, c = prompt length, b = bottleneck. A is [e, b], B is [b, c], the prompt is
(A·B)^T, [c, e], a row a virtual token. A pair is (source ids, target ids), each ending with </s>.
"""

import torch
import transformers
from transformers import T5ForConditionalGeneration, get_linear_schedule_with_warmup
from transformers.modeling_outputs import BaseModelOutput

IGNORED = -100  # the label that CrossEntropyLoss leaves out


def load(directory, dtype=torch.float32):
    """The frozen model in a directory that save_pretrained wrote, with eager attention."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model = T5ForConditionalGeneration.from_pretrained(
        directory, attn_implementation="eager", dtype=torch.float32
    )
    if dtype == torch.float64:
        model = model.double()
        for module in model.modules():
            if isinstance(module, transformers.models.t5.modeling_t5.T5LayerNorm):
                module.forward = _norm64.__get__(module)
    model.eval()
    for p in model.parameters():
        p.requires_grad_(False)
    return model


def _norm64(self, hidden):
    # T5LayerNorm rounds the variance to float32 even in a float64 model.
    variance = hidden.pow(2).mean(-1, keepdim=True)
    return self.weight * (hidden * torch.rsqrt(variance + self.variance_epsilon))


def product(A, B):
    """The prompt [c, e] of A [e, b] and B [b, c]."""
    return (A @ B).T


def inputs(model, prompt, sources):
    """Encoder inputs: the prompt before each source's embeddings, padded to one length, with the mask."""
    length = max(len(s) for s in sources)
    ids = torch.tensor([list(s) + [0] * (length - len(s)) for s in sources])
    mask = torch.tensor([[1] * len(s) + [0] * (length - len(s)) for s in sources])
    embeds = model.get_input_embeddings()(ids)
    if prompt is not None:
        embeds = torch.cat([prompt.to(embeds.dtype).expand(len(sources), -1, -1), embeds], 1)
        mask = torch.cat([torch.ones(len(sources), prompt.shape[0], dtype=mask.dtype), mask], 1)
    return embeds, mask


def labels(targets):
    length = max(len(t) for t in targets)
    return torch.tensor([list(t) + [IGNORED] * (length - len(t)) for t in targets])


def forward(model, prompt, pairs):
    """The model's own output on a padded batch; .loss is the mean over the batch's target tokens."""
    embeds, mask = inputs(model, prompt, [s for s, _ in pairs])
    return model(inputs_embeds=embeds, attention_mask=mask, labels=labels([t for _, t in pairs]))


def score(model, prompt, pairs):
    """(summed loss, tokens) per pair, logits [target length, vocabulary] per pair, encoder rows per pair."""
    with torch.no_grad():
        out = forward(model, prompt, pairs)
    front = 0 if prompt is None else prompt.shape[0]
    losses, logits, encoded = [], [], []
    for i, (source, target) in enumerate(pairs):
        rows = out.logits[i, : len(target)]
        losses.append(
            torch.nn.functional.cross_entropy(rows, torch.tensor(target), reduction="sum").item()
        )
        logits.append(rows)
        encoded.append(out.encoder_last_hidden_state[i, : front + len(source)])
    return out.loss.item(), losses, logits, encoded


def gradients(model, A, B, pairs):
    """Batch loss and its gradients with respect to the prompt [c, e], A and B."""
    A = A.detach().clone().requires_grad_(True)
    B = B.detach().clone().requires_grad_(True)
    prompt = product(A, B)
    prompt.retain_grad()
    loss = forward(model, prompt, pairs).loss
    loss.backward()
    return loss.item(), prompt.grad, A.grad, B.grad


def prompt_gradient(model, prompt, pairs):
    """Batch loss and its gradient with respect to a free prompt [c, e]."""
    prompt = prompt.detach().clone().requires_grad_(True)
    loss = forward(model, prompt, pairs).loss
    loss.backward()
    return loss.item(), prompt.grad


def kink_distance(model, prompt, pairs):
    """How near to 0 the nearest input of a ReLU is."""
    nearest = []

    def look(_module, _inputs, output):
        nearest.append(output.abs().min().item())

    hooks = [m.register_forward_hook(look) for n, m in model.named_modules() if n.endswith("DenseReluDense.wi")]
    with torch.no_grad():
        forward(model, prompt, pairs)
    for hook in hooks:
        hook.remove()
    return min(nearest)


def greedy(model, prompt, sources, limit):
    """generate()'s greedy ids per source, without the start token, up to and without </s>, and the smallest lead of
    a chosen token over the runner-up."""
    # generate() of this version makes as many cache layers as the encoder has layers.
    square = model.config.num_layers == model.config.num_decoder_layers
    with torch.no_grad():
        embeds, mask = inputs(model, prompt, sources)
        encoded = model.encoder(inputs_embeds=embeds, attention_mask=mask)
        out = model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded.last_hidden_state),
            attention_mask=mask,
            max_new_tokens=limit,
            do_sample=False,
            num_beams=1,
            use_cache=square,
            return_dict_in_generate=True,
            output_logits=True,
        )
    outputs, margin = [], float("inf")
    for i, row in enumerate(out.sequences):
        ids = row.tolist()[1:]
        chosen = ids.index(1) + 1 if 1 in ids else len(ids)
        for logits in out.logits[:chosen]:
            top = logits[i].topk(2).values
            margin = min(margin, (top[0] - top[1]).item())
        outputs.append([id for id in ids[:chosen] if id != 1])
    return outputs, margin


def warmup_steps(warmup, total):
    """As the DPT code: a number of steps when above 1, else a share of all steps."""
    return int(warmup) if warmup > 1 else int(warmup * total)


def train(model, soft, batches, total, lr, weight_decay, warmup, max_norm):
    """Prompt training. Yields (loss before the update, learning rate of the update, gradient norm before
    clipping) per batch; soft is a module of this file's, updated in place. The schedule is for total steps."""
    trained = list(soft.parameters())
    optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=weight_decay)
    schedule = get_linear_schedule_with_warmup(optimizer, warmup_steps(warmup, total), total)
    for pairs in batches:
        optimizer.zero_grad()
        loss = forward(model, soft(), pairs).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, max_norm)
        rate = schedule.get_last_lr()[0]
        optimizer.step()
        schedule.step()
        yield loss.item(), rate, norm.item()


class Decomposed(torch.nn.Module):
    """DPT: the product of A [e, b] and B [b, c]. Like the modules below it gives the prompt [c, e] when called, and
    the names of its parameters are those of the program's prompt files."""

    def __init__(self, A, B):
        super().__init__()
        self.A, self.B = torch.nn.Parameter(A.clone()), torch.nn.Parameter(B.clone())

    def forward(self):
        return product(self.A, self.B)


class Plain(torch.nn.Module):
    """Prompt tuning: the rows themselves."""

    def __init__(self, rows):
        super().__init__()
        self.prompt = torch.nn.Parameter(rows.clone())

    def forward(self):
        return self.prompt


class Residual(torch.nn.Module):
    """Residual prompt tuning: rows through a shared MLP of PyTorch's own layers, with a skip connection."""

    def __init__(self, rows, bottleneck):
        super().__init__()
        e = rows.shape[1]
        self.embeddings = torch.nn.Parameter(rows.clone())
        self.mlp = torch.nn.ModuleDict(
            dict(down=torch.nn.Linear(e, bottleneck), up=torch.nn.Linear(bottleneck, e), norm=torch.nn.LayerNorm(e))
        )

    def forward(self):
        hidden = torch.relu(self.mlp["down"](self.embeddings))
        return self.mlp["norm"](self.mlp["up"](hidden)) + self.embeddings


class RankProbe(torch.nn.Module):
    """The rank probe: U [e, r], the diagonal of Sigma [r], V [r, c]."""

    def __init__(self, U, Sigma, V):
        super().__init__()
        self.U, self.Sigma, self.V = (torch.nn.Parameter(t.clone()) for t in (U, Sigma, V))

    def forward(self):
        return (self.U @ torch.diag(torch.relu(self.Sigma)) @ self.V).T


def start(method, e, length, bottleneck, std, generator):
    """A fresh prompt of a method: every number drawn, none left at 0 or 1, so that each shows a mistake."""

    def draw(*shape):
        return std * torch.randn(*shape, generator=generator)

    if method == "dpt":
        return Decomposed(draw(e, bottleneck), draw(bottleneck, length))
    if method == "pt":
        return Plain(draw(length, e))
    if method == "svd":
        rank = bottleneck or min(e, length)
        return RankProbe(draw(e, rank), draw(rank).abs(), draw(rank, length))
    soft = Residual(draw(length, e), bottleneck)
    with torch.no_grad():
        for name, p in soft.mlp.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            scale = p.shape[1] ** -0.5 if p.dim() == 2 else 0.3
            p.copy_((1 if name == "norm.weight" else 0) + scale * noise)
    return soft


def first_gradient(model, soft, pairs):
    """The gradient of the batch's loss with respect to every parameter of soft, by name."""
    forward(model, soft(), pairs).loss.backward()
    found = {name: p.grad.clone() for name, p in soft.named_parameters()}
    soft.zero_grad()
    return found
