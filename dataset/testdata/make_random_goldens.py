"""Writes random_goldens.json: a thousand random predictions for each task and template and what reference code makes of them.

    python make_random_goldens.py [--t5 DIR] [--superglue DIR]

Needs what make_metrics_goldens.py needs, whose evaluators it uses. About one prediction in seven is no label at all. With --t5, a checkout of
google-research/text-to-text-transfer-transformer (e081111), and --superglue, metrics/super_glue of one of huggingface/evaluate (a7dd338),
which holds the official evaluation of ReCoRD, those projects' own functions are run on the same predictions, and have to agree:
T5's on all, SuperGLUE's on those that are labels, since it knows no others.

The examples are those of tasks/, train before val, again and again up to the thousandth. A prediction is an index into its task's pool.
"""

import argparse
import ast
import collections
import json
import pathlib
import random
import re
import string
import types

import numpy as np
import sklearn.metrics

from make_metrics_goldens import DIRS, WORDS, load, mangle, predict_class, predict_text, score

COUNT = 1000
SEED = 1000


def functions(path, **names):
    """The functions of a source file, without what it imports: those names are given."""
    tree = ast.parse(pathlib.Path(path).read_text(encoding="utf-8"))
    module = ast.Module([n for n in tree.body if isinstance(n, ast.FunctionDef)], type_ignores=[])
    for node in module.body:
        node.decorator_list = []
        for part in ast.walk(node):  # annotations may name what is not imported
            if isinstance(part, ast.arg):
                part.annotation = None
            if isinstance(part, ast.FunctionDef):
                part.returns = None
    space = dict(names)
    exec(compile(module, str(path), "exec"), space)
    return types.SimpleNamespace(**space)


class T5:
    """The T5 code's metrics and postprocessors, as its glue_utils puts them together."""

    def __init__(self, root):
        common = dict(np=np, collections=collections, re=re, string=string, sklearn=sklearn,
                      logging=types.SimpleNamespace(info=lambda *a: None))
        qa = functions(root / "t5/evaluation/qa_utils.py", **common)
        self.metrics = functions(root / "t5/evaluation/metrics.py", qa_utils=qa, **common)
        text = types.SimpleNamespace(compat=types.SimpleNamespace(as_text=str))
        self.post = functions(root / "t5/data/postprocessors.py", tf=text)

    def score(self, task, rows, words, strip, predictions):
        m = self.metrics
        if task == "record":
            got = m.deduplicate_metric(m.squad)([dict(group=i, value=r[1]) for i, r in enumerate(rows)],
                                                [dict(value=p) for p in predictions])
            return {"f1": got["f1"], "em": got["em"]}
        labels = [r[0] for r in rows]
        if task == "wsc":
            return m.accuracy(labels, [self.post.wsc_simple(p, dict(targets_pretokenized=r[1])) for p, r in zip(predictions, rows)])
        stripped = [p.strip() if strip else p for p in predictions]  # as the DPT code does
        ids = [self.post.string_label_to_class_id(p, words) for p in stripped]
        if task == "multirc":
            targets = [dict(group=r[2], value=r[0]) for r in rows]
            values = [dict(value=i) for i in ids]
            return {"f1a": m.multirc_f1_over_all_answers(targets, values)["f1"],
                    "em": m.mean_group_metric(m.all_match)(targets, values)["exact_match"]}
        got = m.accuracy(labels, ids)
        if task == "cb":
            got["f1_macro"] = m.mean_multiclass_f1(num_classes=3)(labels, ids)["mean_3class_f1"]
        return got


class SuperGLUE:
    """SuperGLUE's metrics, of predictions that are labels."""

    def __init__(self, root):
        self.record = functions(root / "record_evaluation.py", re=re, string=string, Counter=collections.Counter)
        self.all = functions(root / "super_glue.py", f1_score=sklearn.metrics.f1_score)

    def score(self, task, rows, ids, predictions):
        if task == "record":
            data = [{"qas": [{"id": i, "answers": [{"text": a} for a in r[1]]} for i, r in enumerate(rows)]}]
            got, _ = self.record.evaluate(data, dict(enumerate(predictions)))
            return {"f1": 100 * got["f1"], "em": 100 * got["exact_match"]}
        labels = [r[0] for r in rows]
        if task == "multirc":
            got = self.all.evaluate_multirc([dict(idx=dict(paragraph=r[2][0], question=r[2][1]), prediction=i) for i, r in zip(ids, rows)], labels)
            return {"f1a": 100 * got["f1_a"], "em": 100 * got["exact_match"]}
        if task == "cb":
            got = self.all.acc_and_f1(np.array(ids), np.array(labels), f1_avg="macro")
            return {"accuracy": 100 * got["accuracy"], "f1_macro": 100 * got["f1"]}
        return {"accuracy": 100 * self.all.simple_accuracy(np.array(ids), np.array(labels))}


def same(what, got, want):
    assert got.keys() == want.keys() and all(abs(got[k] - want[k]) < 1e-9 for k in want), f"{what}: {got}, here {want}"


def predictions_for(rng, task, rows, words):
    """A pool of texts, and COUNT indices into it."""
    pool, drawn = {}, []
    texts = [rng.choice(r[1]) if task == "record" else r[1] for r in rows]
    # A few variants an example keep the file small, and the thousand still differ by their neighbours.
    variants = [[predict_text(rng, t, texts) for _ in range(3)] for t in texts] if task in ("record", "wsc") else None
    for i in range(COUNT):
        row = i % len(rows)
        if variants:
            text = rng.choice(variants[row if rng.random() < 0.85 else rng.randrange(len(rows))])
        else:
            text = predict_class(rng, words, rows[row][0]) if rng.random() < 0.9 else mangle(rng, rng.choice(words))
        drawn.append(pool.setdefault(text, len(pool)))
    return list(pool), drawn


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--t5", type=pathlib.Path)
    parser.add_argument("--superglue", type=pathlib.Path)
    args = parser.parse_args()
    t5 = T5(args.t5) if args.t5 else None
    official = SuperGLUE(args.superglue) if args.superglue else None
    rng = random.Random(SEED)
    lines = []
    for task in DIRS:
        rows = [r for split in ("train", "val") for r in ((a, b, (split, c)) for a, b, c in load(task, split))]
        cycle = [rows[i % len(rows)] for i in range(COUNT)]
        for template in ("dpt", "t5"):
            words = WORDS.get(task)
            if words and template == "dpt":
                words = [str(i) for i in range(len(words))]
            pool, drawn = predictions_for(rng, task, rows, words)
            texts = [pool[i] for i in drawn]
            metrics = score(task, cycle, words, template == "dpt", texts)
            if t5:
                same(f"{task} {template}: T5", t5.score(task, cycle, words, template == "dpt", texts), metrics)
            if official and task != "wsc":  # whose official metric knows no texts
                known = [t for t in range(COUNT) if not words or texts[t] in words]
                part, said = [cycle[t] for t in known], [texts[t] for t in known]
                ids = [words.index(s) if words else None for s in said]
                same(f"{task} {template}: SuperGLUE", official.score(task, part, ids, said), score(task, part, words, template == "dpt", said))
            lines.append(json.dumps(dict(task=task, template=template, metrics=metrics, pool=pool, predictions=drawn), separators=(",", ":")))
            print(task, template, metrics, "T5 agrees" if t5 else "", "SuperGLUE agrees" if official and task != "wsc" else "")
    pathlib.Path("random_goldens.json").write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
