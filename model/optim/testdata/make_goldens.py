"""Makes goldens.json: AdamW, clipping and the schedule as PyTorch and Transformers compute them.

Versions used: torch 2.15.0 (CPU), transformers 5.23.0, numpy 2.
Run from this directory: python make_goldens.py
"""

import json

import torch
from transformers import get_linear_schedule_with_warmup

torch.manual_seed(1)
torch.set_num_threads(1)


def run(name, shapes, steps, warmup, lr, wd, max_norm, scale, betas=(0.9, 0.999), eps=1e-8):
    params = [torch.nn.Parameter(torch.randn(s) * 0.3) for s in shapes]
    init = [x for p in params for x in p.detach().flatten().tolist()]
    opt = torch.optim.AdamW(params, lr=lr, betas=betas, eps=eps, weight_decay=wd, foreach=False)
    sched = get_linear_schedule_with_warmup(opt, warmup, steps)
    out = []
    for t in range(steps):
        # Gradients of very different sizes, as in training: some steps clip, some do not.
        grads = [torch.randn(p.shape) * scale * (10.0 ** (t % 5 - 3)) for p in params]
        flat = [x for g in grads for x in g.flatten().tolist()]
        for p, g in zip(params, grads):
            p.grad = g.clone()
        norm = None
        if max_norm > 0:
            norm = float(torch.nn.utils.clip_grad_norm_(params, max_norm))
        factor = sched.get_last_lr()[0] / lr
        opt.step()
        sched.step()
        state = [opt.state[p] for p in params]
        out.append({
            "grad": flat,
            "norm": norm,
            "factor": factor,
            "params": [x for p in params for x in p.detach().flatten().tolist()],
            "m": [x for s in state for x in s["exp_avg"].flatten().tolist()],
            "v": [x for s in state for x in s["exp_avg_sq"].flatten().tolist()],
        })
    return {"name": name, "lr": lr, "beta1": betas[0], "beta2": betas[1], "eps": eps, "weight_decay": wd,
            "max_norm": max_norm, "warmup": warmup, "total": steps, "init": init, "steps": out}


cases = [
    run("dpt", [(6, 2), (2, 5)], 30, 3, 0.3, 1e-5, 1.0, 1.0),
    run("heavy decay, no warm-up, no clipping", [(4, 3)], 24, 0, 0.05, 0.5, 0.0, 3.0, (0.8, 0.95), 1e-4),
]


def schedule(warmup, total):
    p = torch.nn.Parameter(torch.zeros(1))
    opt = torch.optim.SGD([p], lr=1.0)
    sched = get_linear_schedule_with_warmup(opt, warmup, total)
    out = []
    for _ in range(total + 3):
        out.append(sched.get_last_lr()[0])
        opt.step()
        sched.step()
    return {"warmup": warmup, "total": total, "factors": out}


schedules = [schedule(w, t) for w, t in [(0, 10), (3, 10), (1, 1), (10, 10), (12, 10), (7, 23), (0, 0)]]
with open("goldens.json", "w") as f:
    json.dump({"cases": cases, "schedules": schedules}, f, separators=(",", ":"))
    f.write("\n")
