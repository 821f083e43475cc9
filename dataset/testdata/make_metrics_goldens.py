"""Writes metrics_goldens.json: random predictions for the data in tasks/ and what reference code makes of them.

Needs Python 3.11 or later and

    pip install scikit-learn==1.9.1 numpy==2.4.6

Run it in this directory: python make_metrics_goldens.py. Accuracy and F1 come from scikit-learn. The evaluators of SQuAD, ReCoRD,
MultiRC and WSC are written here after the description of the official ones, apart from the Go code, and use Python's own
lower-casing, splitting, regular expressions and counters, whose behavior the Go code has to match.
"""

import collections
import json
import pathlib
import random
import re
import string

import numpy as np
from sklearn.metrics import accuracy_score, f1_score

DATA = pathlib.Path("tasks")
DIRS = {
    "boolq": "BoolQ", "cb": "CB", "copa": "COPA", "multirc": "MultiRC",
    "record": "ReCoRD", "rte": "RTE", "wic": "WiC", "wsc": "WSC",
}
WORDS = {
    "boolq": ["False", "True"], "wic": ["False", "True"], "multirc": ["False", "True"],
    "copa": ["choice1", "choice2"], "rte": ["entailment", "not_entailment"],
    "cb": ["entailment", "contradiction", "neutral"],
}
ROUNDS = 3
SEED = 20230


def load(task, split):
    """Yields (class or None, referent or answers or None, group or None) in the order of the file."""
    with open(DATA / DIRS[task] / f"{split}.jsonl", encoding="utf-8") as f:
        for text in f:
            row = json.loads(text)
            if task == "multirc":
                for question in row["passage"]["questions"]:
                    for answer in question["answers"]:
                        yield answer["label"], None, (row["idx"], question["idx"])
            elif task == "record":
                for qa in row["qas"]:
                    yield None, [a["text"] for a in qa["answers"]], None
            elif task == "wsc":
                yield int(row["label"]), row["target"]["span1_text"], None
            elif task in ("cb", "rte"):
                yield WORDS[task].index(row["label"]), None, None
            else:
                yield int(row["label"]), None, None


# SQuAD and ReCoRD.


def squad_words(text):
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def squad_f1(prediction, answer):
    prediction, answer = squad_words(prediction), squad_words(answer)
    overlap = sum((collections.Counter(prediction) & collections.Counter(answer)).values())
    if overlap == 0:
        return 0.0
    p, r = overlap / len(prediction), overlap / len(answer)
    return 2 * p * r / (p + r)


def squad(prediction, answers):
    """Returns (F1, exact match) of one prediction, each the best over the answers."""
    return (
        max(squad_f1(prediction, a) for a in answers),
        float(any(" ".join(squad_words(prediction)) == " ".join(squad_words(a)) for a in answers)),
    )


# WSC.

DETERMINERS = set(
    "a an few her his each every many much my our some that the their these this those which whose your".split()
)


def wsc(prediction, referent):
    """Returns 1 if the prediction means the referent, 0 if not, -1 if it is empty."""

    def bare(text):
        return " ".join(w for w in text.strip().lower().split(" ") if w not in DETERMINERS)

    prediction, referent = bare(prediction), bare(referent)
    if prediction == "":
        return -1
    if ("'" in prediction) != ("'" in referent):
        return 0
    p, r = set(prediction.split(" ")), set(referent.split(" "))
    return int(p <= r or r <= p)


# Predictions: mostly right, wrong or nearly a label, sometimes nothing of the kind.


def mangle(rng, text):
    return rng.choice([
        "", " ", text + " ", " " + text, text.upper(), text.lower(), text[:-1], text + text, "2", "3", "-1", "true", "yes",
        "neutral", "choice3", "entail", "<unk>", "the", "\u00a0" + text,
    ])


def predict_class(rng, words, label):
    draw = rng.random()
    if draw < 0.55:
        return words[label]
    if draw < 0.85:
        return rng.choice(words)
    return mangle(rng, rng.choice(words))


def predict_text(rng, right, others):
    text = rng.choice([right, right, rng.choice(others)])
    draw = rng.random()
    if draw < 0.4:
        return text
    return rng.choice([
        "the " + text, "The " + text + ".", text.upper(), text.split(" ")[0], text + " and " + rng.choice(others),
        "a" + text, text + "'s", text + "'s hat", "", "  ", "the", "an, the!", text + text[-1], "--" + text + "--",
        "old " + text + " " + text,
    ])


def score(task, rows, words, strip, predictions):
    labels = [r[0] for r in rows]
    if task == "record":
        f1, em = zip(*(squad(p, r[1]) for p, r in zip(predictions, rows)))
        return {"f1": 100 * float(np.mean(f1)), "em": 100 * float(np.mean(em))}
    if task == "wsc":
        return {"accuracy": 100 * accuracy_score(labels, [wsc(p, r[1]) for p, r in zip(predictions, rows)])}
    ids = [words.index(q) if (q := p.strip() if strip else p) in words else -1 for p in predictions]
    if task == "multirc":
        groups = collections.defaultdict(list)
        for row, i in zip(rows, ids):
            groups[row[2]].append(row[0] == i)
        opposite = [1 - label if i == -1 else i for label, i in zip(labels, ids)]
        return {"f1a": 100 * f1_score(labels, opposite), "em": 100 * float(np.mean([all(g) for g in groups.values()]))}
    metrics = {"accuracy": 100 * accuracy_score(labels, ids)}
    if task == "cb":
        metrics["f1_macro"] = 100 * f1_score(labels, ids, labels=[0, 1, 2], average="macro")
    return metrics


def make_scores(rng):
    for task in DIRS:
        for split in ("train", "val"):
            rows = list(load(task, split))
            for template in ("dpt", "t5"):
                words = WORDS.get(task)
                if words and template == "dpt":
                    words = [str(i) for i in range(len(words))]
                # The last round predicts one thing throughout, so that some class is never predicted.
                for turn in range(ROUNDS + 1):
                    if task in ("record", "wsc"):
                        texts = [r[1] if task == "wsc" else rng.choice(r[1]) for r in rows]
                        predictions = [predict_text(rng, t, texts) for t in texts]
                        if turn == ROUNDS:
                            predictions = ["" for _ in rows]
                    elif turn == ROUNDS:
                        predictions = [words[0] for _ in rows]
                    else:
                        predictions = [predict_class(rng, words, r[0]) for r in rows]
                    yield {
                        "task": task, "split": split, "template": template, "predictions": predictions,
                        "metrics": score(task, rows, words, template == "dpt", predictions),
                    }


HARD = [
    "", " ", "a", "A an THE", "the_end", "a-b", "a b", "Na\u00efve \u00c9COLE", "\u0130stanbul", "istanbul", "i\u0307stanbul",
    "a\u0301 b", "\u00e1 b", "x\u00a0y", "x\u2003y", "x\u001fy", "x y", "x\u200by", "\u201cquoted\u201d", "'quoted'",
    "U.S.", "us", "U. S.", "1,000", "1000", "\u00bd a", "a\u00bd", "the 3rd", "\u4e00 a \u4e8c", "\u4e00a", "don't", "dont",
    "New York, New York", "new york", "york new", "the\tthe\nend", "end", "\u00df", "SS", "\U0001d400 the", "the \U0001f600",
    "$5 + ~", "5", "\u00a35", "e=mc^2 `x`", "emc2 x", "an apple a day", "apple day", "\u0627\u0644 a \u0639", "the\u2019s", "the's",
]

WSC_HARD = [
    "", "the", "The  ", "the  a", "Bob", "bob", "Bob's", "Bob's hat", "the hat", "a hat", "hat", "fuzzy bunny", "the fuzzy  bunny",
    "Arthur and Celeste", "Celeste and Arthur", "Arthur", "her sister", "sister", "His", "\u00a0Bob\u00a0", "Bob\tJones", "Bob Jones",
    "Bob,", "that newbie", "newbie", "\u0130da", "i\u0307da", "many men", "men", "O'Neil", "O\u2019Neil",
]


def main():
    rng = random.Random(SEED)
    goldens = {
        "scores": list(make_scores(rng)),
        "squad": [
            {"prediction": p, "target": t, "result": list(squad(p, [t]))} for p in HARD for t in HARD
            if squad_f1(p, t) > 0 or squad(p, [t])[1] > 0 or rng.random() < 0.05
        ],
        "words": [{"text": t, "words": squad_words(t)} for t in HARD],
        "wsc": [{"prediction": p, "target": t, "result": wsc(p, t)} for p in WSC_HARD for t in WSC_HARD if t],
    }
    with open("metrics_goldens.json", "w", encoding="utf-8") as f:
        f.write("{\n")
        for i, (name, items) in enumerate(goldens.items()):
            f.write(json.dumps(name) + ": [\n")
            f.write(",\n".join(json.dumps(item, separators=(",", ":")) for item in items))
            f.write("\n]" + ("," if i < len(goldens) - 1 else "") + "\n")
        f.write("}\n")


if __name__ == "__main__":
    main()
